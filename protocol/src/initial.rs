//! C0: the common starting point of a swarm, drawn from the genesis seed by integer arithmetic only, or the
//! state of another swarm or of an imported model, which the genesis names by its digest.
//!
//! An orthonormal DCT maps independent normal values to independent normal values of the same
//! variance, so the starting *coefficients* are drawn directly and no float transform is needed: every
//! platform gets the same integers.
//!
//! A normal value is the sum of twelve uniform 16-bit integers, centred (Irwin-Hall; the sum of twelve
//! has the variance of one uniform times twelve, 2^32), from BLAKE3's extendable output over seed and
//! parameter name. A parameter of ones has only its tiles' zero frequency:
//! sqrt(area), as an integer square root.

use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::layout::Layout;

use crate::architecture::Init;
use crate::digest::Digest;
use crate::genesis::{Genesis, GenesisError};

/// Units of a coefficient per model unit, as a power of two.
const UNIT_BITS: u32 = 20;
/// Uniform integers added up for one normal value; their variance is then 2^32.
const SUMMANDS: usize = 12;

/// C0 of `genesis`, as far as it is known: a fork's must be `imported`, and is verified. `layout` must be the
/// genesis' own.
///
/// # Errors
/// `imported` is not what the genesis names, or it names nothing to import.
pub fn start(
    genesis: &Genesis,
    layout: &Layout,
    imported: Option<Coefficients>,
) -> Result<Option<Coefficients>, GenesisError> {
    match (genesis.parent, imported) {
        (None, None) => Ok(Some(coefficients(genesis, layout))),
        (None, Some(_)) => Err(GenesisError::Start(
            "a starting point was given, but this swarm draws its own from the seed: its genesis has no [parent]"
                .into(),
        )),
        (Some(_), None) => Ok(None),
        (Some(parent), Some(c0)) => {
            let state = Digest::of_state(c0.values());
            if c0.values().len() != layout.len() || state != parent.state {
                return Err(GenesisError::Start(format!(
                    "the starting point given has {} coefficients and state {state:.16}, but the genesis names {} \
                     with state {:.16}: use the one that swarm fork or swarm new wrote beside this genesis, or take the model \
                     from another peer",
                    c0.values().len(),
                    layout.len(),
                    parent.state
                )));
            }
            Ok(Some(c0))
        }
    }
}

/// Draws C0 from the seed of `genesis`; `layout` must be the genesis' own. A fork starts elsewhere: see
/// [`start`].
pub fn coefficients(genesis: &Genesis, layout: &Layout) -> Coefficients {
    let mut values = vec![0i32; layout.len()];
    for (parameter, place) in genesis.model.parameters().iter().zip(layout.parameters()) {
        let range = place.offset..place.offset + place.shape.0 * place.shape.1;
        match parameter.init {
            Init::Zeros => {}
            Init::Ones => {
                for tile in &layout.tiles()[place.tiles.clone()] {
                    let dc = ((tile.area() as u64) << (2 * UNIT_BITS)).isqrt();
                    values[tile.offset] = i32::try_from(dc).unwrap_or(i32::MAX);
                }
            }
            Init::Normal { std_millionths } => {
                let mut hasher = blake3::Hasher::new_derive_key("swarm 1 starting coefficients");
                hasher.update(&genesis.seed.to_le_bytes()).update(parameter.name.as_bytes());
                let mut stream = hasher.finalize_xof();
                let mut draw = [0u8; 2 * SUMMANDS];
                for value in &mut values[range] {
                    stream.fill(&mut draw);
                    let sum: i64 =
                        draw.chunks_exact(2).map(|b| i64::from(u16::from_le_bytes([b[0], b[1]]))).sum();
                    // Twice the mean of a uniform 16-bit integer is 65535.
                    let centred = 2 * sum - SUMMANDS as i64 * 65_535;
                    // centred has standard deviation 2^17; scale it to std x 2^20 units.
                    let scaled = (i128::from(centred) * i128::from(std_millionths)) << (UNIT_BITS - 17);
                    *value = i32::try_from(scaled / 1_000_000).unwrap_or(0);
                }
            }
        }
    }
    Coefficients::new(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use crate::genesis::Parent;
    use swarm_optimizer::residual::whole_model;

    #[test]
    fn the_same_integers_everywhere() {
        let genesis = Genesis::new("garden", Architecture::preset("nano").unwrap(), 5);
        let layout = genesis.layout().unwrap();
        let c0 = coefficients(&genesis, &layout);
        // Golden: integers only, so this digest holds on every platform. Written by this test.
        let digest = Digest::of_state(c0.values());
        assert_eq!(format!("{digest:.16}"), include_str!("../golden/nano.c0-digest").trim());
        let mut other = genesis;
        other.seed += 1;
        assert_ne!(Digest::of_state(coefficients(&other, &layout).values()), digest);
    }

    #[test]
    fn a_fork_starts_with_what_its_genesis_names() {
        let plain = Genesis::new("garden", Architecture::preset("nano").unwrap(), 5);
        let layout = plain.layout().unwrap();
        let c0 = coefficients(&plain, &layout);
        assert_eq!(start(&plain, &layout, None).unwrap().unwrap().values(), c0.values());
        assert!(start(&plain, &layout, Some(c0.clone())).unwrap_err().to_string().contains("[parent]"));
        let mut trained = c0.values().to_vec();
        trained[7] += 1;
        let parent = Parent { swarm: Some(plain.swarm_id()), settled: 8, state: Digest::of_state(&trained) };
        let fork = Genesis { parent: Some(parent), ..plain };
        assert!(start(&fork, &layout, None).unwrap().is_none());
        let taken = start(&fork, &layout, Some(Coefficients::new(trained.clone()))).unwrap().unwrap();
        assert_eq!(taken.values(), trained);
        for wrong in [c0.values().to_vec(), trained[1..].to_vec()] {
            let error = start(&fork, &layout, Some(Coefficients::new(wrong))).unwrap_err().to_string();
            assert!(error.contains("swarm fork"), "{error}");
        }
    }

    #[test]
    fn the_model_starts_as_the_architecture_says() {
        let genesis = Genesis::new("garden", Architecture::preset("nano").unwrap(), 1);
        let layout = genesis.layout().unwrap();
        let c0 = coefficients(&genesis, &layout);
        let flat = whole_model(&layout, &c0, None);
        for (parameter, place) in genesis.model.parameters().iter().zip(layout.parameters()) {
            let values = &flat[place.offset..][..place.shape.0 * place.shape.1];
            let n = values.len() as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
            match parameter.init {
                Init::Zeros => assert!(values.iter().all(|&v| v == 0.0), "{}", parameter.name),
                Init::Ones => assert!(values.iter().all(|v| (v - 1.0).abs() < 1e-5), "{}", parameter.name),
                Init::Normal { std_millionths } => {
                    let std = f64::from(std_millionths) * 1e-6;
                    assert!(mean.abs() < 4.0 * std / n.sqrt(), "{}: mean {mean}", parameter.name);
                    assert!(
                        (variance.sqrt() / std - 1.0).abs() < 0.03,
                        "{}: {}",
                        parameter.name,
                        variance.sqrt()
                    );
                }
            }
        }
    }
}

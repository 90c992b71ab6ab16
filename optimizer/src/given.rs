//! C of a model that is given in floats, such as one that somebody trained elsewhere: the way of
//! [`crate::residual::whole_model`] backwards.
//!
//! Every tile is transformed in f64 and every coefficient rounded to the nearest unit of 2^-20. Rounding makes an error
//! of up to 2^-21 in each coefficient, spread evenly: 2^-20 / sqrt(12) = 2.8e-7 in the mean square. The transform is
//! orthonormal, so the weights that come back are wrong by as much in the mean square, and their errors, sums of many,
//! are normally distributed: one beyond 1.5e-6 is rarer than one in ten million.
//!
//! The work goes by *bands*, a band being one row of tiles of one parameter: whole rows of the parameter, and
//! contiguous in coefficient order, too. A model is thus turned into coefficients without being in memory as floats.

use thiserror::Error;

use crate::coefficients::{FAULT, UNIT};
use crate::dct::TileDct;

/// Values that no coefficients can stand for.
#[derive(Clone, Copy, Debug, Error, PartialEq)]
pub enum GivenError {
    /// A NaN or an infinity: its place in the band.
    #[error("it holds {value} (scalar {index})")]
    NotFinite {
        /// Which scalar.
        index: usize,
        /// What is there.
        value: f32,
    },
    /// A coefficient beyond [`FAULT`].
    #[error("its values are too large: a coefficient of {0:.0} where at most {largest} is possible", largest = FAULT >> 20)]
    TooLarge(f64),
}

/// Turns bands of weights into coefficients.
#[derive(Default)]
pub struct Given {
    /// For the tile sizes that came up last.
    plans: Vec<((usize, usize), TileDct<f64>)>,
    tile: Vec<f64>,
}

impl Given {
    /// The coefficients of one band: `weights` are its rows of `cols` scalars each, at most `side` rows; `out` is as
    /// long and takes its tiles one after another, each row-major by frequency, in units of 2^-20.
    ///
    /// # Errors
    /// [`GivenError`]; `out` is then partly written.
    pub fn band(
        &mut self,
        side: usize,
        cols: usize,
        weights: &[f32],
        out: &mut [i32],
    ) -> Result<(), GivenError> {
        if let Some((index, &value)) = weights.iter().enumerate().find(|(_, value)| !value.is_finite()) {
            return Err(GivenError::NotFinite { index, value });
        }
        if cols == 0 {
            return Ok(());
        }
        let rows = weights.len() / cols;
        let mut rest = out;
        for left in (0..cols).step_by(side.max(1)) {
            let width = side.min(cols - left);
            let area = rows * width;
            let Some((place, after)) = rest.split_at_mut_checked(area) else { return Ok(()) };
            rest = after;
            self.tile.clear();
            for row in weights.chunks_exact(cols) {
                self.tile.extend(row[left..left + width].iter().map(|&value| f64::from(value)));
            }
            let plan = match self.plans.iter().position(|(size, _)| *size == (rows, width)) {
                Some(at) => &mut self.plans[at].1,
                None => {
                    // A model has a handful of sizes.
                    if self.plans.len() >= 16 {
                        self.plans.clear();
                    }
                    self.plans.push(((rows, width), TileDct::new(rows, width)));
                    let last = self.plans.len() - 1;
                    &mut self.plans[last].1
                }
            };
            plan.forward(&mut self.tile);
            for (place, value) in place.iter_mut().zip(&self.tile) {
                let units = (value / f64::from(UNIT)).round();
                if units.abs() > f64::from(FAULT) {
                    return Err(GivenError::TooLarge(value.abs()));
                }
                *place = units as i32;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coefficients::Coefficients;
    use crate::layout::Layout;
    use crate::residual::whole_model;

    /// Uniform between -1 and 1.
    fn noise(n: usize) -> Vec<f32> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        (0..n)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    #[test]
    fn weights_come_back_but_for_the_rounding_of_coefficients() {
        let shapes =
            [("m", vec![200, 130]), ("wide", vec![3, 257]), ("tall", vec![257, 2]), ("v", vec![1000])];
        let layout = Layout::new(shapes, 64).unwrap();
        // Of the size of weights, and some of the size of gains and large biases.
        for scale in [0.05, 1.0, 8.0] {
            let weights: Vec<f32> = noise(layout.len()).iter().map(|w| w * scale).collect();
            let mut c = vec![0; layout.len()];
            let mut given = Given::default();
            for place in layout.parameters() {
                let (rows, cols) = place.shape;
                for top in (0..rows).step_by(64) {
                    let start = place.offset + top * cols;
                    let range = start..start + 64.min(rows - top) * cols;
                    given.band(64, cols, &weights[range.clone()], &mut c[range]).unwrap();
                }
            }
            let back = whole_model(&layout, &Coefficients::new(c), None);
            let errors = || back.iter().zip(&weights).map(|(a, b)| f64::from((a - b).abs()));
            let worst = errors().fold(0.0, f64::max);
            let rms = (errors().map(|e| e * e).sum::<f64>() / weights.len() as f64).sqrt();
            // The way back is in f32, whose own error shows with large weights.
            let float = f64::from(scale) * 3e-6;
            assert!(rms > 2e-7 && rms < 2.9e-7 + float / 5.0, "{scale}: rms {rms:e}");
            assert!(worst < 1.5e-6 + float, "{scale}: {worst:e}");
        }
    }

    #[test]
    fn what_no_coefficient_can_be_is_refused() {
        let mut given = Given::default();
        let mut out = [0; 64];
        let mut weights = [1.0; 64];
        weights[9] = f32::NAN;
        let error = given.band(64, 64, &weights, &mut out).unwrap_err();
        assert!(matches!(error, GivenError::NotFinite { index: 9, .. }), "{error}");
        // A constant of w has one coefficient, of 8 w.
        assert!(given.band(64, 64, &[127.9; 64], &mut out).is_ok());
        assert_eq!(given.band(64, 64, &[200.0; 64], &mut out), Err(GivenError::TooLarge(1600.0)));
    }
}

//! How large a delta is and what making one costs: noise through the real code.
//!
//! What training moves is close to noise once it is transformed, so normally distributed numbers, extracted
//! and packed at the genesis' density, cost about as many bits as a real delta. Sixteen full tiles are
//! enough: the coder's probabilities settle within the first.

use std::fmt;
use std::time::Instant;

use anyhow::{Context, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use swarm_optimizer::coefficients::Coefficients;
use swarm_optimizer::kernels::Kernels;
use swarm_optimizer::layout::Layout;
use swarm_optimizer::residual::{Residual, model};
use swarm_optimizer::sparse::SparseDelta;
use swarm_protocol::genesis::Genesis;
use swarm_protocol::packing;
use swarm_protocol::wire::MAX_INLINE;

/// Tiles along one side of the sample.
const TILES: usize = 4;
/// How far training moves a parameter in a round, about; it only has to be far from the units' resolution.
const SPREAD: f64 = 1e-3;

/// A delta of average noise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Sample {
    /// Coefficients that the body of the genesis' model carries.
    pub(crate) coefficients: u64,
    /// Bits of body for each, steps and signs included.
    pub(crate) bits_a_coefficient: f64,
    /// Bytes of the body.
    pub(crate) body: u64,
    /// Whether gossip carries it; if not, neighbours fetch it by its hash.
    pub(crate) inline: bool,
    /// Seconds a parameter: transform, extract and pack an own delta, and make the model anew.
    #[serde(skip)]
    pub(crate) making: f64,
    /// Seconds a parameter: check somebody else's.
    #[serde(skip)]
    pub(crate) checking: f64,
}

impl Sample {
    /// Packs the noise.
    ///
    /// # Errors
    /// A genesis without a layout.
    pub(crate) fn take(genesis: &Genesis) -> Result<Self> {
        let rule = &genesis.rule;
        let side = TILES * rule.tile as usize;
        let layout = Layout::new([("sample", vec![side, side])], rule.tile as usize)?;
        let mut rng = ChaCha8Rng::seed_from_u64(genesis.seed);
        let mut normal = || {
            // A sum of twelve uniform numbers less its mean: close enough.
            let sum: f64 = (0..12).map(|_| f64::from(rng.next_u32()) / 2f64.powi(32)).sum();
            ((sum - 6.0) * SPREAD) as f32
        };
        let after: Vec<f32> = (0..layout.len()).map(|_| normal()).collect();
        let mut before = vec![0.0; layout.len()];
        let (mut kernels, mut residual) = (Kernels::single(&layout), Residual::zeros(&layout));
        let mut delta = SparseDelta::default();
        let shared = Coefficients::new(vec![0; layout.len()]);

        let began = Instant::now();
        let (k, cap) = (rule.k as usize, rule.max_exponent);
        residual
            .accumulate_and_extract(&layout, &mut kernels, &before, &after, k, cap, &mut delta)
            .context("a sample of a delta")?;
        let body = packing::encode(&layout, rule, rule.k, &delta).context("a sample of a delta")?;
        model(&layout, &mut kernels, &shared, Some(&residual), None, &mut before);
        let making = began.elapsed().as_secs_f64() / layout.len() as f64;
        let began = Instant::now();
        packing::decode(&layout, rule, &body).context("a sample of a delta")?;
        let checking = began.elapsed().as_secs_f64() / layout.len() as f64;

        let all = genesis.layout()?;
        let each =
            all.tiles().iter().enumerate().map(|(index, tile)| all.share(index, tile, rule.k as usize));
        let coefficients: usize = each.sum();
        let sent = coefficients as f64 * delta.len() as f64 / (TILES * TILES * rule.k as usize) as f64;
        let bits_a_coefficient = body.len() as f64 * 8.0 / delta.len().max(1) as f64;
        let body = (sent * bits_a_coefficient / 8.0).ceil() as u64;
        let (coefficients, inline) = (sent.round() as u64, body <= MAX_INLINE as u64);
        Ok(Self { coefficients, bits_a_coefficient, body, inline, making, checking })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a delta: about {:.1} kB, {} coefficients of {:.2} bits (noise through the real packing); {}",
            self.body as f64 * 1e-3,
            self.coefficients,
            self.bits_a_coefficient,
            if self.inline { "gossip carries it" } else { "neighbours fetch it by its hash" }
        )
    }
}

//! What only the device can tell: how fast it multiplies matrices and moves memory, and what libtorch takes.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use swarm_protocol::architecture::Sizes;
use swarm_protocol::genesis::Genesis;
use tch::{Device, Kind, Tensor};

use crate::model::{Batch, Llama, Network, Precision, language_model};
use crate::status::peak_memory;

/// How long each of the two rates is measured.
const MEASURED: Duration = Duration::from_millis(150);
/// Rows of the matrices at most: more are no faster.
const ROWS: i64 = 2048;

/// The device's own figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Speed {
    /// Floating point operations a second in a product of the model's own shape.
    pub(crate) flops_a_second: f64,
    /// Bytes a second read and written by an operation that does one thing to each number.
    pub(crate) bytes_a_second: f64,
    /// Threads that both were measured with.
    pub(crate) threads: usize,
    /// Memory of this program and libtorch before there is a model, in bytes; 0 if the system does not tell.
    pub(crate) baseline: u64,
}

impl Speed {
    /// Measures for about a third of a second; libtorch's threads must have been set.
    ///
    /// # Errors
    /// A device that fails.
    pub(crate) fn measure(
        genesis: &Genesis,
        device: Device,
        precision: Precision,
        threads: usize,
    ) -> Result<Self> {
        let arch = language_model(&genesis.model)?;
        let (dim, ffn) = (i64::from(arch.dim), i64::from(arch.ffn));
        let rows = (i64::from(genesis.training.batch) * i64::from(arch.context)).min(ROWS);
        let kind = precision.kind();
        warm_up(device, precision)?;
        let baseline = peak_memory().unwrap_or(0);
        let _guard = tch::no_grad_guard();

        let input = Tensor::f_ones([rows, dim], (kind, device))?;
        let weight = Tensor::f_ones([2 * ffn, dim], (kind, device))?;
        let product = repeated(|| input.f_linear(&weight, None::<&Tensor>))?;
        let flops_a_second = (2 * rows * dim * 2 * ffn) as f64 / product;

        let wide = Tensor::f_ones([rows, 2 * ffn], (Kind::Float, device))?;
        let sum = repeated(|| wide.f_add(&wide))?;
        // One read (the same twice is in the cache) and one written.
        let bytes_a_second = (2 * 4 * rows * 2 * ffn) as f64 / sum;
        Ok(Self { flops_a_second, bytes_a_second, threads, baseline })
    }
}

/// The gradient of a tiny model: libtorch loads much of itself, and starts threads, when it is first used.
fn warm_up(device: Device, precision: Precision) -> Result<()> {
    let arch = Sizes { vocabulary: 256, dim: 64, layers: 1, heads: 2, ffn: 64, context: 64 };
    let model = Llama::new(&arch.into(), device)?.with_precision(precision);
    let tokens = Tensor::f_zeros([1, 65], (Kind::Int64, device))?;
    let gradient =
        Tensor::f_run_backward(&[&model.loss(&Batch::of_windows(&tokens)?)?], &[model.flat()], false, false)?;
    gradient.iter().try_for_each(done)
}

/// Waits until a device that computes by itself is done.
fn done(tensor: &Tensor) -> Result<()> {
    tensor.f_view([-1])?.f_narrow(0, 0, 1)?.f_to_kind(Kind::Float)?.f_double_value(&[0])?;
    Ok(())
}

/// Median seconds of one call, over [`MEASURED`]; the first call is not counted.
fn repeated(operation: impl Fn() -> std::result::Result<Tensor, tch::TchError>) -> Result<f64> {
    done(&operation()?)?;
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < MEASURED || times.is_empty() {
        let once = Instant::now();
        done(&operation()?)?;
        times.push(once.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2].max(f64::MIN_POSITIVE))
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "measured here, {} thread(s), a fraction of a second: {:.1} GFLOP/s in a product of the model's shape, \
             {:.1} GB/s",
            self.threads,
            self.flops_a_second * 1e-9,
            self.bytes_a_second * 1e-9
        )
    }
}

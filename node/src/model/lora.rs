//! Low-rank adapters around a frozen transformer; [`LoraConfig`] says what they are.
//!
//! Before each pass the adapters are merged: every matrix W that has one becomes `W + s B A` in the transformer's own
//! flat vector, with `s = alpha / rank`. The transformer then computes loss and gradient as it always does, by hand on a
//! CPU, and the gradient G of a merged matrix gives those of its adapter (Hu et al., arXiv 2106.09685, by the chain
//! rule):
//!
//! ```text
//!     dA = s B^T G        dB = s G A^T
//! ```
//!
//! That costs the gradient of all of the base, whose memory is as long as its parameters, and in exchange every
//! transformer that can be trained can be adapted. What the swarm shares, and what the inner optimizer has moments of,
//! are the adapters alone.

use anyhow::{Context, Result, ensure};
use std::cell::RefCell;
use swarm_protocol::architecture::{Adapter, LoraConfig, Parameter};
use tch::{Device, Kind, TchError, Tensor};

use super::network::{self, Batch, Network};
use super::{Llama, Precision};

/// A transformer with adapters.
#[derive(Debug)]
pub(crate) struct Lora {
    rank: i64,
    scale: f64,
    layout: Vec<Parameter>,
    /// The adapters, f32 `[parameter_count]`.
    flat: Tensor,
    parts: Vec<Part>,
    /// The base with the adapters merged into it.
    llama: Llama,
    /// Memory for the base's next gradient.
    spare: RefCell<Option<Tensor>>,
}

/// One adapter, and the matrix that it changes.
#[derive(Debug)]
struct Part {
    adapter: Adapter,
    /// As it is in the base.
    weight: Tensor,
}

impl Lora {
    /// The adapters of this configuration for `base`, all parameters of the transformer in layout order. All adapters are
    /// zero until [`Network::set_parameters`].
    ///
    /// # Errors
    /// A base of another length; not enough memory on the device.
    pub(crate) fn new(
        config: &LoraConfig,
        base: &[f32],
        device: Device,
        precision: Precision,
    ) -> Result<Self> {
        let mut llama = Llama::new(&config.llama, device)?.with_precision(precision);
        llama.set_parameters(base).context("the base of the adapters")?;
        let layout = config.parameters();
        let flat = network::zeros(&layout, device)?.f_detach()?;
        let part = |adapter: Adapter| -> Result<Part, TchError> {
            let merged = matrix(llama.flat(), adapter)?;
            let mut weight = merged.f_zeros_like()?;
            weight.f_copy_(&merged)?;
            Ok(Part { adapter, weight })
        };
        let parts = config.adapters().into_iter().map(part).collect::<Result<Vec<_>, _>>()?;
        let rank = i64::from(config.rank);
        let spare = RefCell::default();
        Ok(Self { rank, scale: config.scale(), layout, flat, parts, llama, spare })
    }

    /// A and B of an adapter in a vector like the flat one.
    fn pair(&self, flat: &Tensor, adapter: Adapter) -> Result<(Tensor, Tensor), TchError> {
        let (rows, columns) = (adapter.rows as i64, adapter.columns as i64);
        let start = adapter.start as i64;
        let a = flat.f_narrow(0, start, self.rank * columns)?.f_view([self.rank, columns])?;
        let b = flat.f_narrow(0, start + self.rank * columns, rows * self.rank)?.f_view([rows, self.rank])?;
        Ok((a, b))
    }

    /// Writes the adapters into the transformer.
    fn merge(&self) -> Result<(), TchError> {
        for Part { adapter, weight } in &self.parts {
            let (a, b) = self.pair(&self.flat, *adapter)?;
            let merged = weight.f_add(&b.f_matmul(&a)?.f_mul_scalar(self.scale)?)?;
            matrix(self.llama.flat(), *adapter)?.f_copy_(&merged)?;
        }
        Ok(())
    }
}

/// The matrix that an adapter changes, in a vector like the base's flat one.
fn matrix(flat: &Tensor, adapter: Adapter) -> Result<Tensor, TchError> {
    let (rows, columns) = (adapter.rows as i64, adapter.columns as i64);
    flat.f_detach()?.f_narrow(0, adapter.base as i64, rows * columns)?.f_view([rows, columns])
}

/// The base with these adapters merged into it: a model like any other, all parameters in layout order.
///
/// # Errors
/// Vectors of another length.
pub(crate) fn merged(config: &LoraConfig, base: &[f32], adapters: &[f32]) -> Result<Vec<f32>> {
    let mut lora = Lora::new(config, base, Device::Cpu, Precision::F32)?;
    lora.set_parameters(adapters)?;
    lora.merge()?;
    let mut whole = vec![0.0; base.len()];
    lora.llama.read_parameters(&mut whole)?;
    Ok(whole)
}

impl Network for Lora {
    fn layout(&self) -> &[Parameter] {
        &self.layout
    }

    fn device(&self) -> Device {
        self.llama.device()
    }

    fn flat(&self) -> &Tensor {
        &self.flat
    }

    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        self.merge()?;
        self.llama.loss(batch)
    }

    fn loss_and_gradient(&self, batch: &Batch, spare: Option<Tensor>) -> Result<(f64, Tensor)> {
        self.merge()?;
        let of_base = self.spare.try_borrow_mut().context("the model is running already")?.take();
        let (loss, whole) = self.llama.loss_and_gradient(batch, of_base)?;
        let gradient = match spare {
            Some(spare) => spare,
            None => Tensor::f_zeros([self.flat.numel() as i64], (Kind::Float, self.device()))?,
        };
        for Part { adapter, .. } in &self.parts {
            let here = matrix(&whole, *adapter)?;
            let (a, b) = self.pair(&self.flat, *adapter)?;
            let (mut da, mut db) = self.pair(&gradient, *adapter)?;
            da.f_copy_(&b.f_tr()?.f_matmul(&here)?.f_mul_scalar(self.scale)?)?;
            db.f_copy_(&here.f_matmul(&a.f_tr()?)?.f_mul_scalar(self.scale)?)?;
        }
        *self.spare.try_borrow_mut()? = Some(whole);
        ensure!(gradient.numel() == self.flat.numel(), "the spare gradient is of another model");
        Ok((loss, gradient))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::initial_parameters;
    use super::*;
    use swarm_protocol::architecture::{LORA_TARGETS, LlamaConfig, Sizes};
    use swarm_protocol::digest::Digest;

    fn config() -> LoraConfig {
        let plain: LlamaConfig =
            Sizes { vocabulary: 256, dim: 12, layers: 2, heads: 2, ffn: 20, context: 16 }.into();
        let llama = LlamaConfig { kv_heads: 1, qkv_bias: true, ..plain };
        let targets = LORA_TARGETS.map(str::to_owned).to_vec();
        LoraConfig { rank: 3, alpha: 6.0, targets, base: Digest::of_bytes(b"base"), llama }
    }

    fn noise(count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|at| ((at * at) as f32 * 0.37).sin() * size).collect()
    }

    fn batch() -> Batch {
        let tokens: Vec<i64> = (0..2 * 17).map(|at| (at * at * 7) % 256).collect();
        Batch::of_windows(&Tensor::from_slice(&tokens).view([2, 17])).unwrap()
    }

    #[test]
    fn fresh_adapters_change_nothing_and_the_base_stays() {
        tch::set_num_threads(1);
        let config = config();
        let base = initial_parameters(&config.llama, 3);
        let mut plain = Llama::new(&config.llama, Device::Cpu).unwrap();
        plain.set_parameters(&base).unwrap();
        let mut lora = Lora::new(&config, &base, Device::Cpu, Precision::F32).unwrap();
        // As they are drawn: A is anything, B is zero.
        let mut fresh = noise(lora.parameter_count(), 0.3);
        for adapter in config.adapters() {
            let b = adapter.start + 3 * adapter.columns;
            fresh[b..b + 3 * adapter.rows].fill(0.0);
        }
        lora.set_parameters(&fresh).unwrap();
        let (batch, wanted) = (batch(), plain.loss(&batch()).unwrap().double_value(&[]));
        assert_eq!(lora.loss(&batch).unwrap().double_value(&[]), wanted);
        let gradient = lora.loss_and_gradient(&batch, None).unwrap().1;
        assert!(gradient.abs().max().double_value(&[]) > 0.0);
        // Other adapters, and back: merging does not add up.
        lora.set_parameters(&noise(fresh.len(), 0.5)).unwrap();
        assert_ne!(lora.loss(&batch).unwrap().double_value(&[]), wanted);
        lora.set_parameters(&fresh).unwrap();
        assert_eq!(lora.loss(&batch).unwrap().double_value(&[]), wanted);
        assert_eq!(merged(&config, &base, &fresh).unwrap(), base);
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        tch::set_num_threads(1);
        let config = config();
        let base = noise(config.llama.parameter_count() as usize, 0.4);
        let mut lora = Lora::new(&config, &base, Device::Cpu, Precision::F32).unwrap();
        let values = noise(lora.parameter_count(), 0.3);
        lora.set_parameters(&values).unwrap();
        let batch = batch();
        let (_, gradient) = lora.loss_and_gradient(&batch, None).unwrap();
        let mut start = 0;
        for parameter in config.parameters() {
            let length: usize = parameter.shape.iter().product();
            let at = start + length / 2;
            let mut loss_at = |offset: f32| {
                let mut moved = values.clone();
                moved[at] += offset;
                lora.set_parameters(&moved).unwrap();
                lora.loss(&batch).unwrap().double_value(&[])
            };
            let slope = (loss_at(1e-2) - loss_at(-1e-2)) / 2e-2;
            let got = gradient.double_value(&[at as i64]);
            assert!((slope - got).abs() < 1e-3 + 0.03 * slope.abs(), "{}: {slope} {got}", parameter.name);
            start += length;
        }
        // A merged model is the same model.
        lora.set_parameters(&values).unwrap();
        let mut plain = Llama::new(&config.llama, Device::Cpu).unwrap();
        plain.set_parameters(&merged(&config, &base, &values).unwrap()).unwrap();
        let difference = (plain.loss(&batch).unwrap() - lora.loss(&batch).unwrap()).abs();
        assert!(difference.double_value(&[]) < 1e-6);
    }

    #[test]
    fn a_base_of_another_model_is_refused() {
        let error = Lora::new(&config(), &[0.0; 7], Device::Cpu, Precision::F32).unwrap_err();
        assert!(format!("{error:#}").contains("7 parameters given"), "{error:#}");
    }
}

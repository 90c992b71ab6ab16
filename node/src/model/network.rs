//! What every model can do, whatever it computes: a loss on a batch, and its gradient.
//!
//! All parameters of a network live in one f32 vector in the order of the layout. It is the only leaf of the
//! autograd graph: each forward pass cuts it into views (a view costs no memory and no kernel), and the backward
//! pass of that cut is a single concatenation, so the gradient arrives as one vector too. Reading, writing, clipping
//! and updating are then operations on whole vectors, whatever the number of layers.

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use swarm_protocol::architecture::{Architecture, Parameter};
use tch::{Device, Kind, TchError, Tensor};

use super::{Llama, Lora, Module, Precision, Resnet};

/// Elements copied at a time between the device and the caller's slice.
const COPY_CHUNK: usize = 1 << 20;

/// Examples that go through a network at once. The first dimension of both counts the examples.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Of texts, i64 `[batch, time]`: tokens. Of pictures, f32 `[batch, channels, height, width]`.
    pub(crate) inputs: Tensor,
    /// Of texts, i64 `[batch, time]`: the token after each. Of pictures, i64 `[batch]`: their classes.
    pub(crate) targets: Tensor,
}

impl Batch {
    /// Windows of texts, i64 `[batch, time + 1]`: each token's target is the next one.
    ///
    /// # Errors
    /// Windows of less than two tokens.
    pub(crate) fn of_windows(windows: &Tensor) -> Result<Self> {
        let (_, width) = windows.size2()?;
        ensure!(width >= 2, "a window needs at least two tokens, an input and a target; it has {width}");
        let part = |start| windows.f_narrow(1, start, width - 1);
        Ok(Self { inputs: part(0)?, targets: part(1)? })
    }

    /// Number of examples.
    pub(crate) fn len(&self) -> usize {
        self.inputs.size().first().map_or(0, |&count| count.try_into().unwrap_or(0))
    }

    /// `count` examples from number `start` on, on `device`.
    ///
    /// # Errors
    /// Examples that are not there; a failure of the device.
    pub(crate) fn part(&self, start: usize, count: usize, device: Device) -> Result<Self, TchError> {
        let part = |tensor: &Tensor| tensor.f_narrow(0, start as i64, count as i64)?.f_to_device(device);
        Ok(Self { inputs: part(&self.inputs)?, targets: part(&self.targets)? })
    }
}

/// A model whose parameters are one vector.
pub(crate) trait Network: Debug + Send {
    /// Names and shapes of the parameters, in the order of the flat vector.
    fn layout(&self) -> &[Parameter];

    /// Where the model computes.
    fn device(&self) -> Device;

    /// The flat vector itself, f32 `[parameter_count]`: the leaf to differentiate with respect to.
    ///
    /// Its `detach()` shares its memory and may be changed in place between two steps.
    fn flat(&self) -> &Tensor;

    /// Mean loss in nats, of a text over its tokens: a scalar tensor that can be differentiated.
    ///
    /// # Errors
    /// A batch of a wrong shape, a token outside the vocabulary, or not enough memory.
    fn loss(&self, batch: &Batch) -> Result<Tensor>;

    /// The loss and its gradient, f32 `[parameter_count]`. The gradient may come in the memory of `spare`, an
    /// earlier one of this model.
    ///
    /// # Errors
    /// As [`Network::loss`].
    fn loss_and_gradient(&self, batch: &Batch, _spare: Option<Tensor>) -> Result<(f64, Tensor)> {
        by_autograd(self, batch)
    }

    /// How many of the batch's targets the model thinks the likeliest, if the targets are classes.
    ///
    /// # Errors
    /// As [`Network::loss`].
    fn hits(&self, _batch: &Batch) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Length of the flat vector.
    fn parameter_count(&self) -> usize {
        self.flat().numel()
    }

    /// Overwrites all parameters, in layout order.
    ///
    /// # Errors
    /// If there are not exactly [`Network::parameter_count`] values.
    fn set_parameters(&mut self, values: &[f32]) -> Result<()> {
        ensure_length("parameters", values.len(), self.parameter_count())?;
        copy_into(&self.flat().f_detach()?, values)?;
        Ok(())
    }

    /// Copies all parameters into `out`, in layout order.
    ///
    /// # Errors
    /// If `out` has not exactly [`Network::parameter_count`] places.
    fn read_parameters(&self, out: &mut [f32]) -> Result<()> {
        ensure_length("parameters", out.len(), self.parameter_count())?;
        copy_out_of(&self.flat().f_detach()?, out)?;
        Ok(())
    }
}

/// What a network needs besides its genesis, and no peer sends.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// The file of a TorchScript module.
    pub(crate) module: Option<Vec<u8>>,
    /// The parameters of the frozen model that adapters are for, in layout order.
    pub(crate) base: Option<Vec<f32>>,
}

/// The network of this architecture. All its parameters are zero until [`Network::set_parameters`].
///
/// # Errors
/// An architecture that is invalid, or needs something that is not `given`; not enough memory on the device.
pub(crate) fn build(
    architecture: &Architecture,
    given: &Given,
    device: Device,
    precision: Precision,
) -> Result<Box<dyn Network>> {
    match architecture {
        Architecture::Module(config) => {
            let bytes = given.module.as_deref().context("the file of the swarm's module is needed here")?;
            Ok(Box::new(Module::new(config, bytes, device)?))
        }
        Architecture::Lora(config) => {
            let base = given.base.as_deref().context("the base of the swarm's adapters is needed here")?;
            Ok(Box::new(Lora::new(config, base, device, precision)?))
        }
        Architecture::Llama(config) => Ok(Box::new(Llama::new(config, device)?.with_precision(precision))),
        Architecture::Resnet(config) => Ok(Box::new(Resnet::new(config, device, precision)?)),
    }
}

/// How many rows of `logits` `[batch, classes]` are largest at the row's target.
///
/// # Errors
/// Shapes that do not fit.
pub(super) fn hits(logits: &Tensor, targets: &Tensor) -> Result<f64> {
    Ok(logits.f_argmax(1, false)?.f_eq_tensor(targets)?.f_sum(Kind::Int64)?.f_double_value(&[])?)
}

/// A network's loss and its gradient, as autograd finds it.
///
/// # Errors
/// As [`Network::loss`].
pub(super) fn by_autograd(network: &(impl Network + ?Sized), batch: &Batch) -> Result<(f64, Tensor)> {
    let loss = network.loss(batch)?;
    let gradient = Tensor::f_run_backward(&[&loss], &[network.flat()], false, false)?
        .pop()
        .context("libtorch returned no gradient")?;
    Ok((loss.f_double_value(&[])?, gradient))
}

/// A zero vector of all parameters that a gradient can be had of.
///
/// # Errors
/// Not enough memory on the device.
pub(super) fn zeros(layout: &[Parameter], device: Device) -> Result<Tensor, TchError> {
    let count = layout.iter().map(parameter_length).sum::<usize>();
    Tensor::f_zeros([count as i64], (Kind::Float, device))?.f_set_requires_grad(true)
}

/// Number of scalars in a parameter.
pub(crate) fn parameter_length(parameter: &Parameter) -> usize {
    parameter.shape.iter().product()
}

/// Fails unless a flat vector has the length that the layout gives it.
pub(crate) fn ensure_length(what: &str, have: usize, want: usize) -> Result<()> {
    ensure!(have == want, "{have} {what} given, but the model's layout has {want}");
    Ok(())
}

/// Copies `values` into the equally long vector `target`, in bounded pieces.
pub(crate) fn copy_into(target: &Tensor, values: &[f32]) -> Result<(), TchError> {
    for (i, chunk) in values.chunks(COPY_CHUNK).enumerate() {
        let mut place = target.f_narrow(0, (i * COPY_CHUNK) as i64, chunk.len() as i64)?;
        place.f_copy_(&Tensor::f_from_slice(chunk)?)?;
    }
    Ok(())
}

/// Copies the vector `source` into the equally long `out`, in bounded pieces.
pub(crate) fn copy_out_of(source: &Tensor, out: &mut [f32]) -> Result<(), TchError> {
    for (i, chunk) in out.chunks_mut(COPY_CHUNK).enumerate() {
        let length = chunk.len();
        source.f_narrow(0, (i * COPY_CHUNK) as i64, length as i64)?.f_copy_data(chunk, length)?;
    }
    Ok(())
}

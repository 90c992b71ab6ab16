//! The transformer: forward pass and loss. Autograd can supply the backward pass; on a CPU, where training
//! spends its time, [`super::by_hand`] does it faster.
//!
//! # One flat vector
//! All parameters live in one f32 vector in the order of [`Architecture::parameters`]. It is the only
//! leaf of the autograd graph: each forward pass cuts it into views (a view costs no memory and no
//! kernel), and the backward pass of that cut is a single concatenation, so the gradient arrives as one
//! vector too. Reading, writing, clipping and updating are then operations on whole vectors, whatever
//! the number of layers.
//!
//! The layout gives something for free: the query, key and value projections of a layer are neighbours
//! in it and so are the gate and up projections. Each group is cut out as *one* matrix with the rows of
//! its members one below the other, and takes one matrix product.
//!
//! # The network
//! As in Touvron et al., arXiv 2302.13971, and numerically as in Hugging Face's `LlamaForCausalLM` with
//! `rms_norm_eps = 1e-5` and `rope_theta = 10000`: rotary embeddings turn channel `i` of a head against
//! channel `i + head_dim / 2` ("rotate half"), not against its neighbour as in the paper by Su et al.,
//! arXiv 2104.09864.
//!
//! Activations are `[batch * time, dim]` matrices; attention sees `[batch, heads, time, head_dim]`.

use super::by_hand::ByHand;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::architecture::{Architecture, BYTE_VOCABULARY, Parameter};
use tch::{Device, Kind, Reduction, TchError, Tensor};

/// Added to the mean square before the root (Hugging Face's `rms_norm_eps`).
pub(super) const RMS_EPS: f64 = 1e-5;
/// Base of the rotary frequencies (Hugging Face's `rope_theta`).
pub(super) const ROPE_THETA: f64 = 10_000.0;
/// Elements copied at a time between the device and the caller's slice.
const COPY_CHUNK: usize = 1 << 20;
/// `ignore_index` of libtorch's cross entropy: its default, which no byte has.
const NO_IGNORED_TARGET: i64 = -100;

/// In which number format the matrix products are computed, forward and backward. Parameters, sums, norms,
/// attention and the loss are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Precision {
    /// 32 bits everywhere: runs well on any hardware.
    #[default]
    F32,
    /// 16-bit brain floats: faster where the processor multiplies them itself (AMX, AVX-512 BF16, recent
    /// GPUs), slower elsewhere.
    Bf16,
}

impl Precision {
    /// The format itself.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

/// A byte-level llama-style transformer.
#[derive(Debug)]
pub(crate) struct Llama {
    arch: Architecture,
    layout: Vec<Parameter>,
    device: Device,
    /// Number format of the matrix products.
    pub(super) compute: Kind,
    /// The parameters, f32 `[parameter_count]`, a leaf that requires a gradient.
    flat: Tensor,
    /// Lengths of the runs of `flat` that [`Llama::weights`] cuts it into.
    runs: Vec<i64>,
    /// Rotary tables `[context, 1, head_dim]`; the sine's first half is negated (see `rotate`).
    cos: Tensor,
    sin: Tensor,
    /// What the backward pass by hand needs; it is for CPUs.
    pub(super) by_hand: Option<ByHand>,
}

/// Views of the flat vector.
pub(super) struct Weights {
    /// `[vocabulary, dim]`
    pub(super) embedding: Tensor,
    pub(super) layers: Vec<Layer>,
    /// `[dim]`
    pub(super) norm: Tensor,
    /// `[vocabulary, dim]`
    pub(super) head: Tensor,
}

pub(super) struct Layer {
    /// `[dim]`
    pub(super) attention_norm: Tensor,
    /// `[3 * dim, dim]`: query, key, value
    pub(super) qkv: Tensor,
    /// `[dim, dim]`
    pub(super) attention_out: Tensor,
    /// `[dim]`
    pub(super) ffn_norm: Tensor,
    /// `[2 * ffn, dim]`: gate, up
    pub(super) gate_up: Tensor,
    /// `[dim, ffn]`
    pub(super) down: Tensor,
}

/// The sizes as libtorch wants them.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) vocabulary: i64,
    pub(super) dim: i64,
    pub(super) heads: i64,
    pub(super) head_dim: i64,
    pub(super) ffn: i64,
}

impl Sizes {
    pub(super) fn of(arch: &Architecture) -> Self {
        let (dim, heads) = (i64::from(arch.dim), i64::from(arch.heads));
        Self {
            vocabulary: i64::from(arch.vocabulary),
            dim,
            heads,
            head_dim: dim / heads,
            ffn: i64::from(arch.ffn),
        }
    }
}

impl Llama {
    /// Allocates the model on `device`. All parameters are zero until [`Llama::set_parameters`].
    ///
    /// # Errors
    /// An architecture that is invalid or cannot hold bytes; not enough memory on the device.
    pub(crate) fn new(arch: &Architecture, device: Device) -> Result<Self> {
        arch.validate().map_err(anyhow::Error::msg)?;
        ensure!(
            arch.vocabulary >= BYTE_VOCABULARY,
            "model.vocabulary = {}: text is read as bytes, which need {BYTE_VOCABULARY}",
            arch.vocabulary
        );
        let layout = arch.parameters();
        let count = layout.iter().map(parameter_length).sum::<usize>();
        let Sizes { vocabulary, dim, ffn, .. } = Sizes::of(arch);
        let mut runs = vec![vocabulary * dim];
        for _ in 0..arch.layers {
            runs.extend([dim, 3 * dim * dim, dim * dim, dim, 2 * ffn * dim, dim * ffn]);
        }
        runs.extend([dim, vocabulary * dim]);
        ensure!(runs.iter().sum::<i64>() == count as i64, "the layout and the network disagree");
        let allocate = || -> Result<_, TchError> {
            let flat = Tensor::f_zeros([count as i64], (Kind::Float, device))?.f_set_requires_grad(true)?;
            let (cos, sin) = rope_tables(arch, device)?;
            let by_hand = if device == Device::Cpu { Some(ByHand::new(arch, device)?) } else { None };
            Ok((flat, cos, sin, by_hand))
        };
        let (flat, cos, sin, by_hand) =
            allocate().with_context(|| format!("cannot place {count} parameters on {device:?}"))?;
        Ok(Self { arch: *arch, layout, device, compute: Kind::Float, flat, runs, cos, sin, by_hand })
    }

    /// Chooses the number format of the matrix products.
    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Self { compute: precision.kind(), ..self }
    }

    /// The sizes that the model was made with.
    pub(crate) fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// Names and shapes of the parameters, in the order of the flat vector.
    pub(crate) fn layout(&self) -> &[Parameter] {
        &self.layout
    }

    /// Where the model computes.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Length of the flat vector.
    pub(crate) fn parameter_count(&self) -> usize {
        self.flat.numel()
    }

    /// The flat vector itself, f32 `[parameter_count]`: the leaf to differentiate with respect to.
    ///
    /// Its `detach()` shares its memory and may be changed in place between two steps.
    pub(crate) fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Overwrites all parameters, in layout order.
    ///
    /// # Errors
    /// If there are not exactly [`Llama::parameter_count`] values.
    pub(crate) fn set_parameters(&mut self, values: &[f32]) -> Result<()> {
        ensure_length("parameters", values.len(), self.parameter_count())?;
        copy_into(&self.flat.f_detach()?, values)?;
        Ok(())
    }

    /// Copies all parameters into `out`, in layout order.
    ///
    /// # Errors
    /// If `out` has not exactly [`Llama::parameter_count`] places.
    pub(crate) fn read_parameters(&self, out: &mut [f32]) -> Result<()> {
        ensure_length("parameters", out.len(), self.parameter_count())?;
        copy_out_of(&self.flat.f_detach()?, out)?;
        Ok(())
    }

    /// Mean cross entropy in nats of each next byte, a scalar tensor that can be differentiated.
    ///
    /// `tokens` is i64 `[batch, time + 1]` with `time` at most the context: columns `..time` are the
    /// input, columns `1..` the targets.
    ///
    /// # Errors
    /// A wrong shape, a token outside the vocabulary, or not enough memory.
    pub(crate) fn loss(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, width) = tokens.size2()?;
        ensure!(width >= 2, "a window needs at least two tokens, an input and a target; it has {width}");
        let weights = self.weights()?;
        let hidden = self.hidden(&weights, &tokens.f_narrow(1, 0, width - 1)?)?;
        let targets = tokens.f_narrow(1, 1, width - 1)?.f_reshape([batch * (width - 1)])?;
        let logits = self.product(&hidden, &weights.head)?.f_to_kind(Kind::Float)?;
        Ok(logits.f_cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Mean, NO_IGNORED_TARGET, 0.0)?)
    }

    /// Unnormalised log probabilities of each next token: `[batch, time]` in,
    /// `[batch, time, vocabulary]` out.
    ///
    /// # Errors
    /// As [`Llama::loss`].
    #[cfg(test)]
    pub(crate) fn logits(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, time) = tokens.size2()?;
        let weights = self.weights()?;
        let logits = self.product(&self.hidden(&weights, tokens)?, &weights.head)?;
        Ok(logits.f_view([batch, time, i64::from(self.arch.vocabulary)])?)
    }

    /// The logits after the last position only: `[batch, vocabulary]` out.
    ///
    /// # Errors
    /// As [`Llama::loss`].
    pub(crate) fn next_logits(&self, tokens: &Tensor) -> Result<Tensor> {
        let (batch, time) = tokens.size2()?;
        ensure!(time >= 1, "there is no last position in an empty sequence");
        let weights = self.weights()?;
        let hidden = self.hidden(&weights, tokens)?.f_view([batch, time, i64::from(self.arch.dim)])?;
        Ok(hidden.f_select(1, time - 1)?.f_linear(&weights.head, None::<&Tensor>)?)
    }

    /// Cuts the flat vector into matrices. Only views; autograd sees one operation.
    fn weights(&self) -> Result<Weights, TchError> {
        self.cut(&self.flat)
    }

    /// Cuts a vector like the flat one into views.
    pub(super) fn cut(&self, flat: &Tensor) -> Result<Weights, TchError> {
        let Sizes { vocabulary, dim, ffn, .. } = Sizes::of(&self.arch);
        let mut runs = flat.f_split_with_sizes(&self.runs, 0)?.into_iter();
        let mut next = |shape: &[i64]| {
            let run = runs.next().ok_or_else(|| TchError::Shape("the layout has too few runs".into()))?;
            run.f_view_(shape)
        };
        let embedding = next(&[vocabulary, dim])?;
        let layers = (0..self.arch.layers)
            .map(|_| {
                Ok(Layer {
                    attention_norm: next(&[dim])?,
                    qkv: next(&[3 * dim, dim])?,
                    attention_out: next(&[dim, dim])?,
                    ffn_norm: next(&[dim])?,
                    gate_up: next(&[2 * ffn, dim])?,
                    down: next(&[dim, ffn])?,
                })
            })
            .collect::<Result<_, TchError>>()?;
        Ok(Weights { embedding, layers, norm: next(&[dim])?, head: next(&[vocabulary, dim])? })
    }

    /// `input weight^T` in the chosen number format; in f32 a cast is no operation.
    fn product(&self, input: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        let (input, weight) = (input.f_to_kind(self.compute)?, weight.f_to_kind(self.compute)?);
        input.f_linear(&weight, None::<&Tensor>)
    }

    /// `x + input weight^T`, f32: one operation where the number format allows it.
    fn add_product(&self, x: &Tensor, input: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
        if self.compute == Kind::Float {
            x.f_addmm(input, &weight.f_tr()?)
        } else {
            x.f_add(&self.product(input, weight)?)
        }
    }

    /// Everything but the output layer: tokens `[batch, time]` to `[batch * time, dim]`.
    fn hidden(&self, weights: &Weights, tokens: &Tensor) -> Result<Tensor> {
        let (batch, time) = tokens.size2()?;
        if time > i64::from(self.arch.context) {
            bail!("a sequence of {time} tokens is longer than the model's context of {}", self.arch.context);
        }
        let Sizes { dim, heads, head_dim, ffn, .. } = Sizes::of(&self.arch);
        let (cos, sin) = (self.cos.f_narrow(0, 0, time)?, self.sin.f_narrow(0, 0, time)?);
        let indices = tokens.f_reshape([batch * time])?;
        let mut x = Tensor::f_embedding(&weights.embedding, &indices, -1, false, false)?;
        for layer in &weights.layers {
            let h = x.f_rms_norm([dim], Some(&layer.attention_norm), RMS_EPS)?;
            let qkv = self.product(&h, &layer.qkv)?.f_view([batch, time, 3 * heads, head_dim])?;
            // Rotation and attention stay in f32: libtorch's bf16 attention is slower on CPUs.
            let qkv = qkv.f_to_kind(Kind::Float)?;
            let mut parts = qkv.f_split_with_sizes([2 * heads, heads], 2)?;
            let value = parts.pop().context("no values")?;
            let qk = rotate(&parts.pop().context("no queries and keys")?, &cos, &sin, head_dim)?;
            let attended = Tensor::f_scaled_dot_product_attention(
                &qk.f_narrow(2, 0, heads)?.f_transpose(1, 2)?,
                &qk.f_narrow(2, heads, heads)?.f_transpose(1, 2)?,
                &value.f_transpose(1, 2)?,
                None::<&Tensor>,
                0.0,
                true,
                None,
                false,
            )?;
            let attended = attended.f_transpose(1, 2)?.f_reshape([batch * time, dim])?;
            x = self.add_product(&x, &attended, &layer.attention_out)?;

            let h = x.f_rms_norm([dim], Some(&layer.ffn_norm), RMS_EPS)?;
            let gate_up = self.product(&h, &layer.gate_up)?;
            let mut parts = gate_up.f_split(ffn, 1)?;
            let up = parts.pop().context("no up projection")?;
            let gate = parts.pop().context("no gate projection")?;
            x = self.add_product(&x, &gate.f_silu()?.f_mul(&up)?, &layer.down)?;
        }
        Ok(x.f_rms_norm([dim], Some(&weights.norm), RMS_EPS)?)
    }
}

/// Turns each pair of channels `(i, i + head_dim / 2)` of `x` `[batch, time, heads, head_dim]` by its
/// position's angle. Rolling by half a head puts each channel's partner in its place; the sign that the
/// first half needs is already in `sin`.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, head_dim: i64) -> Result<Tensor, TchError> {
    x.f_mul(cos)?.f_addcmul(&x.f_roll([head_dim / 2], [-1])?, sin)
}

/// Cosines and sign-carrying sines `[context, 1, head_dim]`, computed in f64.
fn rope_tables(arch: &Architecture, device: Device) -> Result<(Tensor, Tensor), TchError> {
    let (context, half) = (arch.context as usize, (arch.dim / arch.heads / 2) as usize);
    let mut cos = Vec::with_capacity(context * 2 * half);
    let mut sin = Vec::with_capacity(context * 2 * half);
    for position in 0..context {
        for (i, sign) in (0..half).map(|i| (i, -1.0)).chain((0..half).map(|i| (i, 1.0))) {
            let angle = position as f64 * ROPE_THETA.powf(-(i as f64) / half as f64);
            cos.push(angle.cos() as f32);
            sin.push((sign * angle.sin()) as f32);
        }
    }
    let table = |values: &[f32]| {
        Tensor::f_from_slice(values)?.f_view_([context as i64, 1, 2 * half as i64])?.f_to_device(device)
    };
    Ok((table(&cos)?, table(&sin)?))
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

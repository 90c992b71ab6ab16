//! The transformer: forward pass and loss. Autograd can supply the backward pass; on a CPU, where training
//! spends its time, [`super::by_hand`] does it faster.
//!
//! # One flat vector
//! All parameters live in one vector, as in every [`Network`]. That gives something for free: the query, key and
//! value projections of a layer are neighbours in it and so are the gate and up projections. Each group is cut out
//! as *one* matrix with the rows of its members one below the other, and takes one matrix product.
//!
//! # The network
//! As in Touvron et al., arXiv 2302.13971, and numerically as in Hugging Face's `LlamaForCausalLM` and
//! `Qwen2ForCausalLM`: rotary embeddings turn channel `i` of a head against
//! channel `i + head_dim / 2` ("rotate half"), not against its neighbour as in the paper by Su et al.,
//! arXiv 2104.09864.
//!
//! Activations are `[batch * time, dim]` matrices; attention sees `[batch, heads, time, head_dim]`.

use super::by_hand::ByHand;
use super::cached::Cache;
use super::network::{self, Batch, Network};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use swarm_protocol::architecture::{LlamaConfig, Parameter};
use tch::{Device, Kind, Reduction, TchError, Tensor};

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

/// A llama-style transformer.
#[derive(Debug)]
pub(crate) struct Llama {
    arch: LlamaConfig,
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
#[derive(Debug)]
pub(super) struct Weights {
    /// `[vocabulary, dim]`
    pub(super) embedding: Tensor,
    pub(super) layers: Vec<Layer>,
    /// `[dim]`
    pub(super) norm: Tensor,
    /// `[vocabulary, dim]`; the embedding, if they are tied
    pub(super) head: Tensor,
}

#[derive(Debug)]
pub(super) struct Layer {
    /// `[dim]`
    pub(super) attention_norm: Tensor,
    /// `[(heads + 2 * kv_heads) * head_dim, dim]`: query, key, value
    pub(super) qkv: Tensor,
    /// As long as `qkv` has rows, if the model has biases.
    pub(super) qkv_bias: Option<Tensor>,
    /// `[dim, heads * head_dim]`
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
    pub(super) kv_heads: i64,
    pub(super) head_dim: i64,
    pub(super) ffn: i64,
    pub(super) norm_eps: f64,
}

impl Sizes {
    pub(super) fn of(arch: &LlamaConfig) -> Self {
        Self {
            vocabulary: arch.vocabulary.into(),
            dim: arch.dim.into(),
            heads: arch.heads.into(),
            kv_heads: arch.kv_heads.into(),
            head_dim: arch.head_dim.into(),
            ffn: arch.ffn.into(),
            norm_eps: arch.norm_eps,
        }
    }

    /// Rows of query, key and value, one below the other.
    pub(super) fn qkv_rows(self) -> i64 {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Heads that are turned by their position: those of queries and keys.
    pub(super) fn turned_heads(self) -> i64 {
        self.heads + self.kv_heads
    }
}

impl Llama {
    /// Allocates the model on `device`. All parameters are zero until [`Network::set_parameters`].
    ///
    /// # Errors
    /// An architecture that is invalid; not enough memory on the device.
    pub(crate) fn new(arch: &LlamaConfig, device: Device) -> Result<Self> {
        swarm_protocol::architecture::Architecture::from(*arch).validate().map_err(anyhow::Error::msg)?;
        let layout = arch.parameters();
        let sizes = Sizes::of(arch);
        let Sizes { vocabulary, dim, ffn, heads, head_dim, .. } = sizes;
        let mut runs = vec![vocabulary * dim];
        for _ in 0..arch.layers {
            runs.extend([dim, sizes.qkv_rows() * dim]);
            if arch.qkv_bias {
                runs.push(sizes.qkv_rows());
            }
            runs.extend([dim * heads * head_dim, dim, 2 * ffn * dim, dim * ffn]);
        }
        runs.push(dim);
        if !arch.tied {
            runs.push(vocabulary * dim);
        }
        let allocate = || -> Result<_, TchError> {
            let flat = network::zeros(&layout, device)?;
            let (cos, sin) = rope_tables(arch, device)?;
            let by_hand = (device == Device::Cpu).then(|| ByHand::new(arch, device)).transpose()?;
            Ok((flat, cos, sin, by_hand))
        };
        let count = arch.parameter_count();
        let (flat, cos, sin, by_hand) =
            allocate().with_context(|| format!("cannot place {count} parameters on {device:?}"))?;
        ensure!(runs.iter().sum::<i64>() == flat.numel() as i64, "the layout and the network disagree");
        Ok(Self { arch: *arch, layout, device, compute: Kind::Float, flat, runs, cos, sin, by_hand })
    }

    /// Chooses the number format of the matrix products.
    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Self { compute: precision.kind(), ..self }
    }

    /// The sizes that the model was made with.
    pub(crate) fn architecture(&self) -> &LlamaConfig {
        &self.arch
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
        let logits = self.product(&self.hidden(&weights, tokens, None)?, &weights.head)?;
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
        let hidden = self.hidden(&weights, tokens, None)?.f_view([batch, time, i64::from(self.arch.dim)])?;
        Ok(hidden.f_select(1, time - 1)?.f_linear(&weights.head, None::<&Tensor>)?)
    }

    /// Cuts the flat vector into matrices. Only views; autograd sees one operation.
    pub(super) fn weights(&self) -> Result<Weights, TchError> {
        self.cut(&self.flat)
    }

    /// Cuts a vector like the flat one into views.
    pub(super) fn cut(&self, flat: &Tensor) -> Result<Weights, TchError> {
        let sizes = Sizes::of(&self.arch);
        let Sizes { vocabulary, dim, ffn, heads, head_dim, .. } = sizes;
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
                    qkv: next(&[sizes.qkv_rows(), dim])?,
                    qkv_bias: self.arch.qkv_bias.then(|| next(&[sizes.qkv_rows()])).transpose()?,
                    attention_out: next(&[dim, heads * head_dim])?,
                    ffn_norm: next(&[dim])?,
                    gate_up: next(&[2 * ffn, dim])?,
                    down: next(&[dim, ffn])?,
                })
            })
            .collect::<Result<_, TchError>>()?;
        let norm = next(&[dim])?;
        let head = if self.arch.tied { embedding.shallow_clone() } else { next(&[vocabulary, dim])? };
        Ok(Weights { embedding, layers, norm, head })
    }

    /// `input weight^T` in the chosen number format; a cast to what something is already is no operation.
    pub(super) fn product(&self, input: &Tensor, weight: &Tensor) -> Result<Tensor, TchError> {
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

    /// Everything but the output layer: tokens `[batch, time]` to `[batch * time, dim]`. With a cache they continue
    /// the sequence whose keys and values it has, and theirs are added to it.
    pub(super) fn hidden(
        &self,
        weights: &Weights,
        tokens: &Tensor,
        mut cache: Option<&mut Cache>,
    ) -> Result<Tensor> {
        let (batch, time) = tokens.size2()?;
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        if past + time > i64::from(self.arch.context) {
            bail!(
                "a sequence of {} tokens is longer than the model's context of {}",
                past + time,
                self.arch.context
            );
        }
        let Sizes { dim, heads, kv_heads, head_dim, ffn, norm_eps, .. } = Sizes::of(&self.arch);
        let (cos, sin) = (self.cos.f_narrow(0, past, time)?, self.sin.f_narrow(0, past, time)?);
        let mask = cache.as_ref().map(|cache| cache.mask(time)).transpose()?.flatten();
        let indices = tokens.f_reshape([batch * time])?;
        let mut x = Tensor::f_embedding(&weights.embedding, &indices, -1, false, false)?;
        for (number, layer) in weights.layers.iter().enumerate() {
            let h = x.f_rms_norm([dim], Some(&layer.attention_norm), norm_eps)?;
            // Rotation and attention stay in f32: libtorch's bf16 attention is slower on CPUs.
            let mut qkv = self.product(&h, &layer.qkv)?.f_to_kind(Kind::Float)?;
            if let Some(bias) = &layer.qkv_bias {
                qkv = qkv.f_add(bias)?;
            }
            let qkv = qkv.f_view([batch, time, heads + 2 * kv_heads, head_dim])?;
            let mut parts = qkv.f_split_with_sizes([heads + kv_heads, kv_heads], 2)?;
            let mut value = parts.pop().context("no values")?.f_transpose(1, 2)?;
            let qk = rotate(&parts.pop().context("no queries and keys")?, &cos, &sin, head_dim)?;
            let mut key = qk.f_narrow(2, heads, kv_heads)?.f_transpose(1, 2)?;
            if let Some(cache) = &mut cache {
                (key, value) = cache.extended(number, &key, &value)?;
            }
            let attended = Tensor::f_scaled_dot_product_attention(
                &qk.f_narrow(2, 0, heads)?.f_transpose(1, 2)?,
                &key,
                &value,
                mask.as_ref(),
                0.0,
                // Of a sequence that has begun, the mask says it; a single token sees all before it.
                past == 0,
                None,
                kv_heads < heads,
            )?;
            let attended = attended.f_transpose(1, 2)?.f_reshape([batch * time, heads * head_dim])?;
            x = self.add_product(&x, &attended, &layer.attention_out)?;

            let h = x.f_rms_norm([dim], Some(&layer.ffn_norm), norm_eps)?;
            let gate_up = self.product(&h, &layer.gate_up)?;
            let mut parts = gate_up.f_split(ffn, 1)?;
            let up = parts.pop().context("no up projection")?;
            let gate = parts.pop().context("no gate projection")?;
            x = self.add_product(&x, &gate.f_silu()?.f_mul(&up)?, &layer.down)?;
        }
        if let Some(cache) = cache {
            cache.advance(time);
        }
        Ok(x.f_rms_norm([dim], Some(&weights.norm), norm_eps)?)
    }
}

impl Network for Llama {
    fn layout(&self) -> &[Parameter] {
        &self.layout
    }

    fn device(&self) -> Device {
        self.device
    }

    fn flat(&self) -> &Tensor {
        &self.flat
    }

    /// Mean cross entropy of each next token. Inputs have at most the context's length.
    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let weights = self.weights()?;
        let hidden = self.hidden(&weights, &batch.inputs, None)?;
        let targets = batch.targets.f_reshape([-1])?;
        let logits = self.product(&hidden, &weights.head)?.f_to_kind(Kind::Float)?;
        Ok(logits.f_cross_entropy_loss(&targets, None::<&Tensor>, Reduction::Mean, NO_IGNORED_TARGET, 0.0)?)
    }

    fn loss_and_gradient(&self, batch: &Batch, spare: Option<Tensor>) -> Result<(f64, Tensor)> {
        match &self.by_hand {
            Some(by_hand) => self.by_hand(by_hand, batch, spare),
            None => network::by_autograd(self, batch),
        }
    }
}

/// Turns each pair of channels `(i, i + head_dim / 2)` of `x` `[batch, time, heads, head_dim]` by its
/// position's angle. Rolling by half a head puts each channel's partner in its place; the sign that the
/// first half needs is already in `sin`.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor, head_dim: i64) -> Result<Tensor, TchError> {
    x.f_mul(cos)?.f_addcmul(&x.f_roll([head_dim / 2], [-1])?, sin)
}

/// Cosines and sign-carrying sines `[context, 1, head_dim]`, computed in f64.
fn rope_tables(arch: &LlamaConfig, device: Device) -> Result<(Tensor, Tensor), TchError> {
    let (context, half) = (arch.context as usize, (arch.head_dim / 2) as usize);
    let mut cos = Vec::with_capacity(context * 2 * half);
    let mut sin = Vec::with_capacity(context * 2 * half);
    for position in 0..context {
        for (i, sign) in (0..half).map(|i| (i, -1.0)).chain((0..half).map(|i| (i, 1.0))) {
            let angle = position as f64 * arch.rope_theta.powf(-(i as f64) / half as f64);
            cos.push(angle.cos() as f32);
            sin.push((sign * angle.sin()) as f32);
        }
    }
    let table = |values: &[f32]| {
        Tensor::f_from_slice(values)?.f_view_([context as i64, 1, 2 * half as i64])?.f_to_device(device)
    };
    Ok((table(&cos)?, table(&sin)?))
}

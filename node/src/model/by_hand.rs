//! Loss and gradient in one go, the backward pass written out. On a CPU this is what training runs; autograd
//! over [`super::llama`]'s forward pass is its reference (they are compared in the tests) and serves elsewhere.
//!
//! A small model's step is half matrix products and half everything else: passes over activations that are
//! bound by memory. Written out, there are fewer of them:
//!
//! - **Gradients are born in place.** Every matrix product of the backward pass writes into its part of the flat
//!   gradient vector. Autograd makes them one by one and puts them together afterwards.
//! - **Gains move into matrices.** `(y * gain) W^T = y (W * gain)^T`, and a matrix has fewer rows than a batch
//!   has tokens. The way back is `dW = G * gain` and `dgain = sum(G * W)` over the rows, with `G = d^T y`.
//! - **A rotation is one complex product.** Rotary embeddings turn channel `i` against `i + head_dim / 2`. With
//!   the rows of the query and key matrices in another order, a pair's channels are neighbours: one complex
//!   number, multiplied in place. Attention's scores are sums over channels, in whatever order.
//! - **What is not needed again is overwritten**: the residual stream in the forward pass (its normalised form
//!   is kept, which is enough), activations by their gradients in the backward pass. All of it lies in memory
//!   that the next step uses again ([`workspace`]).
//!
//! Keys and values that several heads of queries share are repeated for attention and their gradients added up. A
//! tied output layer's gradient lies where the embedding's does, and that one is added to it.
//!
//! With `y = x / rms(x)`, the normalisation's backward pass is `dx = (dy - y mean(dy y)) / rms(x)`.
//!
//! Shapes: N = batch * time rows; `d` before a name is the loss's gradient with respect to it.

mod workspace;

use anyhow::{Context, Result, ensure};
use swarm_protocol::architecture::LlamaConfig;
use tch::{Device, Kind, TchError, Tensor};

use self::workspace::{Kept, Workspace};
use super::llama::{Layer, Llama, Sizes, Weights};
use super::network::{Batch, Network};

/// Constant tensors of the backward pass by hand.
#[derive(Debug)]
pub(super) struct ByHand {
    /// i64, as many as query, key and value have rows together: row of their matrix for each row of the one with
    /// neighbouring pairs.
    mixed: Tensor,
    /// i64: its inverse.
    unmixed: Tensor,
    /// Complex `[context, 1, head_dim / 2]`: a position's turn, and the turn back.
    turn: Tensor,
    turn_back: Tensor,
}

impl ByHand {
    /// Fails only if there is not enough memory.
    pub(super) fn new(arch: &LlamaConfig, device: Device) -> Result<Self, TchError> {
        let sizes = Sizes::of(arch);
        let Sizes { head_dim, .. } = sizes;
        let turned = sizes.turned_heads();
        let half = head_dim / 2;
        let pairs = (0..turned)
            .flat_map(|head| (0..half).flat_map(move |i| [head * head_dim + i, head * head_dim + i + half]));
        let mixed: Vec<i64> = pairs.chain(turned * head_dim..sizes.qkv_rows()).collect();
        let mut unmixed: Vec<(i64, i64)> = mixed.iter().copied().zip(0..).collect();
        unmixed.sort_unstable();
        let unmixed: Vec<i64> = unmixed.into_iter().map(|(_, at)| at).collect();
        let context = i64::from(arch.context);
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..context {
            for i in 0..half {
                let angle = position as f64 * arch.rope_theta.powf(-(i as f64) / half as f64);
                cos.push(angle.cos() as f32);
                sin.push(angle.sin() as f32);
            }
        }
        let table =
            |values: &[f32]| Tensor::f_from_slice(values)?.f_view([context, 1, half])?.f_to_device(device);
        let (cos, sin) = (table(&cos)?, table(&sin)?);
        Ok(Self {
            mixed: Tensor::f_from_slice(&mixed)?.f_to_device(device)?,
            unmixed: Tensor::f_from_slice(&unmixed)?.f_to_device(device)?,
            turn: Tensor::f_complex(&cos, &sin)?,
            turn_back: Tensor::f_complex(&cos, &sin.f_neg()?)?,
        })
    }
}

/// Query `[batch, heads, time, head_dim]`, and key and value with `kv_heads`, as views of all rows `[N, ..]`.
fn heads_of(qkv: &Tensor, batch: i64, sizes: Sizes) -> Result<[Tensor; 3], TchError> {
    let Sizes { heads, kv_heads, head_dim, .. } = sizes;
    let all = qkv.f_view([batch, -1, heads + 2 * kv_heads, head_dim])?;
    let part = |start: i64, count: i64| all.f_narrow(2, start, count)?.f_transpose(1, 2);
    Ok([part(0, heads)?, part(heads, kv_heads)?, part(heads + kv_heads, kv_heads)?])
}

/// Keys or values `[batch, kv_heads, time, head_dim]`, one for each head of queries.
fn repeated(shared: &Tensor, sizes: Sizes) -> Result<Tensor, TchError> {
    if sizes.kv_heads == sizes.heads {
        return Ok(shared.shallow_clone());
    }
    shared.f_repeat_interleave_self_int(sizes.heads / sizes.kv_heads, 1, None)
}

/// The gradient of what was [`repeated`].
fn added_up(gradient: Tensor, sizes: Sizes) -> Result<Tensor, TchError> {
    if sizes.kv_heads == sizes.heads {
        return Ok(gradient);
    }
    let (batch, _, time, head_dim) = gradient.size4()?;
    let groups = [batch, sizes.kv_heads, sizes.heads / sizes.kv_heads, time, head_dim];
    gradient.f_reshape(groups)?.f_sum_dim_intlist([2].as_slice(), false, Kind::Float)
}

/// Multiplies the pairs of query and key in all rows `[N, ..]` by `turn`, in place.
fn turn(qkv: &Tensor, turn: &Tensor, batch: i64, sizes: Sizes) -> Result<(), TchError> {
    let Sizes { heads, kv_heads, head_dim, .. } = sizes;
    let all = qkv.f_view([batch, -1, heads + 2 * kv_heads, head_dim / 2, 2])?;
    let mut pairs = all.f_narrow(2, 0, sizes.turned_heads())?.f_view_as_complex()?;
    let _ = pairs.f_mul_(&turn.f_narrow(0, 0, pairs.size()[1])?)?;
    Ok(())
}

impl Llama {
    /// The loss of [`Network::loss`] and its gradient, f32 `[parameter_count]`, which may come in the memory of
    /// `spare`, an earlier one of this model.
    ///
    /// # Errors
    /// As [`Network::loss`].
    pub(super) fn by_hand(
        &self,
        constants: &ByHand,
        examples: &Batch,
        spare: Option<Tensor>,
    ) -> Result<(f64, Tensor)> {
        let (batch, time) = examples.inputs.size2()?;
        let context = self.architecture().context;
        ensure!(time >= 1, "there is nothing to predict in an empty sequence");
        ensure!(
            time <= i64::from(context),
            "a sequence of {time} tokens is longer than the model's context of {context}"
        );
        tch::no_grad(|| {
            let gradient = match spare {
                Some(spare) if spare.size() == self.flat().size() => spare,
                _ => self.flat().f_detach()?.f_empty_like()?,
            };
            let inputs = examples.inputs.f_reshape([batch * time])?;
            let targets = examples.targets.f_reshape([batch * time, 1])?;
            let mut workspace = Workspace::take(self.architecture(), batch * time, self.compute)?;
            let step = Step { model: self, constants, sizes: Sizes::of(self.architecture()), batch };
            let loss = step.differentiate(&mut workspace, &inputs, &targets, &gradient)?;
            workspace.put_back();
            Ok((loss, gradient))
        })
    }
}

/// One pass forward and back.
struct Step<'a> {
    model: &'a Llama,
    constants: &'a ByHand,
    sizes: Sizes,
    batch: i64,
}

impl Step<'_> {
    /// The loss; `gradient` is overwritten. `inputs` i64 `[N]`, `targets` i64 `[N, 1]`.
    fn differentiate(
        &self,
        workspace: &mut Workspace,
        inputs: &Tensor,
        targets: &Tensor,
        gradient: &Tensor,
    ) -> Result<f64> {
        let weights = self.model.cut(&self.model.flat().f_detach()?)?;
        let gradients = self.model.cut(gradient)?;
        let Workspace { layers, last, x, dy, scratch, d_product, logits, log_probabilities, .. } = workspace;
        let _ = weights.embedding.f_index_select_out(x, 0, inputs)?;
        for (layer, kept) in weights.layers.iter().zip(&mut *layers) {
            self.forward(layer, kept, x)?;
        }
        last.set(x)?;
        let Weights { head, norm, .. } = &weights;
        let head_weight = head.f_mul(norm)?.f_to_kind(self.model.compute)?;
        self.product_into(logits, &last.input, &head_weight.f_tr()?)?;
        let _ = logits.f_log_softmax_int_out(log_probabilities, -1, Kind::Float)?;
        let targeted = log_probabilities.f_gather(1, targets, false)?;
        let loss = -targeted.f_mean(Kind::Float)?.f_double_value(&[])?;

        // The gradient of the mean cross entropy: the probabilities, less 1 at the target, over their number.
        let share = 1.0 / inputs.numel() as f64;
        let _ = log_probabilities.f_exp_()?.f_mul_scalar_(share)?;
        let _ = log_probabilities.f_scatter_add_(1, targets, &targeted.f_full_like(-share)?)?;
        let d_logits = log_probabilities.f_to_kind(self.model.compute)?;
        self.product_into(&gradients.head, &d_logits.f_tr()?, &last.input)?;
        gain_gradient(&gradients.head, head, &gradients.norm)?;
        let _ = gradients.head.shallow_clone().f_mul_(norm)?;
        self.product_into(dy, &d_logits, &head_weight)?;
        last.backward(dy, scratch)?;
        let dx = dy.f_mul_out(x, &last.scale)?;
        let all = weights.layers.iter().zip(&gradients.layers).zip(layers);
        for ((layer, gradient), kept) in all.rev() {
            self.feed_forward_backward(layer, gradient, kept, d_product, [x, dy, scratch])?;
            self.attention_backward(layer, gradient, kept, [x, dy, scratch])?;
        }
        let mut embedding = gradients.embedding;
        if !self.model.architecture().tied {
            let _ = embedding.f_zero_()?;
        }
        let _ = embedding.f_index_add_(0, inputs, &dx)?;
        Ok(loss)
    }

    /// One layer; `x`, f32 `[N, dim]`, is changed in place.
    fn forward(&self, layer: &Layer, kept: &mut Kept, x: &mut Tensor) -> Result<(), TchError> {
        kept.before_attention.set(x)?;
        let mixed = layer.qkv.f_index_select(0, &self.constants.mixed)?;
        times_into(&kept.qkv_weight, &mixed, &layer.attention_norm)?;
        self.product_into(&kept.qkv, &kept.before_attention.input, &kept.qkv_weight.f_tr()?)?;
        if let Some(bias) = &layer.qkv_bias {
            let _ = kept.qkv.shallow_clone().f_add_(&bias.f_index_select(0, &self.constants.mixed)?)?;
        }
        turn(&kept.qkv, &self.constants.turn, self.batch, self.sizes)?;
        let [query, key, value] = heads_of(&kept.qkv, self.batch, self.sizes)?;
        let (key, value) = (repeated(&key, self.sizes)?, repeated(&value, self.sizes)?);
        let (attended, logarithms) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu(
            &query,
            &key,
            &value,
            0.0,
            true,
            None::<&Tensor>,
            None,
        )?;
        self.add_product(x, &self.rows_of(&attended)?, &layer.attention_out)?;
        kept.attended = Some((attended, logarithms));

        kept.before_ffn.set(x)?;
        times_into(&kept.gate_up_weight, &layer.gate_up, &layer.ffn_norm)?;
        self.product_into(&kept.gate_up, &kept.before_ffn.input, &kept.gate_up_weight.f_tr()?)?;
        let (gate, up) = self.gate_and_up(kept)?;
        let open = gate.f_silu_out(&kept.open)?;
        let product = open.f_mul_out(&kept.product, &up)?;
        self.add_product(x, &product, &layer.down)
    }

    /// The way back through the feed-forward layer. `dx`, with respect to its output, becomes that with respect
    /// to its input; `dy` and `scratch` are as large.
    fn feed_forward_backward(
        &self,
        layer: &Layer,
        gradient: &Layer,
        kept: &Kept,
        d_product: &Tensor,
        [dx, dy, scratch]: [&mut Tensor; 3],
    ) -> Result<(), TchError> {
        let d = dx.f_to_kind(self.model.compute)?;
        self.product_into(&gradient.down, &d.f_tr()?, &kept.product)?;
        self.product_into(d_product, &d, &layer.down.f_to_kind(self.model.compute)?)?;
        let (gate, up) = self.gate_and_up(kept)?;
        let d_open = d_product.f_mul_out(&kept.product, &up)?;
        let _ = d_product.f_mul_out(&up, &kept.open)?;
        let _ = gate.f_silu_backward_grad_input(&gate, &d_open)?;
        self.product_into(&gradient.gate_up, &kept.gate_up.f_tr()?, &kept.before_ffn.input)?;
        gain_gradient(&gradient.gate_up, &layer.gate_up, &gradient.ffn_norm)?;
        let _ = gradient.gate_up.shallow_clone().f_mul_(&layer.ffn_norm)?;
        self.product_into(dy, &kept.gate_up, &kept.gate_up_weight)?;
        kept.before_ffn.backward(dy, scratch)?;
        dx.f_addcmul_(dy, &kept.before_ffn.scale).map(drop)
    }

    /// The same through attention.
    fn attention_backward(
        &self,
        layer: &Layer,
        gradient: &Layer,
        kept: &mut Kept,
        [dx, dy, scratch]: [&mut Tensor; 3],
    ) -> Result<()> {
        let (attended, logarithms) = kept.attended.take().context("a layer has no attention")?;
        let d = dx.f_to_kind(self.model.compute)?;
        let rows = self.rows_of(&attended)?.f_to_kind(self.model.compute)?;
        self.product_into(&gradient.attention_out, &d.f_tr()?, &rows)?;
        let width = self.sizes.heads * self.sizes.head_dim;
        // As wide as `dy` in most models.
        let d_rows = if width == self.sizes.dim {
            dy.shallow_clone()
        } else {
            Tensor::f_empty([d.size()[0], width], (Kind::Float, d.device()))?
        };
        self.product_into(&d_rows, &d, &layer.attention_out.f_to_kind(self.model.compute)?)?;
        let d_attended =
            d_rows.f_view([self.batch, -1, self.sizes.heads, self.sizes.head_dim])?.f_transpose(1, 2)?;
        let [query, key, value] = heads_of(&kept.qkv, self.batch, self.sizes)?;
        let (all_keys, all_values) = (repeated(&key, self.sizes)?, repeated(&value, self.sizes)?);
        let (d_query, d_key, d_value) =
            Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward(
                &d_attended,
                &query,
                &all_keys,
                &all_values,
                &attended,
                &logarithms,
                0.0,
                true,
                None::<&Tensor>,
                None,
            )?;
        let (d_key, d_value) = (added_up(d_key, self.sizes)?, added_up(d_value, self.sizes)?);
        for (mut place, values) in [(query, d_query), (key, d_key), (value, d_value)] {
            place.f_copy_(&values)?;
        }
        turn(&kept.qkv, &self.constants.turn_back, self.batch, self.sizes)?;
        if let Some(d_bias) = &gradient.qkv_bias {
            let sum = kept.qkv.f_sum_dim_intlist([0].as_slice(), false, Kind::Float)?;
            let _ = sum.f_index_select_out(d_bias, 0, &self.constants.unmixed)?;
        }
        let d_qkv = kept.qkv.f_to_kind(self.model.compute)?;
        let mixed = d_qkv.f_tr()?.f_mm(&kept.before_attention.input)?.f_to_kind(Kind::Float)?;
        let unmixed = mixed.f_index_select(0, &self.constants.unmixed)?;
        gain_gradient(&unmixed, &layer.qkv, &gradient.attention_norm)?;
        let _ = unmixed.f_mul_out(&gradient.qkv, &layer.attention_norm)?;
        self.product_into(dy, &d_qkv, &kept.qkv_weight)?;
        kept.before_attention.backward(dy, scratch)?;
        let _ = dx.f_addcmul_(dy, &kept.before_attention.scale)?;
        Ok(())
    }

    /// `[N, ffn]` each, views.
    fn gate_and_up(&self, kept: &Kept) -> Result<(Tensor, Tensor), TchError> {
        let ffn = self.sizes.ffn;
        Ok((kept.gate_up.f_narrow(1, 0, ffn)?, kept.gate_up.f_narrow(1, ffn, ffn)?))
    }

    /// `[batch, heads, time, head_dim]` to `[N, heads * head_dim]`: a view, as attention lays out what it gives.
    fn rows_of(&self, heads: &Tensor) -> Result<Tensor, TchError> {
        heads.f_transpose(1, 2)?.f_reshape([-1, self.sizes.heads * self.sizes.head_dim])
    }

    /// `out = a b`, `a` and `b` in the number format of products, `out` in that or f32.
    fn product_into(&self, out: &Tensor, a: &Tensor, b: &Tensor) -> Result<(), TchError> {
        if out.kind() == self.model.compute {
            a.f_mm_out(out, b).map(drop)
        } else {
            out.shallow_clone().f_copy_(&a.f_mm(b)?)
        }
    }

    /// `x += input weight^T`, `x` f32.
    fn add_product(&self, x: &mut Tensor, input: &Tensor, weight: &Tensor) -> Result<(), TchError> {
        let compute = self.model.compute;
        if compute == Kind::Float {
            x.f_addmm_(input, &weight.f_tr()?).map(drop)
        } else {
            let (input, weight) = (input.f_to_kind(compute)?, weight.f_to_kind(compute)?);
            x.f_add_(&input.f_mm(&weight.f_tr()?)?).map(drop)
        }
    }
}

/// `out = weight * gain`, `out` in any number format.
fn times_into(out: &Tensor, weight: &Tensor, gain: &Tensor) -> Result<(), TchError> {
    if out.kind() == Kind::Float {
        weight.f_mul_out(out, gain).map(drop)
    } else {
        out.shallow_clone().f_copy_(&weight.f_mul(gain)?)
    }
}

/// `d_gain = sum over the rows of G * W`.
fn gain_gradient(raw: &Tensor, weight: &Tensor, d_gain: &Tensor) -> Result<(), TchError> {
    raw.f_mul(weight)?.f_sum_intlist_out(d_gain, [0].as_slice(), false, Kind::Float).map(drop)
}

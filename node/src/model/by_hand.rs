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
//!   is kept, which is enough), activations by their gradients in the backward pass.
//!
//! With `y = x / rms(x)`, the normalisation's backward pass is `dx = (dy - y mean(dy y)) / rms(x)`.
//!
//! Shapes: N = batch * time rows; `d` before a name is the loss's gradient with respect to it.

use anyhow::{Context, Result, ensure};
use swarm_protocol::architecture::Architecture;
use tch::{Device, Kind, TchError, Tensor};

use super::llama::{Llama, RMS_EPS, ROPE_THETA, Sizes};

/// Constant tensors of the backward pass by hand.
#[derive(Debug)]
pub(super) struct ByHand {
    /// i64 `[3 * dim]`: row of the query, key and value matrix for each row of the one with neighbouring pairs.
    mixed: Tensor,
    /// i64 `[3 * dim]`: its inverse.
    unmixed: Tensor,
    /// Complex `[context, 1, head_dim / 2]`: a position's turn, and the turn back.
    turn: Tensor,
    turn_back: Tensor,
}

impl ByHand {
    /// Fails only if there is not enough memory.
    pub(super) fn new(arch: &Architecture, device: Device) -> Result<Self, TchError> {
        let Sizes { dim, heads, head_dim, .. } = Sizes::of(arch);
        let half = head_dim / 2;
        let pairs = (0..2 * heads)
            .flat_map(|head| (0..half).flat_map(move |i| [head * head_dim + i, head * head_dim + i + half]));
        let mixed: Vec<i64> = pairs.chain(2 * dim..3 * dim).collect();
        let mut unmixed: Vec<(i64, i64)> = mixed.iter().copied().zip(0..).collect();
        unmixed.sort_unstable();
        let unmixed: Vec<i64> = unmixed.into_iter().map(|(_, at)| at).collect();
        let context = i64::from(arch.context);
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        for position in 0..context {
            for i in 0..half {
                let angle = position as f64 * ROPE_THETA.powf(-(i as f64) / half as f64);
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

/// Rows of length 1 (root mean square), and what they were divided by.
struct Normalised {
    /// f32 `[N, dim]`
    y: Tensor,
    /// The same in the number format of products.
    input: Tensor,
    /// f32 `[N, 1]`: 1 / rms
    scale: Tensor,
}

impl Normalised {
    fn of(x: &Tensor, compute: Kind) -> Result<Self, TchError> {
        let dim = x.size().last().copied().unwrap_or(1);
        let mut scale = x.f_norm_scalaropt_dim(2, [-1].as_slice(), true)?;
        let _ = scale.f_square_()?.f_mul_scalar_(1.0 / dim as f64)?.f_add_scalar_(RMS_EPS)?.f_rsqrt_()?;
        let y = x.f_mul(&scale)?;
        Ok(Self { input: y.f_to_kind(compute)?, y, scale })
    }

    /// `dy`, which is overwritten, to the part of `dx` that comes through here, but for the factor `scale`.
    fn backward(&self, mut dy: Tensor) -> Result<Tensor, TchError> {
        let along = (dy.f_mul(&self.y)?).f_mean_dim([-1].as_slice(), true, Kind::Float)?;
        dy.f_addcmul_(&self.y, &along.f_neg()?)
    }
}

/// What a layer's backward pass needs.
struct Saved {
    before_attention: Normalised,
    /// `[3 * dim, dim]`, gain folded in, rows mixed.
    qkv_weight: Tensor,
    /// f32 `[N, 3 * dim]`: query and key turned, value.
    qkv: Tensor,
    /// f32 `[batch, heads, time, head_dim]`
    attended: Tensor,
    logsumexp: Tensor,
    before_ffn: Normalised,
    /// `[2 * ffn, dim]`, gain folded in.
    gate_up_weight: Tensor,
    /// `[N, 2 * ffn]`
    gate_up: Tensor,
    /// `[N, ffn]`: the gate after silu.
    open: Tensor,
    /// `[N, ffn]`: times up.
    product: Tensor,
}

/// Query, key and value `[batch, heads, time, head_dim]` as views of `[N, 3 * dim]`.
fn heads_of(qkv: &Tensor, batch: i64, sizes: Sizes) -> Result<[Tensor; 3], TchError> {
    let Sizes { heads, head_dim, .. } = sizes;
    let all = qkv.f_view([batch, -1, 3 * heads, head_dim])?;
    let part = |i: i64| all.f_narrow(2, i * heads, heads)?.f_transpose(1, 2);
    Ok([part(0)?, part(1)?, part(2)?])
}

/// Multiplies the pairs of query and key in `[N, 3 * dim]` by `turn`, in place.
fn turn(qkv: &Tensor, turn: &Tensor, batch: i64, sizes: Sizes) -> Result<(), TchError> {
    let Sizes { heads, head_dim, .. } = sizes;
    let all = qkv.f_view([batch, -1, 3 * heads, head_dim / 2, 2])?;
    let mut pairs = all.f_narrow(2, 0, 2 * heads)?.f_view_as_complex()?;
    let _ = pairs.f_mul_(&turn.f_narrow(0, 0, pairs.size()[1])?)?;
    Ok(())
}

impl Llama {
    /// Mean cross entropy in nats of each next byte, and its gradient, f32 `[parameter_count]`, for `tokens`
    /// as in [`Llama::loss`].
    ///
    /// # Errors
    /// As [`Llama::loss`].
    pub(crate) fn loss_and_gradient(&self, tokens: &Tensor) -> Result<(f64, Tensor)> {
        match &self.by_hand {
            Some(constants) => tch::no_grad(|| self.differentiate(constants, tokens)),
            None => {
                let loss = self.loss(tokens)?;
                let gradient = Tensor::f_run_backward(&[&loss], &[self.flat()], false, false)?
                    .pop()
                    .context("libtorch returned no gradient")?;
                Ok((loss.f_double_value(&[])?, gradient))
            }
        }
    }

    fn differentiate(&self, constants: &ByHand, tokens: &Tensor) -> Result<(f64, Tensor)> {
        let (batch, width) = tokens.size2()?;
        let time = width - 1;
        ensure!(time >= 1, "a window needs at least two tokens, an input and a target; it has {width}");
        ensure!(
            time <= i64::from(self.architecture().context),
            "a sequence of {time} tokens is longer than the model's context of {}",
            self.architecture().context
        );
        let compute = self.compute;
        let flat = self.flat().f_detach()?;
        let gradient = flat.f_empty_like()?;
        let (weights, gradients) = (self.cut(&flat)?, self.cut(&gradient)?);
        let inputs = tokens.f_narrow(1, 0, time)?.f_reshape([batch * time])?;
        let targets = tokens.f_narrow(1, 1, time)?.f_reshape([batch * time, 1])?;

        let mut x = weights.embedding.f_index_select(0, &inputs)?;
        let mut layers = Vec::with_capacity(weights.layers.len());
        for layer in &weights.layers {
            layers.push(self.layer_forward(constants, layer, &mut x, batch)?);
        }
        let last = Normalised::of(&x, compute)?;
        let head = weights.head.f_mul(&weights.norm)?.f_to_kind(compute)?;
        let logits = last.input.f_mm(&head.f_tr()?)?.f_to_kind(Kind::Float)?;
        let mut logits = logits.f_log_softmax(-1, Kind::Float)?;
        let loss = -logits.f_gather(1, &targets, false)?.f_mean(Kind::Float)?.f_double_value(&[])?;

        // The gradient of the mean cross entropy: the probabilities, less 1 at the target, over their number.
        let share = -1.0 / (batch * time) as f64;
        let _ = logits.f_exp_()?.f_mul_scalar_(-share)?;
        let targeted = Tensor::f_full([batch * time, 1], share, (Kind::Float, flat.device()))?;
        let _ = logits.f_scatter_add_(1, &targets, &targeted)?;
        let d_logits = logits.f_to_kind(compute)?;
        self.gained_backward(
            &d_logits,
            &last,
            (&weights.head, &weights.norm),
            (&gradients.head, &gradients.norm),
        )?;
        let dy = d_logits.f_mm(&head)?.f_to_kind(Kind::Float)?;
        let mut dx = last.backward(dy)?.f_mul_(&last.scale)?;
        // Freed before the layers' turn, which need memory of their own.
        drop((x, last, logits, d_logits));
        for (layer, gradient) in weights.layers.iter().zip(&gradients.layers).rev() {
            let saved = layers.pop().context("a layer has no activations")?;
            self.layer_backward(constants, layer, gradient, saved, &mut dx, batch)?;
        }
        let mut embedding = gradients.embedding;
        let _ = embedding.f_zero_()?.f_index_add_(0, &inputs, &dx)?;
        Ok((loss, gradient))
    }

    /// One layer; `x` f32 `[N, dim]` is changed in place.
    fn layer_forward(
        &self,
        constants: &ByHand,
        layer: &super::llama::Layer,
        x: &mut Tensor,
        batch: i64,
    ) -> Result<Saved, TchError> {
        let (sizes, compute) = (Sizes::of(self.architecture()), self.compute);
        let before_attention = Normalised::of(x, compute)?;
        let qkv_weight = layer.qkv.f_index_select(0, &constants.mixed)?;
        let qkv_weight = qkv_weight.f_mul(&layer.attention_norm)?.f_to_kind(compute)?;
        let qkv = before_attention.input.f_mm(&qkv_weight.f_tr()?)?.f_to_kind(Kind::Float)?;
        turn(&qkv, &constants.turn, batch, sizes)?;
        let [query, key, value] = heads_of(&qkv, batch, sizes)?;
        let (attended, logsumexp) = Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu(
            &query,
            &key,
            &value,
            0.0,
            true,
            None::<&Tensor>,
            None,
        )?;
        self.add_product_in_place(x, &rows_of(&attended, sizes.dim)?, &layer.attention_out)?;

        let before_ffn = Normalised::of(x, compute)?;
        let gate_up_weight = layer.gate_up.f_mul(&layer.ffn_norm)?.f_to_kind(compute)?;
        let gate_up = before_ffn.input.f_mm(&gate_up_weight.f_tr()?)?;
        let open = gate_up.f_narrow(1, 0, sizes.ffn)?.f_silu()?;
        let product = open.f_mul(&gate_up.f_narrow(1, sizes.ffn, sizes.ffn)?)?;
        self.add_product_in_place(x, &product, &layer.down)?;
        Ok(Saved {
            before_attention,
            qkv_weight,
            qkv,
            attended,
            logsumexp,
            before_ffn,
            gate_up_weight,
            gate_up,
            open,
            product,
        })
    }

    /// The way back through one layer: `dx`, with respect to its output, becomes that with respect to its input.
    fn layer_backward(
        &self,
        constants: &ByHand,
        layer: &super::llama::Layer,
        gradient: &super::llama::Layer,
        saved: Saved,
        dx: &mut Tensor,
        batch: i64,
    ) -> Result<(), TchError> {
        let (sizes, compute) = (Sizes::of(self.architecture()), self.compute);
        let Saved { before_attention, qkv_weight, mut qkv, attended, logsumexp, .. } = saved;
        let Saved { before_ffn, gate_up_weight, gate_up, open, product, .. } = saved;

        let d = dx.f_to_kind(compute)?;
        self.product_into(&gradient.down, &d.f_tr()?, &product)?;
        let d_product = d.f_mm(&layer.down.f_to_kind(compute)?)?;
        let (gate, up) = (gate_up.f_narrow(1, 0, sizes.ffn)?, gate_up.f_narrow(1, sizes.ffn, sizes.ffn)?);
        // `product` is scratch from here on; gate and up become their gradients.
        let d_open = d_product.f_mul_out(&product, &up)?;
        let _ = d_product.f_mul_out(&up, &open)?;
        let _ = gate.f_silu_backward_grad_input(&gate, &d_open)?;
        self.gained_backward(
            &gate_up,
            &before_ffn,
            (&layer.gate_up, &layer.ffn_norm),
            (&gradient.gate_up, &gradient.ffn_norm),
        )?;
        let dy = before_ffn.backward(gate_up.f_mm(&gate_up_weight)?.f_to_kind(Kind::Float)?)?;
        let _ = dx.f_addcmul_(&dy, &before_ffn.scale)?;

        let d = dx.f_to_kind(compute)?;
        self.product_into(
            &gradient.attention_out,
            &d.f_tr()?,
            &rows_of(&attended, sizes.dim)?.f_to_kind(compute)?,
        )?;
        let d_attended = d.f_mm(&layer.attention_out.f_to_kind(compute)?)?.f_to_kind(Kind::Float)?;
        let d_attended = d_attended.f_view([batch, -1, sizes.heads, sizes.head_dim])?.f_transpose(1, 2)?;
        let [query, key, value] = heads_of(&qkv, batch, sizes)?;
        let (d_query, d_key, d_value) =
            Tensor::f_internal_scaled_dot_product_flash_attention_for_cpu_backward(
                &d_attended,
                &query,
                &key,
                &value,
                &attended,
                &logsumexp,
                0.0,
                true,
                None::<&Tensor>,
                None,
            )?;
        for (mut place, values) in [(query, d_query), (key, d_key), (value, d_value)] {
            place.f_copy_(&values)?;
        }
        turn(&qkv, &constants.turn_back, batch, sizes)?;
        qkv = qkv.f_to_kind(compute)?;
        let mixed = qkv.f_tr()?.f_mm(&before_attention.input)?.f_to_kind(Kind::Float)?;
        let unmixed = mixed.f_index_select(0, &constants.unmixed)?;
        let _ = unmixed.f_mul_out(&gradient.qkv, &layer.attention_norm)?;
        gain_gradient(&unmixed, &layer.qkv, &gradient.attention_norm)?;
        let dy = before_attention.backward(qkv.f_mm(&qkv_weight)?.f_to_kind(Kind::Float)?)?;
        let _ = dx.f_addcmul_(&dy, &before_attention.scale)?;
        Ok(())
    }

    /// Gradients of a matrix `[rows, dim]` and of the gain `[dim]` before it, from `d` `[N, rows]`.
    fn gained_backward(
        &self,
        d: &Tensor,
        normalised: &Normalised,
        (weight, gain): (&Tensor, &Tensor),
        (d_weight, d_gain): (&Tensor, &Tensor),
    ) -> Result<(), TchError> {
        self.product_into(d_weight, &d.f_tr()?, &normalised.input)?;
        gain_gradient(d_weight, weight, d_gain)?;
        let _ = d_weight.shallow_clone().f_mul_(gain)?;
        Ok(())
    }

    /// `out = a b`, `out` f32 and the others in the number format of products.
    fn product_into(&self, out: &Tensor, a: &Tensor, b: &Tensor) -> Result<(), TchError> {
        if self.compute == Kind::Float {
            a.f_mm_out(out, b).map(drop)
        } else {
            out.shallow_clone().f_copy_(&a.f_mm(b)?)
        }
    }

    /// `x += input weight^T`, `x` f32.
    fn add_product_in_place(&self, x: &mut Tensor, input: &Tensor, weight: &Tensor) -> Result<(), TchError> {
        let _ = if self.compute == Kind::Float {
            x.f_addmm_(input, &weight.f_tr()?)?
        } else {
            let (input, weight) = (input.f_to_kind(self.compute)?, weight.f_to_kind(self.compute)?);
            x.f_add_(&input.f_mm(&weight.f_tr()?)?)?
        };
        Ok(())
    }
}

/// `[batch, heads, time, head_dim]` to `[N, dim]`: a view, as attention lays out what it gives.
fn rows_of(heads: &Tensor, dim: i64) -> Result<Tensor, TchError> {
    heads.f_transpose(1, 2)?.f_reshape([-1, dim])
}

/// `d_gain = sum over the rows of G * W`.
fn gain_gradient(raw: &Tensor, weight: &Tensor, d_gain: &Tensor) -> Result<(), TchError> {
    raw.f_mul(weight)?.f_sum_intlist_out(d_gain, [0].as_slice(), false, Kind::Float).map(drop)
}

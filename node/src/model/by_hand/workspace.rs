//! Memory for activations, used again and again.
//!
//! A step needs hundreds of megabytes for a moment. Given back at its end, they would come from the system anew
//! in the next step, page by page, each cleared first: a quarter of a step's time where that is slow. So they are
//! kept, once a thread: the laboratory's learners take turns in one.

use std::cell::RefCell;

use swarm_protocol::architecture::LlamaConfig;
use tch::{Device, Kind, TchError, Tensor};

use super::super::llama::Sizes;

thread_local! {
    static IDLE: RefCell<Option<Workspace>> = const { RefCell::new(None) };
}

/// Rows of length 1 (root mean square), and what they were divided by.
pub(super) struct Normalised {
    /// f32 `[N, dim]`
    y: Tensor,
    /// The same in the number format of products.
    pub(super) input: Tensor,
    /// f32 `[N, 1]`: 1 / rms
    pub(super) scale: Tensor,
    /// Added to the mean square before the root.
    eps: f64,
}

impl Normalised {
    fn new(rows: i64, sizes: Sizes, compute: Kind) -> Result<Self, TchError> {
        let Sizes { dim, norm_eps: eps, .. } = sizes;
        let make = |width, kind| Tensor::f_empty([rows, width], (kind, Device::Cpu));
        let y = make(dim, Kind::Float)?;
        let input = if compute == Kind::Float { y.shallow_clone() } else { make(dim, compute)? };
        Ok(Self { y, input, scale: make(1, Kind::Float)?, eps })
    }

    /// Normalises the rows of `x`, f32 `[N, dim]`.
    pub(super) fn set(&mut self, x: &Tensor) -> Result<(), TchError> {
        let dim = x.size().last().copied().unwrap_or(1);
        let mut scale = x.f_norm_out(&self.scale, 2, [-1].as_slice(), true)?;
        let _ = scale.f_square_()?.f_mul_scalar_(1.0 / dim as f64)?.f_add_scalar_(self.eps)?.f_rsqrt_()?;
        let y = x.f_mul_out(&self.y, &scale)?;
        if self.input.kind() != Kind::Float {
            self.input.f_copy_(&y)?;
        }
        Ok(())
    }

    /// `dy` becomes the part of `dx` that comes through here, but for the factor `scale`; `scratch` is as large.
    pub(super) fn backward(&self, dy: &mut Tensor, scratch: &Tensor) -> Result<(), TchError> {
        let along = dy.f_mul_out(scratch, &self.y)?.f_mean_dim([-1].as_slice(), true, Kind::Float)?;
        dy.f_addcmul_(&self.y, &along.f_neg()?).map(drop)
    }
}

/// What a layer's backward pass needs of its forward pass.
pub(super) struct Kept {
    pub(super) before_attention: Normalised,
    /// `[rows of query, key and value, dim]`, gain folded in, rows mixed.
    pub(super) qkv_weight: Tensor,
    /// f32, `[N, as many]`: query and key turned, value; then their gradients.
    pub(super) qkv: Tensor,
    /// f32 `[batch, heads, time, head_dim]`, and the logarithms that attention's backward pass wants.
    pub(super) attended: Option<(Tensor, Tensor)>,
    pub(super) before_ffn: Normalised,
    /// `[2 * ffn, dim]`, gain folded in.
    pub(super) gate_up_weight: Tensor,
    /// `[N, 2 * ffn]`; then their gradients.
    pub(super) gate_up: Tensor,
    /// `[N, ffn]`: the gate after silu.
    pub(super) open: Tensor,
    /// `[N, ffn]`: times up; then scratch.
    pub(super) product: Tensor,
}

impl Kept {
    fn new(rows: i64, sizes: Sizes, compute: Kind) -> Result<Self, TchError> {
        let make = |height, width, kind| Tensor::f_empty([height, width], (kind, Device::Cpu));
        let Sizes { dim, ffn, .. } = sizes;
        Ok(Self {
            before_attention: Normalised::new(rows, sizes, compute)?,
            qkv_weight: make(sizes.qkv_rows(), dim, compute)?,
            qkv: make(rows, sizes.qkv_rows(), Kind::Float)?,
            attended: None,
            before_ffn: Normalised::new(rows, sizes, compute)?,
            gate_up_weight: make(2 * ffn, dim, compute)?,
            gate_up: make(rows, 2 * ffn, compute)?,
            open: make(rows, ffn, compute)?,
            product: make(rows, ffn, compute)?,
        })
    }
}

/// All of a step's large tensors.
pub(super) struct Workspace {
    arch: LlamaConfig,
    rows: i64,
    compute: Kind,
    pub(super) layers: Vec<Kept>,
    /// After the last layer.
    pub(super) last: Normalised,
    /// f32 `[N, dim]`: the residual stream; then its gradient.
    pub(super) x: Tensor,
    /// f32 `[N, dim]` each.
    pub(super) dy: Tensor,
    pub(super) scratch: Tensor,
    /// `[N, ffn]`
    pub(super) d_product: Tensor,
    /// f32 `[N, vocabulary]`
    pub(super) logits: Tensor,
    pub(super) log_probabilities: Tensor,
}

impl Workspace {
    fn new(arch: &LlamaConfig, rows: i64, compute: Kind) -> Result<Self, TchError> {
        let sizes = Sizes::of(arch);
        let make = |width, kind| Tensor::f_empty([rows, width], (kind, Device::Cpu));
        Ok(Self {
            arch: *arch,
            rows,
            compute,
            layers: (0..arch.layers).map(|_| Kept::new(rows, sizes, compute)).collect::<Result<_, _>>()?,
            last: Normalised::new(rows, sizes, compute)?,
            x: make(sizes.dim, Kind::Float)?,
            dy: make(sizes.dim, Kind::Float)?,
            scratch: make(sizes.dim, Kind::Float)?,
            d_product: make(sizes.ffn, compute)?,
            logits: make(sizes.vocabulary, Kind::Float)?,
            log_probabilities: make(sizes.vocabulary, Kind::Float)?,
        })
    }

    /// This thread's, if the last step was of the same shape, or a new one.
    ///
    /// # Errors
    /// Not enough memory.
    pub(super) fn take(arch: &LlamaConfig, rows: i64, compute: Kind) -> Result<Self, TchError> {
        // Taken in any case: the old one goes before a new one is made.
        match IDLE.take() {
            Some(idle) if (idle.arch, idle.rows, idle.compute) == (*arch, rows, compute) => Ok(idle),
            other => {
                drop(other);
                Self::new(arch, rows, compute)
            }
        }
    }

    /// Keeps it for this thread's next step.
    pub(super) fn put_back(self) {
        IDLE.set(Some(self));
    }
}

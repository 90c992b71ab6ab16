//! A sequence that grows token by token.
//!
//! Attention looks from every token back at the keys and values of those before it, and these do not change when the
//! sequence grows. Kept, they make the next token cost one pass over a single token instead of one over all of them:
//! a *key-value cache*. What comes out is the same up to rounding, as the same code computes it
//! ([`Llama`]'s forward pass, which takes the cache or does without); the tests compare the two for every split.
//!
//! # When the context is full
//! Keys carry the angle of their position, and the model knows no position beyond its context. So when a
//! [`Sequence`] is full, its first part is let go and the last half of it computed again, at the positions from 0 on.
//! That takes one pass over half a context every half a context.
//!
//! # Two sequences that begin alike
//! The turns of a conversation do. [`Sequence::set`] keeps what it has of the common beginning.

use anyhow::{Context, Result, ensure};
use tch::{Kind, TchError, Tensor};

use super::llama::{Layer, Llama, Weights};
use super::network::Network;

/// Tokens that a cache has room for at first; it doubles when it is full.
const FIRST_ROOM: i64 = 64;

/// Keys and values of one sequence, a pair for each layer: f32 `[1, kv_heads, room, head_dim]` of which the first
/// [`Cache::len`] are there. Rotated already.
#[derive(Debug)]
pub(super) struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    len: i64,
    room: i64,
    /// Never more room than this.
    most: i64,
}

impl Cache {
    fn new(model: &Llama) -> Result<Self, TchError> {
        let arch = model.architecture();
        let most = i64::from(arch.context);
        let room = FIRST_ROOM.min(most);
        let shape = [1, i64::from(arch.kv_heads), room, i64::from(arch.head_dim)];
        let empty = || Tensor::f_zeros(shape, (Kind::Float, model.device()));
        let layers = (0..arch.layers).map(|_| Ok((empty()?, empty()?))).collect::<Result<_, TchError>>()?;
        Ok(Self { layers, len: 0, room, most })
    }

    /// Tokens that it knows.
    pub(super) fn len(&self) -> i64 {
        self.len
    }

    /// Adds `[1, kv_heads, time, head_dim]` to a layer; gives all that there is then. [`Cache::advance`] makes it last.
    ///
    /// # Errors
    /// Not enough memory, or room; a batch of more than one.
    pub(super) fn extended(
        &mut self,
        layer: usize,
        key: &Tensor,
        value: &Tensor,
    ) -> Result<(Tensor, Tensor), TchError> {
        let time = key.size().get(2).copied().unwrap_or(0);
        self.reserve(self.len + time)?;
        let layer = self.layers.get(layer).ok_or_else(|| TchError::Shape("no such layer".into()))?;
        let add = |kept: &Tensor, new: &Tensor| {
            kept.f_narrow(2, self.len, time)?.f_copy_(new)?;
            kept.f_narrow(2, 0, self.len + time)
        };
        Ok((add(&layer.0, key)?, add(&layer.1, value)?))
    }

    /// Makes room for `wanted` tokens, in all layers.
    fn reserve(&mut self, wanted: i64) -> Result<(), TchError> {
        if wanted <= self.room {
            return Ok(());
        }
        if wanted > self.most {
            return Err(TchError::Shape(format!("{wanted} tokens, but a context of {}", self.most)));
        }
        let room = (2 * self.room).max(wanted).min(self.most);
        let grow = |old: &Tensor| {
            let mut shape = old.size();
            if let Some(length) = shape.get_mut(2) {
                *length = room;
            }
            let new = Tensor::f_zeros(&shape[..], (old.kind(), old.device()))?;
            new.f_narrow(2, 0, self.len)?.f_copy_(&old.f_narrow(2, 0, self.len)?)?;
            Ok::<_, TchError>(new)
        };
        let grown = self.layers.iter().map(|(key, value)| Ok::<_, TchError>((grow(key)?, grow(value)?)));
        self.layers = grown.collect::<Result<_, _>>()?;
        self.room = room;
        Ok(())
    }

    /// What was added counts from now on.
    pub(super) fn advance(&mut self, time: i64) {
        self.len += time;
    }

    /// Which of all tokens each of `time` further ones sees, bool `[time, all]`: itself and those before it. `None`
    /// where libtorch's own causal mask says the same (at the beginning), and where nothing is hidden (of one token).
    pub(super) fn mask(&self, time: i64) -> Result<Option<Tensor>, TchError> {
        if self.len == 0 || time == 1 {
            return Ok(None);
        }
        let device = self.layers.first().map_or(tch::Device::Cpu, |(key, _)| key.device());
        Tensor::f_ones([time, self.len + time], (Kind::Bool, device))?.f_tril(self.len).map(Some)
    }
}

/// A sequence of tokens and the model that continues it.
#[derive(Debug)]
pub(crate) struct Sequence {
    model: Llama,
    /// Of the model, in the number format of its matrix products: cast once, not for every token.
    weights: Weights,
    cache: Cache,
    /// Those that the cache knows.
    tokens: Vec<u32>,
}

impl Sequence {
    /// An empty one. The model's parameters are as they shall be: they are not changed any more.
    ///
    /// # Errors
    /// Not enough memory.
    pub(crate) fn new(model: Llama) -> Result<Self> {
        tch::no_grad(|| {
            let weights = cast(model.cut(&model.flat().f_detach()?)?, model.compute)?;
            let cache = Cache::new(&model)?;
            Ok(Self { model, weights, cache, tokens: Vec::new() })
        })
    }

    /// Most tokens that the model can look back at.
    pub(crate) fn context(&self) -> usize {
        self.model.architecture().context as usize
    }

    /// Number of token values.
    pub(crate) fn vocabulary(&self) -> u32 {
        self.model.architecture().vocabulary
    }

    /// The sequence so far, without what was let go.
    #[cfg(test)]
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Makes it this sequence, and gives the logits `[vocabulary]` of the token after it.
    ///
    /// # Errors
    /// No token or more than the context has, a token outside the vocabulary, a failure of the device. It is empty
    /// afterwards.
    pub(crate) fn set(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        ensure!(!tokens.is_empty(), "there is nothing to continue: at least one token is needed");
        let common = self.tokens.iter().zip(tokens).take_while(|(have, want)| have == want).count();
        // The last one is computed again if need be: its logits are wanted.
        let common = common.min(tokens.len() - 1);
        self.tokens.truncate(common);
        self.cache.len = common as i64;
        self.extend(tokens.get(common..).unwrap_or_default())
    }

    /// One more token: gives the logits `[vocabulary]` of the one after it.
    ///
    /// # Errors
    /// As [`Sequence::set`].
    pub(crate) fn push(&mut self, token: u32) -> Result<Vec<f32>> {
        if self.tokens.len() < self.context() {
            return self.extend(&[token]);
        }
        let from = self.tokens.len() - (self.context() / 2).max(1) + 1;
        let mut rest = self.tokens.get(from..).unwrap_or_default().to_vec();
        rest.push(token);
        self.clear();
        self.extend(&rest)
    }

    fn clear(&mut self) {
        self.tokens.clear();
        self.cache.len = 0;
    }

    fn extend(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let logits = tch::no_grad(|| self.logits(tokens));
        match &logits {
            Ok(_) => self.tokens.extend_from_slice(tokens),
            // How far it got is not known.
            Err(_) => self.clear(),
        }
        logits
    }

    /// The logits after these further tokens, which become part of the cache.
    fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let vocabulary = self.vocabulary();
        if let Some(stranger) = tokens.iter().find(|&&token| token >= vocabulary) {
            anyhow::bail!("token {stranger} is not in the model's vocabulary of {vocabulary}");
        }
        let indices: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
        let indices = Tensor::f_from_slice(&indices)?.f_view([1, tokens.len() as i64])?;
        let indices = indices.f_to_device(self.model.device())?;
        let hidden = self.model.hidden(&self.weights, &indices, Some(&mut self.cache))?;
        let last = hidden.f_narrow(0, tokens.len() as i64 - 1, 1)?;
        let logits = self.model.product(&last, &self.weights.head)?.f_to_kind(Kind::Float)?.f_view([-1])?;
        let mut values = vec![0.0; vocabulary as usize];
        let count = values.len();
        logits.f_copy_data(&mut values, count).context("the logits cannot be read")?;
        Ok(values)
    }
}

/// The matrices in another number format; gains and biases as they are.
fn cast(weights: Weights, kind: Kind) -> Result<Weights, TchError> {
    let layer = |layer: Layer| {
        Ok(Layer {
            qkv: layer.qkv.f_to_kind(kind)?,
            attention_out: layer.attention_out.f_to_kind(kind)?,
            gate_up: layer.gate_up.f_to_kind(kind)?,
            down: layer.down.f_to_kind(kind)?,
            ..layer
        })
    };
    let layers = weights.layers.into_iter().map(layer).collect::<Result<_, TchError>>()?;
    Ok(Weights { layers, head: weights.head.f_to_kind(kind)?, ..weights })
}

//! What is exported: a model, and what is said about it.

use swarm_protocol::architecture::{LlamaConfig, Parameter};

/// A model to write.
pub(crate) struct Model<'a> {
    /// Its architecture.
    pub(crate) config: &'a LlamaConfig,
    /// Its parameters in layout order.
    pub(crate) parameters: &'a [Parameter],
    /// Their values, one after another.
    pub(crate) values: &'a [f32],
    /// Its name, for people.
    pub(crate) name: &'a str,
    /// Which swarm's it is, from which round: pairs of key and value.
    pub(crate) provenance: &'a [(&'static str, String)],
    /// The `tokenizer.json` that its tokens are of; without one they are bytes.
    pub(crate) tokenizer: Option<&'a [u8]>,
}

impl Model<'_> {
    /// Each parameter with its values.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&Parameter, &[f32])> {
        let mut rest = self.values;
        self.parameters.iter().map(move |parameter| {
            let count = parameter.shape.iter().product::<usize>().min(rest.len());
            let (values, after) = rest.split_at(count);
            rest = after;
            (parameter, values)
        })
    }
}

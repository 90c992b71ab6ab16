//! What [`Demo`](super::Demo) refuses, and why.

use thiserror::Error;

/// Why a configuration, a parameter or a message was refused. Parameters and senders are named by
/// their index. Nothing has been changed when one of these is returned.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum DemoError {
    /// `k` is 0: no coefficient would ever be sent.
    #[error("k (compression_topk) must be at least 1")]
    K,
    /// `chunk` is 0.
    #[error("chunk (compression_chunk) must be at least 1")]
    Chunk,
    /// `decay` is negative, 1 or more, or NaN.
    #[error("decay (compression_decay) must be at least 0 and below 1, not {0}")]
    Decay(f64),
    /// `weight_decay` is negative, infinite or NaN, or its product with a learning rate is beyond f32.
    #[error("weight_decay must be at least 0 and, times the learning rate, within f32, not {0}")]
    WeightDecay(f64),
    /// A learning rate is negative, infinite or NaN.
    #[error("a learning rate must be finite and at least 0, not {0}")]
    LearningRate(f64),
    /// A shape that is neither `[n]` nor `[rows, cols]`, is empty, or has more than `u32::MAX` elements.
    #[error(
        "parameter {param} has shape {shape:?}; DeMo takes [n] or [rows, cols], each at least 1, \
         of at most 2^32 - 1 elements in all: reshape it first"
    )]
    Shape {
        /// Index of the parameter.
        param: usize,
        /// Its shape as given.
        shape: Vec<usize>,
    },
    /// No parameter has this index.
    #[error("there is no parameter {param}: {count} are registered")]
    UnknownParameter {
        /// The index asked for.
        param: usize,
        /// How many parameters there are.
        count: usize,
    },
    /// A slice does not have as many values as the parameter has elements.
    #[error("the {what} given for parameter {param} has {got} values, its shape has {want}")]
    Length {
        /// Index of the parameter.
        param: usize,
        /// Which slice.
        what: &'static str,
        /// Values in the slice.
        got: usize,
        /// Elements of the parameter.
        want: usize,
    },
    /// A gradient or momentum value is NaN, infinite, or so large that the transform would overflow f32.
    #[error("the {what} of parameter {param} is not finite or far too large at element {element}: {value}")]
    NotFinite {
        /// Index of the parameter.
        param: usize,
        /// Which slice.
        what: &'static str,
        /// Row-major index of the first such element.
        element: usize,
        /// The value found there.
        value: f32,
    },
    /// A sender's message has unequal numbers of indices and values.
    #[error("sender {sender} sent {indices} indices but {values} values for parameter {param}")]
    SentLength {
        /// Index of the parameter.
        param: usize,
        /// Position of the sender in the list.
        sender: usize,
        /// Indices in the message.
        indices: usize,
        /// Values in the message.
        values: usize,
    },
    /// A sender's coefficient index is not below the number of coefficients.
    #[error("sender {sender} sent coefficient {index} of parameter {param}, which has {count}")]
    SentRange {
        /// Index of the parameter.
        param: usize,
        /// Position of the sender in the list.
        sender: usize,
        /// The index.
        index: u32,
        /// Coefficients of the parameter.
        count: usize,
    },
    /// A sender's indices do not strictly ascend, so that one might count twice.
    #[error("sender {sender} sent coefficient {index} of parameter {param} twice or out of order")]
    SentOrder {
        /// Index of the parameter.
        param: usize,
        /// Position of the sender in the list.
        sender: usize,
        /// The first index that is not above the one before it.
        index: u32,
    },
    /// A sender's value is NaN or infinite.
    #[error("sender {sender} sent {value} as coefficient {index} of parameter {param}")]
    SentNotFinite {
        /// Index of the parameter.
        param: usize,
        /// Position of the sender in the list.
        sender: usize,
        /// The coefficient.
        index: u32,
        /// Its value.
        value: f32,
    },
}

//! Protocol.
pub mod architecture;

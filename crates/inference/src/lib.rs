//! Continuous batching in this process: the engine around a model, and all that it needs.
//!
//! [`LocalEngine`](local::LocalEngine) is a [`weir_engine::Engine`] around a [`Model`](model::Model). Templates, tokenizing
//! and grammars come before its one thread, which only steps; the output parser comes after it. A model's kernels stand
//! behind a trait, so that this crate has no C++, and `sim` has a simulated model that needs no file.

pub mod chat_format;
pub mod constraint;
pub mod local;
pub mod model;
pub mod prepared;
pub mod sampler;
pub mod scheduler;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod specials;
pub mod text;

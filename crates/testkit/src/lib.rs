//! Helpers for tests and measurements, which are never a part of the product: the whole service in process with simulated
//! models, nodes to be killed, and loads for servers.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

mod answer;
mod app;
pub mod load;
mod scripted;
pub mod torture;

pub use crate::answer::Answer;
pub use crate::app::{Body, NOW, Setup, StreamBody, TestApp, body, now, offer, offer_of};
pub use crate::scripted::Scripted;

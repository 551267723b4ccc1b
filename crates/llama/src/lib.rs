//! A [`Model`](weir_inference::model::Model) on llama.cpp's kernels: GGUF files on this machine's cores.
//!
//! The only crate with `unsafe` and C++. It loads a file, computes the steps that the scheduler planned, and tokenizes;
//! it knows nothing of requests, sampling or queues. Arguments for which llama.cpp would abort the process (wrong sizes,
//! ids, positions) are checked before each call; C++ exceptions are caught by a shim (`shim/weir_llama.cpp`).

#![expect(unsafe_code, reason = "FFI")]
#![deny(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block
)]

#[cfg(all(
    feature = "dispatch",
    not(all(target_arch = "x86_64", target_os = "linux"))
))]
compile_error!("kernels by processor are known for x86-64 and Linux only");

mod aside;
mod backend;
mod batch;
mod checksum;
mod cores;
mod digest;
#[cfg(any(feature = "dispatch", test))]
#[cfg_attr(
    not(feature = "dispatch"),
    expect(dead_code, unreachable_pub, reason = "only its tests call it")
)]
mod dispatch;
mod embedder;
mod estimate;
mod files;
pub mod gguf;
mod load;
mod log;
mod model;
mod options;
mod requantize;
mod shim;
mod sizes;
mod speed;
mod threads;
mod tokenizer;
mod trial;

pub use crate::backend::{check_kernels, system_info};
pub use crate::checksum::checksum_of;
#[cfg(feature = "dispatch")]
pub use crate::dispatch::{PROBE_COMMAND, PROBE_WORKS, Unfit, probe};
pub use crate::embedder::{LlamaEmbedder, Pooling};
pub use crate::estimate::{Estimate, estimate, is_embedder};
pub use crate::files::{Files, Look, Times};
pub use crate::load::{ModelFile, Served, load, open};
pub use crate::model::LlamaModel;
pub use crate::options::{
    EmbedOptions, FlashAttention, KvFormat, KvLayout, LoadError, LoadOptions, ServeOptions,
};
pub use crate::requantize::{
    Difference, KL_MEAN_MAX, RequantizeError, Requantized, SpeedOptions, for_speed,
};
pub use crate::speed::{Speed, Workload};
pub use crate::trial::{TRIAL_COMMAND, TRIAL_REFUSED, TRIAL_WORKS, try_model, try_out};

#[cfg(test)]
#[path = "../tests/support/models.rs"]
mod models;

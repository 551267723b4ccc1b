//! The commands other than `serve`.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod chat;
pub(crate) mod clock;
pub(crate) mod config_check;
pub(crate) mod credit;
pub(crate) mod doctor;
pub(crate) mod inspect;
#[cfg(feature = "dispatch")]
pub(crate) mod kernels;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod migrate;
pub(crate) mod models;
pub(crate) mod status;
#[cfg(feature = "llama")]
pub(crate) mod trial;
pub(crate) mod tune;
pub(crate) mod usage;

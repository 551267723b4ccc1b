//! What the command line does beside `serve`.

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod chat;
pub(crate) mod clock;
pub(crate) mod credit;
pub(crate) mod doctor;
#[cfg(feature = "dispatch")]
pub(crate) mod kernels;
pub(crate) mod keys;
pub(crate) mod ledger;
pub(crate) mod migrate;
pub(crate) mod models;
pub(crate) mod status;
pub(crate) mod tune;
pub(crate) mod usage;

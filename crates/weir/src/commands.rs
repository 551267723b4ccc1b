//! What the command line does beside `serve`.

pub(crate) mod accounts;
pub(crate) mod chat;
pub(crate) mod doctor;
pub(crate) mod models;

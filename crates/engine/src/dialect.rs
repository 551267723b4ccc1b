//! How a model family speaks: the text that a conversation becomes.

mod python;
mod python_json;
mod template;

pub use template::ChatTemplate;

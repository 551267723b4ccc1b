//! How a model family speaks: the text that a conversation becomes.

mod template;

pub use template::ChatTemplate;

//! How a request ended, and what it is charged for.

use jiff::Timestamp;

use crate::tokens::Counts;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settlement {
    /// The tokens to charge for.
    pub counts: Counts,
    pub outcome: Outcome,
    pub source: Source,
    pub now: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Success,
    /// The client hung up.
    Disconnected,
    EngineFailed,
    /// The hold was never settled: its process died, or was cut off from the database.
    Expired,
}

/// The origin of token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Engine,
    Upstream,
    Estimated,
}

impl Outcome {
    pub const ALL: [Outcome; 4] = [
        Outcome::Success,
        Outcome::Disconnected,
        Outcome::EngineFailed,
        Outcome::Expired,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Disconnected => "disconnected",
            Outcome::EngineFailed => "engine_failed",
            Outcome::Expired => "expired",
        }
    }
}

impl Source {
    pub const ALL: [Source; 3] = [Source::Engine, Source::Upstream, Source::Estimated];

    pub fn name(self) -> &'static str {
        match self {
            Source::Engine => "engine",
            Source::Upstream => "upstream",
            Source::Estimated => "estimated",
        }
    }
}

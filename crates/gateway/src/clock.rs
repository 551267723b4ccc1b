//! The system clock. No other place asks for the time, except for the binary.

use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;

/// Wall-clock time, for everything that is stored. Rate limits use tokio's monotonic clock instead, so a wall clock
/// that jumps neither gives extra quota nor locks callers out.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    pub fn system() -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the clock the others ask"
        )]
        Clock(Arc::new(Timestamp::now))
    }

    /// A clock for tests.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

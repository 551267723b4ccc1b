//! When something that an administrator makes is to expire.

use jiff::{SignedDuration, Timestamp};

use crate::error::AdminError;

/// When something expires, as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    At(Timestamp),
    /// From when it is done. The same length is the same thing, whenever it is asked for again.
    In(SignedDuration),
}

impl Expiry {
    pub(crate) fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Expiry::At(at) => at,
            Expiry::In(length) => now.saturating_add(length).unwrap_or(Timestamp::MAX),
        }
    }

    /// The time at which `what` expires, asked for at `now`. `lapse` is the time by which things expire: where it is
    /// another one than `now`, the clock can't be trusted, and no length of time is counted from it.
    pub(crate) fn checked(
        self,
        what: &str,
        now: Timestamp,
        lapse: Timestamp,
    ) -> Result<Timestamp, AdminError> {
        if matches!(self, Expiry::In(_)) && lapse != now {
            return Err(AdminError::untrusted_clock("expires_at"));
        }
        let at = self.after(now);
        if at <= lapse {
            let message = format!("{what} must expire later than now");
            return Err(AdminError::invalid("expires_at", message));
        }
        Ok(at)
    }

    /// The same text for the same thing asked for again.
    pub(crate) fn asked(self) -> String {
        match self {
            Expiry::At(at) => at.to_string(),
            Expiry::In(length) => format!("in {} s", length.as_secs()),
        }
    }
}

impl From<Timestamp> for Expiry {
    fn from(at: Timestamp) -> Self {
        Expiry::At(at)
    }
}

//! Limits for the bytes of bodies that are in memory at once: for one key, and for all keys together.
//!
//! Bodies of requests count while they are read and parsed, answers to uncharged requests while they are sent. A key
//! that sends forty bodies of 14 MB and never finishes one can use up its own limit, and no more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use weir_accounts::KeyId;

use crate::error::{ApiError, Reason};

/// `Retry-After`: by then other bodies may have been read.
const RETRY: Duration = Duration::from_secs(1);

/// The counts of all keys. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct BytesInFlight(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    per_key_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    keys: HashMap<KeyId, usize>,
}

/// A number of bytes that count for a key until this is dropped.
#[derive(Debug)]
pub(crate) struct Claim {
    of: BytesInFlight,
    key: KeyId,
    bytes: usize,
}

/// The limit that doesn't allow more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TooManyBytes {
    OfKey { max: usize },
    OfAll,
}

impl BytesInFlight {
    pub(crate) fn new(max: usize, per_key_max: usize) -> Self {
        BytesInFlight(Arc::new(Inner {
            max,
            per_key_max,
            state: Mutex::default(),
        }))
    }

    /// A new claim, of 0 bytes.
    pub(crate) fn claim(&self, key: &KeyId) -> Claim {
        Claim {
            of: self.clone(),
            key: key.clone(),
            bytes: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Adds `more` bytes to the claim, or fails without adding any.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), TooManyBytes> {
        let Inner {
            max, per_key_max, ..
        } = *self.of.0;
        let mut state = self.of.lock();
        let of_key = state.keys.get(&self.key).copied().unwrap_or(0);
        if more > per_key_max.saturating_sub(of_key) {
            return Err(TooManyBytes::OfKey { max: per_key_max });
        }
        if more > max.saturating_sub(state.all) {
            return Err(TooManyBytes::OfAll);
        }
        state.all += more;
        state.keys.insert(self.key.clone(), of_key + more);
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut state = self.of.lock();
        state.all -= self.bytes;
        if let Some(of_key) = state.keys.get_mut(&self.key) {
            *of_key -= self.bytes;
            if *of_key == 0 {
                state.keys.remove(&self.key);
            }
        }
    }
}

impl From<TooManyBytes> for ApiError {
    fn from(too_many: TooManyBytes) -> Self {
        let error = match too_many {
            TooManyBytes::OfKey { max } => ApiError::new(
                Reason::KeyBytesInFlight,
                format!(
                    "rate limit exceeded: more than {max} bytes of this key's requests are in flight"
                ),
            ),
            TooManyBytes::OfAll => ApiError::new(
                Reason::BytesInFlight,
                "the service is overloaded: too many bytes of requests are in flight",
            ),
        };
        error.retry_after(RETRY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> KeyId {
        KeyId::from(name.to_owned())
    }

    #[test]
    fn bytes_count_until_their_claim_is_dropped() {
        let bytes = BytesInFlight::new(100, 60);
        let (mut one, mut two) = (bytes.claim(&key("a")), bytes.claim(&key("a")));
        assert_eq!(one.grow(50), Ok(()));
        assert_eq!(two.grow(11), Err(TooManyBytes::OfKey { max: 60 }));
        assert_eq!(two.grow(10), Ok(()));
        let mut other = bytes.claim(&key("b"));
        assert_eq!(other.grow(41), Err(TooManyBytes::OfAll));
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!(one.grow(0), Ok(()));
        drop(one);
        assert_eq!(two.grow(50), Ok(()));
        drop((two, other));
        let state = bytes.lock();
        assert_eq!((state.all, state.keys.len()), (0, 0));
    }
}

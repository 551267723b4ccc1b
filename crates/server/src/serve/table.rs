//! The table of open connections: it gives each client a share, and closes idle connections when others need a place.
//!
//! A connection is idle while no request runs on it. It keeps its place only until another connection needs one. When
//! all places are taken, the longest idle connection is closed, those without a valid key first. When a request runs on
//! every connection, a reserve is left, whose connections serve a single request: health checks, short answers, and a
//! few callers with a key. For the reasons see `docs/decisions/0031-who-makes-room.md`.

mod kinds;
mod place;
mod shares;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::kinds::CLOSING_MAX;
pub(crate) use self::kinds::{PlaceKind, ReserveIsFull, TableLimits};
pub(crate) use self::place::{Place, RequestGuard};
use self::state::State;
use super::client::ClientAddress;

/// The table of all connections. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: TableLimits,
    state: Mutex<State>,
    /// Notified when a place may have become free, or idle.
    changed: Notify,
}

/// The outcome for a connection that was accepted.
#[derive(Debug)]
enum Entered {
    At(Place),
    /// Wait until a closing connection has ended, or a connection becomes idle.
    Wait,
    /// Close the connection at once: enough others are being turned away, or closing.
    Dropped,
}

impl ConnectionTable {
    pub(crate) fn new(limits: TableLimits) -> Self {
        ConnectionTable(Arc::new(Inner {
            limits,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Waits for a place for an accepted connection. `None` if the connection has to be closed at once.
    pub(crate) async fn enter(&self, address: Option<ClientAddress>) -> Option<Place> {
        loop {
            match self.try_enter(address) {
                Entered::At(place) => return Some(place),
                Entered::Dropped => return None,
                // If the table changed since the attempt, `Notify` has stored a permit, and this returns at once.
                Entered::Wait => self.0.changed.notified().await,
            }
        }
    }

    fn try_enter(&self, address: Option<ClientAddress>) -> Entered {
        let mut state = self.lock();
        if let Some(address) = address
            && state.shares.of(address) >= self.0.limits.per_address_max
        {
            // An address that exceeds its share closes its own idle connections first; other clients aren't affected.
            match state.shares.longest_idle(address) {
                None => return self.turn_away(&mut state),
                Some(_) if state.closing() >= CLOSING_MAX => return Entered::Dropped,
                Some(idle) => state.close(idle),
            }
            state.warn(
                Some(address),
                "an address has as many connections as it may have",
            );
        }
        for kind in [PlaceKind::Ordinary, PlaceKind::Reserve] {
            let pool = state.pool(kind);
            if pool.counted() < self.0.limits.of(kind) {
                return Entered::At(self.place(&mut state, kind, address));
            }
            let Some(idle) = pool.longest_idle() else {
                continue;
            };
            if pool.closing >= CLOSING_MAX {
                return Entered::Wait;
            }
            state.close(idle);
            state.warn(None, "all connections are taken: idle ones are closed");
            return Entered::At(self.place(&mut state, kind, address));
        }
        state.warn(
            None,
            "a request runs on each connection: more wait to be accepted",
        );
        Entered::Wait
    }

    fn turn_away(&self, state: &mut State) -> Entered {
        let kind = PlaceKind::TurnedAway;
        match state.pool(kind).counted() < self.0.limits.of(kind) {
            true => Entered::At(self.place(state, kind, None)),
            false => Entered::Dropped,
        }
    }

    fn place(&self, state: &mut State, kind: PlaceKind, address: Option<ClientAddress>) -> Place {
        let close = CancellationToken::new();
        let id = state.add(kind, address, close.clone());
        Place::new(self.clone(), id, kind, close)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held; if something did, a count would be off by one.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;

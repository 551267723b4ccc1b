//! Which connections may be open: a share for each client, and no way for idle ones to keep others out.
//!
//! A connection on which no request runs is idle: it holds a place only as long as nobody else needs one. When all
//! places are taken, the idle connection that nobody has used for longest is closed, those without a valid key first.
//! When a request runs on each of them, a reserve is left, whose connections serve one request: health checks, short
//! answers, and a few callers with a key. Reasons: `docs/decisions/0031-who-makes-room.md`.

mod place;
mod shares;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use self::place::{Place, RequestGuard};
use self::state::{ConnectionId, State, Turn};
use super::client::ClientAddress;

/// Connections beyond all others that are told that their address has too many.
const TURNED_AWAY_MAX: usize = 64;
/// Connections beyond all others of their kind that were told to end and haven't yet: a client that takes nothing of its
/// last answer must not keep others waiting.
const CLOSING_MAX: usize = 64;

/// The numbers of connections that there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableLimits {
    connections_max: usize,
    per_address_max: usize,
    /// The part of `connections_max` that is kept for when a request runs on all others.
    reserve: usize,
}

impl TableLimits {
    /// A reserve of more than a quarter would leave too little for everything else.
    pub(crate) fn new(connections_max: usize, per_address_max: usize, reserve: usize) -> Self {
        TableLimits {
            connections_max,
            per_address_max: per_address_max.max(1),
            reserve: reserve.min(connections_max / 4),
        }
    }

    fn of(&self, kind: PlaceKind) -> usize {
        match kind {
            PlaceKind::Ordinary => self.connections_max - self.reserve,
            PlaceKind::Reserve => self.reserve,
            PlaceKind::TurnedAway => TURNED_AWAY_MAX,
        }
    }

    /// Requests of callers with a key that may run in the reserve; the rest is for answers that are short.
    fn reserve_callers(&self) -> usize {
        self.reserve / 2
    }

    fn reserve_of_account(&self) -> usize {
        (self.reserve / 8).max(1)
    }
}

/// The kind of a connection's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    Ordinary,
    /// Serves one request, then ends.
    Reserve,
    /// Its address has all that it may have: it is told so, then ends.
    TurnedAway,
}

/// Why a caller with a key can't be served on its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReserveIsFull;

/// Why a client can't have another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareIsTaken;

/// All connections. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionTable(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: TableLimits,
    state: Mutex<State>,
    /// A place may have become free, or idle.
    changed: Notify,
}

/// The outcome for a connection that was accepted.
#[derive(Debug)]
enum Entered {
    At(Place),
    /// Until a connection that is closing has ended, or a connection becomes idle.
    Wait,
    /// The connection is closed at once: enough others are being turned away.
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

    /// A place for a connection that was accepted, when there is one; `None` if it is to be closed at once.
    pub(crate) async fn enter(&self, address: Option<ClientAddress>) -> Option<Place> {
        loop {
            match self.try_enter(address) {
                Entered::At(place) => return Some(place),
                Entered::Dropped => return None,
                // A change since the try has left a permit here.
                Entered::Wait => self.0.changed.notified().await,
            }
        }
    }

    fn try_enter(&self, address: Option<ClientAddress>) -> Entered {
        let mut state = self.lock();
        if let Some(address) = address
            && state.shares.of(address) >= self.0.limits.per_address_max
        {
            // Its own idle connections are the first to go; others don't suffer for them.
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
        // Nothing panics while the lock is held; if it did, a count would be off by one.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;

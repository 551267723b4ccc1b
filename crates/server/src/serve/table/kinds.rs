//! The kinds of places in the table, how many there are, and why one is refused.

/// Most additional connections that are open only to answer that their address has too many.
pub(super) const TURNED_AWAY_MAX: usize = 64;

/// Most additional connections of each kind that were told to end and haven't yet. Without them, clients that don't
/// read their last answer would keep new connections waiting.
pub(super) const CLOSING_MAX: usize = 64;

/// The limits of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableLimits {
    pub(super) connections_max: usize,
    pub(super) per_address_max: usize,
    /// The part of `connections_max` that is kept for when a request runs on every other connection.
    pub(super) reserve: usize,
}

impl TableLimits {
    /// The reserve is at most a quarter of all connections, since more would leave too few for everything else.
    pub(crate) fn new(connections_max: usize, per_address_max: usize, reserve: usize) -> Self {
        TableLimits {
            connections_max,
            per_address_max: per_address_max.max(1),
            reserve: reserve.min(connections_max / 4),
        }
    }

    pub(super) fn of(&self, kind: PlaceKind) -> usize {
        match kind {
            PlaceKind::Ordinary => self.connections_max - self.reserve,
            PlaceKind::Reserve => self.reserve,
            PlaceKind::TurnedAway => TURNED_AWAY_MAX,
        }
    }

    /// Most requests of callers with a key that may run in the reserve; the rest is for short answers.
    pub(super) fn reserve_callers(&self) -> usize {
        self.reserve / 2
    }

    pub(super) fn reserve_of_account(&self) -> usize {
        (self.reserve / 8).max(1)
    }
}

/// The kind of place that a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaceKind {
    Ordinary,
    /// The connection serves one request, then ends.
    Reserve,
    /// The connection's address has its full share of connections: it gets an answer that says so, then ends.
    TurnedAway,
}

/// A caller with a key can't be served on its connection, since the reserve's places for such callers are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReserveIsFull;

/// The client can't have another request, since its share is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareIsTaken;

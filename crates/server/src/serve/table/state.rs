//! The state of the table: its connections, in the order in which they are closed.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_accounts::AccountId;

use super::kinds::{PlaceKind, ReserveIsFull, TableLimits};
use super::shares::Shares;
use crate::serve::client::ClientAddress;

/// Shortest time between two warnings that connections are scarce.
const WARN_EVERY: Duration = Duration::from_mins(1);

pub(super) type ConnectionId = u64;
/// Logical time, one more with each change.
pub(super) type Turn = u64;

#[derive(Debug, Default)]
pub(super) struct State {
    last_id: ConnectionId,
    last_turn: Turn,
    connections: HashMap<ConnectionId, Connection>,
    ordinary: Pool,
    reserve: Pool,
    turned_away: Pool,
    pub(super) shares: Shares,
    /// Number of requests of callers with a key in the reserve, by account.
    reserve_callers: HashMap<AccountId, usize>,
    warned_at: Option<Instant>,
}

/// The connections of one kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pool {
    open: usize,
    /// The part of `open` that was told to end and hasn't yet.
    pub(super) closing: usize,
    /// The idle connections, in the order in which they are closed.
    idle: BTreeSet<IdleKey>,
}

/// The order of closing: connections that never had a valid key first, then those that have been idle for longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct IdleKey {
    keyed: bool,
    since: Turn,
    id: ConnectionId,
}

#[derive(Debug)]
struct Connection {
    kind: PlaceKind,
    /// `None` for connections of trusted proxies.
    address: Option<ClientAddress>,
    since: Turn,
    keyed: bool,
    /// Whether a request is running on it: in HTTP/1.1 one at most.
    busy: bool,
    /// Whether the connection was told to end and no request has come since.
    closing: bool,
    /// The account that counts in `reserve_callers` because of this connection.
    reserve_caller: Option<AccountId>,
    close: CancellationToken,
}

impl Pool {
    /// Number of connections that count against the limit: all except those that were told to end.
    pub(super) fn counted(&self) -> usize {
        self.open - self.closing
    }

    pub(super) fn longest_idle(&self) -> Option<ConnectionId> {
        self.idle.first().map(|key| key.id)
    }
}

impl Connection {
    fn idle_key(&self, id: ConnectionId) -> IdleKey {
        IdleKey {
            keyed: self.keyed,
            since: self.since,
            id,
        }
    }
}

impl State {
    pub(super) fn pool(&mut self, kind: PlaceKind) -> &mut Pool {
        match kind {
            PlaceKind::Ordinary => &mut self.ordinary,
            PlaceKind::Reserve => &mut self.reserve,
            PlaceKind::TurnedAway => &mut self.turned_away,
        }
    }

    /// Number of connections of all kinds that were told to end and haven't yet.
    pub(super) fn closing(&self) -> usize {
        self.ordinary.closing + self.reserve.closing
    }

    pub(super) fn is_busy(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|connection| connection.busy)
    }

    /// Adds a new connection, which is idle until its first request.
    pub(super) fn add(
        &mut self,
        kind: PlaceKind,
        address: Option<ClientAddress>,
        close: CancellationToken,
    ) -> ConnectionId {
        self.last_id += 1;
        let id = self.last_id;
        self.pool(kind).open += 1;
        if let Some(address) = address {
            self.shares.add(address);
        }
        let connection = Connection {
            kind,
            address,
            since: self.turn(),
            keyed: false,
            busy: false,
            closing: false,
            reserve_caller: None,
            close,
        };
        self.connections.insert(id, connection);
        self.set_idle(id);
        id
    }

    /// Removes a connection that has ended.
    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.set_not_idle(id);
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        let pool = self.pool(connection.kind);
        pool.open -= 1;
        pool.closing -= usize::from(connection.closing);
        if let Some(address) = connection.address {
            self.shares.remove(address);
        }
        if let Some(account) = connection.reserve_caller
            && let Some(count) = self.reserve_callers.get_mut(&account)
        {
            *count -= 1;
            if *count == 0 {
                self.reserve_callers.remove(&account);
            }
        }
    }

    /// Tells an idle connection to end. From now on it counts neither against the limit nor against its address's
    /// share.
    pub(super) fn close(&mut self, id: ConnectionId) {
        self.set_not_idle(id);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.closing = true;
        connection.close.cancel();
        let (kind, address) = (connection.kind, connection.address.take());
        self.pool(kind).closing += 1;
        if let Some(address) = address {
            self.shares.remove(address);
        }
    }

    /// Marks a connection as busy with a request. If it was told to end, it counts again until it ends, after the
    /// request.
    pub(super) fn begin(&mut self, id: ConnectionId) {
        self.set_not_idle(id);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.busy = true;
        let (kind, closing) = (connection.kind, std::mem::take(&mut connection.closing));
        self.pool(kind).closing -= usize::from(closing);
    }

    /// Marks a connection as idle after its request, unless it was told to end.
    pub(super) fn end(&mut self, id: ConnectionId) {
        let since = self.turn();
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.busy = false;
        connection.since = since;
        if !connection.close.is_cancelled() {
            self.set_idle(id);
        }
    }

    /// Notes that the connection's request has a valid key of this account. Fails if the connection is in the reserve
    /// and too many callers with a key are served there.
    pub(super) fn has_key(
        &mut self,
        id: ConnectionId,
        account: &AccountId,
        limits: &TableLimits,
    ) -> Result<(), ReserveIsFull> {
        let reserve = |connection: &Connection| connection.kind == PlaceKind::Reserve;
        let in_reserve = self.connections.get(&id).is_some_and(reserve);
        if in_reserve {
            let all: usize = self.reserve_callers.values().sum();
            let of_account = self.reserve_callers.get(account).copied().unwrap_or(0);
            if all >= limits.reserve_callers() || of_account >= limits.reserve_of_account() {
                return Err(ReserveIsFull);
            }
        }
        // A key changes the connection's position in the order of closing, so it is removed first.
        let idle = self.set_not_idle(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.keyed = true;
            if in_reserve && connection.reserve_caller.is_none() {
                connection.reserve_caller = Some(account.clone());
                *self.reserve_callers.entry(account.clone()).or_default() += 1;
            }
        }
        if idle {
            self.set_idle(id);
        }
        Ok(())
    }

    /// Logs a warning, at most once a minute.
    pub(super) fn warn(&mut self, address: Option<ClientAddress>, what: &'static str) {
        let now = Instant::now();
        let due = |at| now.duration_since(at) >= WARN_EVERY;
        if self.warned_at.is_none_or(due) {
            self.warned_at = Some(now);
            let connections = self.connections.len();
            let address = address.map(tracing::field::display);
            tracing::warn!(connections, address, "{what}");
        }
    }

    fn turn(&mut self) -> Turn {
        self.last_turn += 1;
        self.last_turn
    }

    fn set_idle(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let (kind, key, address) = (connection.kind, connection.idle_key(id), connection.address);
        // Connections that are being turned away don't take places that others could use.
        if kind != PlaceKind::TurnedAway {
            self.pool(kind).idle.insert(key);
        }
        if let Some(address) = address {
            self.shares.set_idle(address, (key.since, id));
        }
    }

    /// Returns whether the connection was idle.
    fn set_not_idle(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        let (kind, key, address) = (connection.kind, connection.idle_key(id), connection.address);
        if let Some(address) = address {
            self.shares.set_not_idle(address, (key.since, id));
        }
        self.pool(kind).idle.remove(&key)
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.ordinary.idle.len() + self.reserve.idle.len()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let pools = [&self.ordinary, &self.reserve, &self.turned_away];
        pools.into_iter().all(|pool| *pool == Pool::default())
            && self.connections.is_empty()
            && self.shares.is_empty()
            && self.reserve_callers.is_empty()
    }
}

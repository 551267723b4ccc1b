//! A connection's place in the table, and the events on the connection that change it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_accounts::AccountId;

use super::ConnectionTable;
use super::kinds::{PlaceKind, ReserveIsFull, ShareIsTaken};
use super::state::ConnectionId;
use crate::serve::client::ClientAddress;

/// A connection's place. It is freed when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    table: ConnectionTable,
    id: ConnectionId,
    kind: PlaceKind,
    close: CancellationToken,
}

/// Marks the connection as busy: its request runs until the guard is dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard {
    place: Place,
    /// The client that a trusted proxy forwards for.
    forwarded: Option<ClientAddress>,
}

impl Place {
    pub(super) fn new(
        table: ConnectionTable,
        id: ConnectionId,
        kind: PlaceKind,
        close: CancellationToken,
    ) -> Self {
        Place(Arc::new(Taken {
            table,
            id,
            kind,
            close,
        }))
    }

    pub(crate) fn kind(&self) -> PlaceKind {
        self.0.kind
    }

    /// Waits until another connection needs the place.
    pub(crate) async fn is_needed(&self) {
        self.0.close.cancelled().await;
    }

    #[cfg(test)]
    pub(super) fn close_is_wanted(&self) -> bool {
        self.0.close.is_cancelled()
    }

    /// Whether a request is running on the connection.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.table.lock().is_busy(self.0.id)
    }

    /// Registers a new request. `forwarded` is the client if a trusted proxy forwards the request; it counts against
    /// the client's share like a connection of its own. The guard is returned even if the share is used up, so that the
    /// refusal can be sent.
    pub(crate) fn request(
        &self,
        forwarded: Option<ClientAddress>,
    ) -> (RequestGuard, Result<(), ShareIsTaken>) {
        let table = &self.0.table;
        let mut state = table.lock();
        state.begin(self.0.id);
        let taken = |client| state.shares.of(client) >= table.0.limits.per_address_max;
        let share = match forwarded.is_some_and(taken) {
            true => Err(ShareIsTaken),
            false => Ok(()),
        };
        let forwarded = forwarded.filter(|_| share.is_ok());
        if let Some(client) = forwarded {
            state.shares.add(client);
        }
        let guard = RequestGuard {
            place: self.clone(),
            forwarded,
        };
        (guard, share)
    }

    /// Notes that the request has a valid key of this account.
    pub(crate) fn has_key(&self, account: &AccountId) -> Result<(), ReserveIsFull> {
        let table = &self.0.table;
        table.lock().has_key(self.0.id, account, &table.0.limits)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let Taken { table, id, .. } = &*self.place.0;
        let mut state = table.lock();
        if let Some(client) = self.forwarded {
            state.shares.remove(client);
        }
        state.end(*id);
        drop(state);
        table.changed();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.table.lock().remove(self.id);
        self.table.changed();
    }
}

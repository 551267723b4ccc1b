//! The number of each client's connections and of its requests forwarded by proxies.

use std::collections::{BTreeSet, HashMap};

use super::state::{ConnectionId, Turn};
use crate::serve::client::ClientAddress;

#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<ClientAddress, Share>);

#[derive(Debug, Default)]
struct Share {
    count: usize,
    idle: BTreeSet<(Turn, ConnectionId)>,
}

impl Shares {
    pub(super) fn of(&self, address: ClientAddress) -> usize {
        self.0.get(&address).map_or(0, |share| share.count)
    }

    pub(super) fn longest_idle(&self, address: ClientAddress) -> Option<ConnectionId> {
        let (_, id) = self.0.get(&address)?.idle.first()?;
        Some(*id)
    }

    pub(super) fn add(&mut self, address: ClientAddress) {
        self.0.entry(address).or_default().count += 1;
    }

    /// An address with a count of 0 is removed.
    pub(super) fn remove(&mut self, address: ClientAddress) {
        if let Some(share) = self.0.get_mut(&address) {
            share.count -= 1;
            if share.count == 0 {
                self.0.remove(&address);
            }
        }
    }

    pub(super) fn set_idle(&mut self, address: ClientAddress, connection: (Turn, ConnectionId)) {
        if let Some(share) = self.0.get_mut(&address) {
            share.idle.insert(connection);
        }
    }

    pub(super) fn set_not_idle(
        &mut self,
        address: ClientAddress,
        connection: (Turn, ConnectionId),
    ) {
        if let Some(share) = self.0.get_mut(&address) {
            share.idle.remove(&connection);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

//! Limits the number of open connections. One whose request does not arrive makes room for others, and the probes are
//! answered when all other places are taken.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Half of the files that a process may usually open.
pub const MAX_CONNECTIONS: usize = 512;

/// Extra connections, reserved for probes.
const PROBE_CONNECTIONS: usize = 32;

/// The connections that are open. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    tickets: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    address: IpAddr,
    /// The ticket drawn when it began to wait for a request; `None`: the request is being answered.
    waits_since: Option<u64>,
    close: CancellationToken,
}

/// The place of one connection, until this is dropped.
#[derive(Debug)]
pub struct ConnectionPermit {
    connections: Connections,
    id: u64,
    /// Cancelled when another connection needs the place.
    pub close: CancellationToken,
    /// No other requests than probes are answered on it.
    pub for_probes: bool,
}

impl Connections {
    /// A place for a connection of an address that may have `share` of them; `None`: hang up.
    pub fn admit(&self, address: IpAddr, share: usize) -> Option<ConnectionPermit> {
        let mut table = self.0.lock();
        let own = table.open.values().filter(|open| open.address == address).count();
        if own >= share && !table.close_oldest(|open| open.address == address) {
            return None;
        }
        if table.open.len() >= MAX_CONNECTIONS {
            table.close_oldest(|_| true);
        }
        if table.open.len() >= MAX_CONNECTIONS + PROBE_CONNECTIONS {
            return None;
        }
        let for_probes = table.open.len() >= MAX_CONNECTIONS;
        let (id, close) = (table.ticket(), CancellationToken::new());
        table.open.insert(id, Open { address, waits_since: Some(id), close: close.clone() });
        Some(ConnectionPermit { connections: self.clone(), id, close, for_probes })
    }
}

impl Table {
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Frees the place of the connection that has waited longest for a request; false: all are being answered.
    fn close_oldest(&mut self, of: impl Fn(&Open) -> bool) -> bool {
        let waiting = self.open.iter().filter(|(_, open)| of(open));
        let oldest = waiting.filter_map(|(id, open)| Some((open.waits_since?, *id))).min();
        let Some(open) = oldest.and_then(|(_, id)| self.open.remove(&id)) else {
            return false;
        };
        open.close.cancel();
        true
    }
}

impl ConnectionPermit {
    /// A whole request has arrived.
    pub fn arrived(&self) {
        if let Some(open) = self.connections.0.lock().open.get_mut(&self.id) {
            open.waits_since = None;
        }
    }

    /// The next request may come.
    pub fn waits(&self) {
        let mut table = self.connections.0.lock();
        let ticket = table.ticket();
        if let Some(open) = table.open.get_mut(&self.id) {
            open.waits_since = Some(ticket);
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.0.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn the_oldest_incomplete_request_is_closed() {
        let connections = Connections::default();
        let mut places: Vec<ConnectionPermit> =
            (0..MAX_CONNECTIONS).filter_map(|number| connections.admit(address((number % 250) as u8), 128)).collect();
        assert_eq!(places.len(), MAX_CONNECTIONS);
        places[0].arrived();
        let next = connections.admit(address(251), 128).unwrap();
        assert!(!next.for_probes && places[1].close.is_cancelled() && !places[0].close.is_cancelled());
        drop(places.remove(1));
        places.iter().for_each(ConnectionPermit::arrived);
        next.arrived();
        let probes: Vec<ConnectionPermit> =
            (0..PROBE_CONNECTIONS).filter_map(|_| connections.admit(address(252), 128)).collect();
        assert!(probes[0].for_probes);
    }

    #[test]
    fn an_address_has_its_share() {
        let connections = Connections::default();
        let places: Vec<ConnectionPermit> = (0..3).filter_map(|_| connections.admit(address(1), 3)).collect();
        places[1].arrived();
        let another = connections.admit(address(1), 3).unwrap();
        assert!(places[0].close.is_cancelled());
        another.arrived();
        places[2].arrived();
        assert!(connections.admit(address(1), 3).is_none(), "each connection of the address is being answered");
        assert!(connections.admit(address(2), 3).is_some());
    }
}

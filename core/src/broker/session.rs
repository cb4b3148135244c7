//! Who is connected: the list of the console, and the rule that the newest of two equal ids stays.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::topic::wall;

/// What a connection is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    Producer,
    Consumer,
    /// A consumer of the DPMQ front, which has a list of its own.
    DpmqConsumer,
}

/// A logged-in connection.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) role: Role,
    pub(super) topic: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) ip: IpAddr,
    pub(super) joined: i64,
    /// Cancelled when a newer connection took its id.
    pub(super) replaced: CancellationToken,
}

type Key = (Role, Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Table {
    /// By number, which is the order of joining.
    sessions: BTreeMap<u64, Session>,
    numbers: HashMap<Key, u64>,
    last: u64,
}

/// All logged-in connections.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Table>);

/// A connection's place in the list; dropping it takes it out.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) number: u64,
    /// The number of the connection that this one replaced.
    pub(super) before: Option<u64>,
    pub(super) replaced: CancellationToken,
    key: Key,
    sessions: Arc<Sessions>,
}

impl Sessions {
    /// Adds a connection. An older one with the same role, topic and id is told to go.
    pub(super) fn join(
        self: &Arc<Sessions>,
        role: Role,
        topic: &Arc<str>,
        id: &Arc<str>,
        ip: IpAddr,
    ) -> Seat {
        let key = (role, Arc::clone(topic), Arc::clone(id));
        let replaced = CancellationToken::new();
        let session = Session {
            role,
            topic: Arc::clone(topic),
            id: Arc::clone(id),
            ip,
            joined: wall(),
            replaced: replaced.clone(),
        };
        let mut table = self.0.lock();
        table.last += 1;
        let number = table.last;
        let before = table.numbers.insert(key.clone(), number);
        let older = before.and_then(|before| table.sessions.remove(&before));
        table.sessions.insert(number, session);
        drop(table);
        if let Some(older) = older {
            older.replaced.cancel();
        }
        Seat { number, before, replaced, key, sessions: Arc::clone(self) }
    }

    /// The connections of a role in order of joining.
    pub(super) fn list(&self, role: Role) -> Vec<Session> {
        self.0.lock().sessions.values().filter(|session| session.role == role).cloned().collect()
    }

    /// The consumers of all fronts in order of joining.
    pub(super) fn consumers(&self) -> Vec<Session> {
        self.0.lock().sessions.values().filter(|session| session.role != Role::Producer).cloned().collect()
    }

    /// How many connections of a role there are.
    pub(super) fn count(&self, role: Role) -> usize {
        self.0.lock().sessions.values().filter(|session| session.role == role).count()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.sessions.0.lock();
        table.sessions.remove(&self.number);
        if table.numbers.get(&self.key) == Some(&self.number) {
            table.numbers.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn the_newest_of_equal_ids_stays() {
        let sessions = Arc::new(Sessions::default());
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let (topic, id): (Arc<str>, Arc<str>) = (Arc::from("t"), Arc::from("c"));
        let first = sessions.join(Role::Consumer, &topic, &id, ip);
        let producer = sessions.join(Role::Producer, &topic, &id, ip);
        let second = sessions.join(Role::Consumer, &topic, &id, ip);
        assert!(first.replaced.is_cancelled());
        assert!(!second.replaced.is_cancelled() && !producer.replaced.is_cancelled());
        assert_eq!(second.before, Some(first.number));
        drop(first);
        assert_eq!(sessions.count(Role::Consumer), 1);
        drop(second);
        assert_eq!((sessions.count(Role::Consumer), sessions.count(Role::Producer)), (0, 1));
        assert_eq!(sessions.join(Role::Consumer, &topic, &id, ip).before, None);
    }
}

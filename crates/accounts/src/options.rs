//! How the database is opened.

use std::time::Duration;

use crate::db::Location;
use crate::lease::Uptime;
use crate::spill::SpillOptions;

/// The kind of process that opens the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Serves requests. On SQLite only one server at a time: a lock on the database's file keeps a second one off.
    Server,
    /// The command line: may read and write beside a running server.
    Tool,
    /// Only reads: beside a running server, or a backup on a read-only disk. Creates and changes nothing.
    Reader,
}

#[derive(Debug, Clone)]
pub struct Options {
    pub database: Location,
    pub role: Role,
    /// The node's name in the rows of its holds; each process appends random characters to it.
    pub node: String,
    /// The longest wait: on SQLite for another process's write lock or a free reading connection, on PostgreSQL for a
    /// connection and for a statement's answer.
    pub timeout: Duration,
    /// The number of reading connections beside the writer's own, on PostgreSQL.
    pub readers_max: u32,
    /// The time after which a node of a shared PostgreSQL that doesn't renew its lease is dead: another node then ends
    /// its holds.
    pub node_silence: Duration,
    /// The clock that leases are measured by.
    pub uptime: Uptime,
    /// Where a server notes the ends of requests while the database can't be written. `None` notes them nowhere.
    pub spill: Option<SpillOptions>,
    /// The capacity of the writer's queue, in operations. When it is full, a new hold is refused, and other writes
    /// wait.
    pub queue: usize,
}

impl Options {
    pub fn new(database: impl Into<Location>, role: Role) -> Self {
        Options {
            database: database.into(),
            role,
            node: "local".to_owned(),
            timeout: Duration::from_secs(5),
            readers_max: 8,
            node_silence: Duration::from_secs(30),
            uptime: Uptime::system(),
            spill: None,
            queue: 4096,
        }
    }
}

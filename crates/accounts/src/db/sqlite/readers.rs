//! Connections that only read, on threads where blocking is allowed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::types::Value as Owned;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::db::sqlite::{Connection, Database};
use crate::db::{Row, StoreError, Value};

/// The number of connections that read beside the writer's.
const READERS_MAX: usize = 4;

#[derive(Debug, Clone)]
pub(crate) struct Readers(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    database: Database,
    idle: Mutex<Vec<Connection>>,
    /// A permit for each connection that may be in use.
    free: Arc<Semaphore>,
    reading: TaskTracker,
}

impl Readers {
    pub(super) fn new(database: Database) -> Self {
        Readers(Arc::new(Pool {
            database,
            idle: Mutex::default(),
            free: Arc::new(Semaphore::new(READERS_MAX)),
            reading: TaskTracker::new(),
        }))
    }

    pub(in crate::db) async fn rows(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let pool = Arc::clone(&self.0);
        let free = Arc::clone(&pool.free).acquire_owned();
        let Ok(permit) = tokio::time::timeout(pool.database.timeout, free).await else {
            return Err(StoreError::contradiction("no connection is free to read"));
        };
        let permit = permit.map_err(|_| StoreError::closed())?;
        let values: Vec<_> = values.iter().copied().map(Owned::from).collect();
        let reading = self.0.reading.spawn_blocking(move || {
            let answer = pool.read(sql, &values);
            // Released only once the connection is back in the pool, even if the caller has gone.
            drop(permit);
            answer
        });
        reading
            .await
            .unwrap_or_else(|error| Err(StoreError::contradiction(error.to_string())))
    }

    pub(in crate::db) async fn close(&self) {
        self.0.free.close();
        self.0.reading.close();
        self.0.reading.wait().await;
        self.0.idle().clear();
    }
}

impl Pool {
    fn read(&self, sql: &'static str, values: &[Owned]) -> Result<Vec<Row>, StoreError> {
        self.database.check_place()?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let connection = self.database.connect()?;
                connection.only_read()?;
                connection
            }
        };
        let answer = connection.rows(sql, values);
        if answer.is_ok() {
            self.idle().push(connection);
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! PostgreSQL: several processes may serve from one database.

use std::fmt;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::pool::PoolOptions;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgPool, Postgres,
};
use sqlx::{ConnectOptions, Connection as _};

use crate::db::error::{Kind, Trouble};
use crate::db::postgres_url::{PostgresUrl, parse, shown};
use crate::db::{Column, Row, StoreError, Value};

/// The migrations, forward only: as many as those of SQLite.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../../migrations/postgres/0001_ledger.sql"),
    include_str!("../../migrations/postgres/0002_node.sql"),
    include_str!("../../migrations/postgres/0003_keys_and_accounts.sql"),
    include_str!("../../migrations/postgres/0004_webhooks.sql"),
    include_str!("../../migrations/postgres/0005_retention.sql"),
    include_str!("../../migrations/postgres/0006_key_idempotency.sql"),
    include_str!("../../migrations/postgres/0007_model_limits.sql"),
    include_str!("../../migrations/postgres/0008_guards.sql"),
    include_str!("../../migrations/postgres/0009_deleted_accounts.sql"),
    include_str!("../../migrations/postgres/0010_probe.sql"),
];
/// PostgreSQL ends a slow statement itself (`statement_timeout`) and says why; this side waits this much longer for that
/// answer.
const HEAD_START: Duration = Duration::from_secs(1);
pub(super) const CLOCK_MS: &str =
    "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
/// Takes the advisory lock that a process holds while it migrates. The number is "weir" in ASCII.
const MIGRATING: &str = "SELECT pg_advisory_xact_lock(2003134834)";

/// How much an error spoils, by its SQLSTATE class. A statement that was refused for its data or by a trigger can be
/// undone by a savepoint.
pub(super) fn kind(error: &dyn DatabaseError) -> Option<Kind> {
    let code = error.try_downcast_ref::<PgDatabaseError>()?.code();
    Some(match code {
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Kind::Lost,
        _ => match code.get(..2) {
            Some("08") => Kind::Lost,
            Some("40") => Kind::Contended,
            Some("22" | "23" | "P0") => Kind::Statement,
            Some(_) | None => Kind::Failed,
        },
    })
}

pub(super) fn trouble(error: &dyn DatabaseError) -> Trouble {
    let error = error.try_downcast_ref::<PgDatabaseError>();
    match error.map(PgDatabaseError::code) {
        Some("53100") => Trouble::Full,
        Some("25006") => Trouble::ReadOnly,
        Some("55P03" | "57014") => Trouble::Locked,
        Some(code) => match code.get(..2) {
            Some("08" | "53" | "57") => Trouble::Unreachable,
            Some("58" | "XX") => Trouble::Damaged,
            Some(_) | None => Trouble::Other,
        },
        None => Trouble::Other,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let kind = match &error {
            sqlx::Error::Io(_) => Kind::Lost,
            sqlx::Error::Database(refused) => kind(&**refused).unwrap_or(Kind::Failed),
            _ => Kind::Failed,
        };
        let trouble = match &error {
            sqlx::Error::Database(refused) => trouble(&**refused),
            _ => Trouble::Unreachable,
        };
        StoreError::new(error.to_string(), kind).with(trouble)
    }
}

#[derive(Clone)]
pub(crate) struct Database {
    options: PgConnectOptions,
    timeout: Duration,
    readers_max: u32,
}

impl fmt::Debug for Database {
    /// Written by hand, since sqlx's derived `Debug` shows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({})", shown(&self.options))
    }
}

impl Database {
    pub(super) fn at(
        url: &PostgresUrl,
        timeout: Duration,
        readers_max: u32,
    ) -> Result<Self, StoreError> {
        let options = parse(url).map_err(StoreError::contradiction)?;
        let statement_ms = timeout.as_millis().max(1).to_string();
        let timeout = timeout.saturating_add(HEAD_START);
        let options = options
            .application_name("weir")
            .options([
                ("statement_timeout", statement_ms.as_str()),
                // A process that hangs in the middle of a transaction must not hold up the others.
                ("idle_in_transaction_session_timeout", statement_ms.as_str()),
                // `CREATE TABLE IF NOT EXISTS` would otherwise log a notice at each start.
                ("client_min_messages", "warning"),
            ])
            .disable_statement_logging();
        Ok(Database {
            options,
            timeout,
            readers_max,
        })
    }

    pub(super) async fn connect(&self) -> Result<Connection, StoreError> {
        let connection = within(self.timeout, async { Ok(self.options.connect().await?) });
        Ok(Connection {
            connection: connection.await?,
            usual: self.timeout,
            timeout: Some(self.timeout),
            released: false,
        })
    }

    pub(super) fn readers(&self) -> Readers {
        let options = self
            .options
            .clone()
            .options([("default_transaction_read_only", "on")]);
        let pool = PoolOptions::<Postgres>::new()
            .max_connections(self.readers_max.max(1))
            .test_before_acquire(false)
            .acquire_timeout(self.timeout)
            .connect_lazy_with(options);
        Readers {
            pool,
            timeout: self.timeout,
        }
    }
}

/// Limits the wait for an answer: a server that vanished without closing the connection never sends one.
async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(timeout, answer)
        .await
        .unwrap_or_else(|_| Err(StoreError::slow(timeout)))
}

pub(crate) struct Connection {
    connection: PgConnection,
    /// The time limit of a statement.
    usual: Duration,
    /// The time limit that applies now: `None` during migrations and long reads.
    timeout: Option<Duration>,
    /// A savepoint is to be released. PostgreSQL is told together with the next one, which saves a round trip.
    released: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection(PostgreSQL)")
    }
}

impl Connection {
    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let timeout = self.timeout;
        let answer = rows(&mut self.connection, sql, values);
        match timeout {
            Some(timeout) => within(timeout, answer).await,
            None => answer.await,
        }
    }

    /// Runs statements without parameters, in one round trip.
    pub(super) async fn script(&mut self, sql: &'static str) -> Result<(), StoreError> {
        let timeout = self.timeout;
        let answer = async {
            sqlx::raw_sql(sql).execute(&mut self.connection).await?;
            Ok(())
        };
        match timeout {
            Some(timeout) => within(timeout, answer).await,
            None => answer.await,
        }
    }

    pub(super) async fn begin(&mut self) -> Result<(), StoreError> {
        self.released = false;
        self.script("BEGIN").await
    }

    /// Begins a read-only transaction on one snapshot, without time limits.
    pub(super) async fn begin_reading(&mut self) -> Result<(), StoreError> {
        self.timeout = None;
        self.script(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = 0;
             SET LOCAL idle_in_transaction_session_timeout = 0",
        )
        .await
    }

    /// Begins a transaction without a time limit, once no other process migrates.
    pub(super) async fn begin_migrating(&mut self) -> Result<(), StoreError> {
        self.timeout = None;
        self.script("BEGIN; SET LOCAL statement_timeout = 0")
            .await?;
        self.script(MIGRATING).await
    }

    /// Restores the time limit after long work.
    pub(super) fn hurry(&mut self) {
        self.timeout = Some(self.usual);
    }

    pub(super) async fn savepoint(&mut self) -> Result<(), StoreError> {
        let sql = if std::mem::take(&mut self.released) {
            "RELEASE SAVEPOINT operation; SAVEPOINT operation"
        } else {
            "SAVEPOINT operation"
        };
        self.script(sql).await
    }

    pub(super) fn release(&mut self) {
        self.released = true;
    }

    pub(super) async fn undo(&mut self) -> Result<(), StoreError> {
        self.script("ROLLBACK TO SAVEPOINT operation; RELEASE SAVEPOINT operation")
            .await
    }

    pub(super) async fn lock_balances(
        &mut self,
        accounts: &[&str],
    ) -> Result<Vec<Row>, StoreError> {
        let accounts = accounts.iter().map(|&account| account.to_owned());
        self.many(
            "SELECT account, posted, held, credit_limit, low_balance, low_day, promo_expires_at
             FROM balance WHERE account = ANY($1) ORDER BY account FOR NO KEY UPDATE",
            vec![Column::Texts(accounts.collect())],
        )
        .await
    }

    pub(super) async fn many(
        &mut self,
        sql: &'static str,
        columns: Vec<Column>,
    ) -> Result<Vec<Row>, StoreError> {
        let query = columns
            .into_iter()
            .fold(sqlx::query(sql), |query, column| match column {
                Column::Integers(integers) => query.bind(integers),
                Column::Texts(texts) => query.bind(texts),
            });
        within(self.usual, async {
            let rows = query.fetch_all(&mut self.connection).await?;
            Ok(rows.into_iter().map(Row::Postgres).collect())
        })
        .await
    }

    pub(super) async fn close(self) -> Result<(), StoreError> {
        Ok(self.connection.close().await?)
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Readers {
    pool: PgPool,
    timeout: Duration,
}

impl Readers {
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        match self.try_rows(sql, values).await {
            Err(error) if error.is_lost_connection() => {
                // After a restart of the database, the other idle connections are broken too.
                while let Some(idle) = self.pool.try_acquire() {
                    drop(idle.detach());
                }
                self.try_rows(sql, values).await
            }
            answer => answer,
        }
    }

    async fn try_rows(
        &self,
        sql: &'static str,
        values: &[Value<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let mut connection = self.pool.acquire().await?;
        let answer = within(self.timeout, rows(&mut connection, sql, values)).await;
        if answer.as_ref().is_err_and(StoreError::spoils_transaction) {
            // Given back, the connection would make the pool wait once more for the same answer.
            drop(connection.detach());
        }
        answer
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn rows(
    connection: &mut PgConnection,
    sql: &'static str,
    values: &[Value<'_>],
) -> Result<Vec<Row>, StoreError> {
    let query: sqlx::query::Query<'static, Postgres, PgArguments> =
        values
            .iter()
            .fold(sqlx::query(sql), |query, value| match *value {
                Value::Integer(integer) => query.bind(integer),
                Value::Text(text) => query.bind(text.map(str::to_owned)),
                Value::Bytes(bytes) => query.bind(bytes.to_vec()),
            });
    let rows = query.fetch_all(connection).await?;
    Ok(rows.into_iter().map(Row::Postgres).collect())
}

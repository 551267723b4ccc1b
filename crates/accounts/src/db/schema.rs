//! The schema: numbered migrations, forward only.

use jiff::Timestamp;

use super::{Connection, Database, Driver, OpenError, StoreError, postgres, sqlite, values};
use crate::failpoint;

/// How the schema of a database compares to what this program knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    pub found: i64,
    pub known: i64,
}

impl Schema {
    /// The schema of a database that doesn't exist yet: 0.
    pub(crate) fn missing() -> Self {
        Schema::new(0, sqlite::MIGRATIONS)
    }

    fn new(found: i64, migrations: &[&str]) -> Self {
        let known = i64::try_from(migrations.len()).expect("there are few migrations");
        Schema { found, known }
    }

    /// The database has no books yet, or has lost them.
    pub(crate) fn is_empty(&self) -> bool {
        self.found == 0
    }

    pub fn is_current(&self) -> bool {
        self.found == self.known
    }

    /// Whether a newer program has migrated the database.
    pub fn is_newer(&self) -> bool {
        self.found > self.known
    }
}

impl Connection {
    fn migrations(&self) -> &'static [&'static str] {
        match &self.driver {
            Driver::Sqlite(_) => sqlite::MIGRATIONS,
            Driver::Postgres(_) => postgres::MIGRATIONS,
        }
    }

    /// Begins a transaction that excludes other processes that migrate.
    async fn begin_migrating(&mut self) -> Result<Schema, StoreError> {
        match &mut self.driver {
            Driver::Sqlite(_) => self.begin().await?,
            Driver::Postgres(connection) => connection.begin_migrating().await?,
        }
        self.execute(
            "CREATE TABLE IF NOT EXISTS migration (version BIGINT NOT NULL PRIMARY KEY, applied_at BIGINT NOT NULL)",
            &[],
        )
        .await?;
        self.newest_migration().await
    }

    /// The schema of the database. Writes nothing.
    pub(crate) async fn schema(&mut self) -> Result<Schema, StoreError> {
        let sql = match &self.driver {
            Driver::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_schema WHERE name = 'migration'",
            Driver::Postgres(_) => {
                "SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass('migration')"
            }
        };
        let made = self.row(sql, &[]).await?;
        if made.map_or(Ok(0), |row| row.integer(0))? == 0 {
            return Ok(Schema::new(0, self.migrations()));
        }
        self.newest_migration().await
    }

    async fn newest_migration(&mut self) -> Result<Schema, StoreError> {
        let newest = self
            .row("SELECT COALESCE(MAX(version), 0) FROM migration", &[])
            .await?;
        let found = newest.map_or(Ok(0), |row| row.integer(0))?;
        Ok(Schema::new(found, self.migrations()))
    }

    /// Brings the schema up to date, in one transaction, so that several processes can start at once.
    pub(crate) async fn migrate(
        &mut self,
        database: &Database,
        now: Timestamp,
    ) -> Result<(), OpenError> {
        let schema = self.begin_migrating().await?;
        let Schema { found, known } = schema;
        if schema.is_newer() {
            return Err(OpenError::Newer { found, known });
        }
        if schema.is_empty() {
            database.refuse_without_books()?;
        }
        for (version, sql) in (1i64..)
            .zip(self.migrations())
            .filter(|(version, _)| *version > found)
        {
            self.script(sql).await?;
            failpoint::pass("migration");
            self.execute(
                "INSERT INTO migration (version, applied_at) VALUES ($1, $2)",
                values![version, now],
            )
            .await?;
        }
        self.commit().await?;
        if let Driver::Postgres(connection) = &mut self.driver {
            connection.hurry();
        }
        Ok(())
    }
}

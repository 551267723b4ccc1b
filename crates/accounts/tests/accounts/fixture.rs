//! A database in a folder of its own, with an account and a key.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tempfile::TempDir;
use weir_accounts::{
    Account, Accounts, Caller, Counts, Hold, HoldError, Location, Nanos, NewHold, Options, Outcome,
    Price, Role, Settlement, Source,
};

use crate::{POSTGRES, cluster};

/// A prompt token costs a nano-USD, a cached one half of it, an output token two.
pub(crate) const PRICE: Price = Price {
    input: 10,
    output: 20,
    cached: Some(5),
};
pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    pub(crate) accounts: Accounts,
    pub(crate) caller: Caller,
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(crate) fn nanos(nanos: i64) -> Nanos {
    Nanos::new(nanos)
}

pub(crate) fn tokens(prompt: u64, completion: u64) -> Counts {
    Counts {
        prompt,
        completion,
        ..Counts::default()
    }
}

pub(crate) fn success(counts: Counts) -> Settlement {
    Settlement {
        counts,
        outcome: Outcome::Success,
        source: Source::Engine,
        now: at(5),
    }
}

pub(crate) fn database(folder: &Path) -> PathBuf {
    folder.join("weir.db")
}

/// The database of a folder: a file in it, or one on the server, whose address is noted in the folder.
pub(crate) async fn location(folder: &Path) -> Location {
    if !POSTGRES {
        return database(folder).into();
    }
    let note = folder.join("address");
    if !note.exists() {
        std::fs::write(&note, cluster::create().await).unwrap();
    }
    let url = std::fs::read_to_string(&note).unwrap();
    Location::Postgres(url.parse().unwrap())
}

pub(crate) async fn options(folder: &Path, role: Role) -> Options {
    Options {
        timeout: Duration::from_secs(20),
        ..Options::new(location(folder).await, role)
    }
}

pub(crate) async fn open(folder: &Path, role: Role) -> Accounts {
    let options = options(folder, role).await;
    Accounts::open(options, at(0)).await.unwrap()
}

/// A direct connection, past the crate, to look at the tables and to tamper with them.
pub(crate) enum Raw {
    Sqlite(rusqlite::Connection),
    Postgres(PgConnection),
}

pub(crate) async fn raw(folder: &Path) -> Raw {
    if POSTGRES {
        let url = std::fs::read_to_string(folder.join("address")).unwrap();
        return Raw::Postgres(PgConnection::connect(&url).await.unwrap());
    }
    let raw = rusqlite::Connection::open(database(folder)).unwrap();
    raw.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    Raw::Sqlite(raw)
}

/// Takes all processes but the newest for dead, as another node would long after they died. Changes nothing on SQLite,
/// where only one is alive anyway.
pub(crate) async fn long_after(folder: &Path) {
    let newest = "(SELECT name FROM node ORDER BY started_at DESC, name LIMIT 1)";
    let sql = format!("DELETE FROM node WHERE name <> {newest}");
    raw(folder).await.execute(&sql).await.unwrap();
}

/// Makes the open holds those of a process that is gone.
pub(crate) async fn lose(folder: &Path) {
    let sql = "UPDATE hold SET node = 'gone' WHERE state = 'open'";
    raw(folder).await.execute(sql).await.unwrap();
}

impl Raw {
    pub(crate) async fn execute(&mut self, sql: &str) -> Result<(), Box<dyn Error>> {
        match self {
            Raw::Sqlite(raw) => Ok(raw.execute_batch(sql)?),
            Raw::Postgres(raw) => {
                raw.execute(AssertSqlSafe(sql.to_owned())).await?;
                Ok(())
            }
        }
    }

    /// Lets this connection change append-only tables.
    pub(crate) async fn disable_triggers(&mut self) {
        let sql = if POSTGRES {
            "SET session_replication_role = replica"
        } else {
            "DROP TRIGGER entry_no_update; DROP TRIGGER entry_no_delete;
             DROP TRIGGER ledger_transaction_no_update; DROP TRIGGER ledger_transaction_no_delete;
             DROP TRIGGER price_no_update;"
        };
        self.execute(sql).await.unwrap();
    }
}

impl Fixture {
    /// A server with an account `demo` that has this many nano-USD.
    pub(crate) async fn with(credit: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let accounts = open(folder.path(), Role::Server).await;
        let caller = caller(&accounts, credit).await;
        Fixture {
            folder,
            accounts,
            caller,
        }
    }

    pub(crate) fn hold(&self, request: &str, amount: i64) -> NewHold {
        NewHold {
            request: request.to_owned(),
            attempt: 0,
            caller: self.caller.clone(),
            model: "org/model".to_owned(),
            price: PRICE,
            amount: nanos(amount),
            now: at(1),
        }
    }

    pub(crate) async fn held(&self, request: &str, amount: i64) -> Result<Hold, HoldError> {
        self.accounts
            .hold(self.hold(request, amount))?
            .durable()
            .await
    }

    pub(crate) async fn account(&self) -> Account {
        self.accounts.account("demo").await.unwrap()
    }

    /// The posted and the held balance, once everything that was dropped is written.
    pub(crate) async fn balance(&self) -> (i64, i64) {
        self.written().await;
        let account = self.account().await;
        assert_eq!(
            account.posted.checked_sub(account.held),
            Some(account.available)
        );
        (account.posted.get(), account.held.get())
    }

    /// Waits for two transactions: the first may make a hold that no caller takes, the second releases it.
    pub(crate) async fn written(&self) {
        for _ in 0..2 {
            self.accounts.expire(at(0)).await.unwrap();
        }
    }

    pub(crate) async fn assert_books(&self) {
        assert_eq!(
            self.accounts.verify().await.unwrap(),
            Vec::<String>::new(),
            "the books differ"
        );
    }
}

/// Creates the account `demo` with a key and credit.
pub(crate) async fn caller(accounts: &Accounts, credit: i64) -> Caller {
    let account = accounts.add_account("demo", at(0)).await.unwrap();
    if credit > 0 {
        accounts
            .credit(&account.id, nanos(credit), "first", "a test", at(0))
            .await
            .unwrap();
    }
    let key = accounts.add_key(&account.id, None, at(0)).await.unwrap();
    accounts
        .authenticate(key.secret.expose(), at(0))
        .await
        .unwrap()
}

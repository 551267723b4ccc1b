//! Benchmark of a long history: how long it takes to verify it, to export it, and to prune half of it.
//!
//! `cargo run --release -p weir-accounts --example verify_rate [REQUESTS [ACCOUNTS [FOLDER [PART]]]]`: 200,000 requests
//! are a million entries; a part is verify, export or prune. The database is SQLite, filled with plain SQL as if all
//! these requests had been served in 30 days, and stays if a folder is named. The memory is each part's peak.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::error::Error;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio::time::Instant;
use weir_accounts::{Accounts, Options, Role, UsageFilter};

/// How often each verification runs.
const ROUNDS: usize = 3;
/// The records that an export reads at a time.
const PIECE: u32 = 500;
/// The end of the first half of the history, which is deleted.
const HALF: &str = "2026-10-06T14:13:20Z";

/// `n` numbers requests and accounts, `request` has a row for each request, and `c` says how many of both there are.
const NUMBERS: &str = "
    CREATE TEMP TABLE n AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n, c WHERE i < max(requests, accounts))
        SELECT i FROM n;
    CREATE TEMP TABLE request AS SELECT i, (i - 1) / accounts AS earlier, (i - 1) % 5 + 1 AS price,
        printf('acct_%012d', (i - 1) % accounts + 1) AS account, printf('key%09d', (i - 1) % accounts + 1) AS api_key,
        printf('%08x%024x', i * 2654435761 % 4294967296, i) AS request, 1790000000000 + i * 2592000000 / requests AS at
        FROM n, c WHERE i <= requests;
    CREATE TEMP TABLE k (k INTEGER PRIMARY KEY);
    INSERT INTO k VALUES (1), (2), (3), (4), (5);";

/// Inserts in the order in which a server would have written, so that the tables are as dense as a server's.
const FILL: &str = "
    INSERT INTO account (id, name, created_at)
        SELECT printf('acct_%012d', i), printf('a%07d', i), 1790000000000 FROM n, c WHERE i <= accounts;
    INSERT INTO balance (account, posted)
        SELECT printf('acct_%012d', i), 1000000000000 - 10000 * ((requests + accounts - i) / accounts) FROM n, c WHERE i <= accounts;
    INSERT INTO api_key (id, account, secret_hash, created_at)
        SELECT printf('key%09d', i), printf('acct_%012d', i), zeroblob(32), 1790000000000 FROM n, c WHERE i <= accounts;
    INSERT INTO price (id, model, input, output, cached, created_at)
        SELECT k, printf('org/model-%d', k), 200, 400, 200, 1790000000000 FROM k;
    INSERT INTO ledger_transaction (id, idempotency_key, kind, account, reason, posted, created_at)
        SELECT i, printf('credit:%d', i), 'credit', printf('acct_%012d', i), 'fill', 1000000000000, 1790000000000
        FROM n, c WHERE i <= accounts;
    INSERT INTO movement (ledger_transaction, actor) SELECT i, 'system' FROM n, c WHERE i <= accounts;
    INSERT INTO entry (ledger_transaction, book, amount)
        SELECT i, CASE k WHEN 1 THEN 'funding' ELSE printf('wallet:acct_%012d', i) END,
            CASE k WHEN 1 THEN -1000000000000 ELSE 1000000000000 END
        FROM c CROSS JOIN n CROSS JOIN k WHERE i <= accounts AND k <= 2;
    INSERT INTO hold (id, request, attempt, account, api_key, model, price, amount, state, node, created_at, expires_at, ended_at)
        SELECT i, request, 1, account, api_key, printf('org/model-%d', price), price, 100000, 'settled', 'local-abcdefgh',
            at, at + 600000, at FROM request;
    INSERT INTO ledger_transaction (id, idempotency_key, kind, account, hold, posted, created_at)
        SELECT accounts + 2 * i + k - 2, CASE k WHEN 1 THEN 'hold:' ELSE 'end:' END || request || ':1',
            CASE k WHEN 1 THEN 'hold' ELSE 'settle' END, account, i, 1000000000000 - 10000 * (earlier + k - 1), at
        FROM c CROSS JOIN request CROSS JOIN k WHERE k <= 2;
    INSERT INTO entry (ledger_transaction, book, amount)
        SELECT accounts + 2 * i - (k <= 2), CASE k WHEN 4 THEN 'revenue' WHEN 2 THEN 'wallet:' || account
                WHEN 5 THEN 'wallet:' || account ELSE 'held:' || account END,
            CASE k WHEN 1 THEN 100000 WHEN 2 THEN -100000 WHEN 3 THEN -100000 WHEN 4 THEN 10000 ELSE 90000 END
        FROM c CROSS JOIN request CROSS JOIN k;
    INSERT INTO usage_record (id, ledger_transaction, request, attempt, account, api_key, model, price, prompt, cached,
            completion, reasoning, held, cost, outcome, source, started_at, ended_at)
        SELECT i, accounts + 2 * i, request, 1, account, api_key, printf('org/model-%d', price), price, 100, 0, 200, 0,
            100000, 10000, 'success', 'engine', at, at FROM c CROSS JOIN request;
    INSERT INTO usage_day (api_key, day, model, price, account, requests, prompt, cached, completion, reasoning, cost, promo)
        SELECT api_key, ended_at / 86400000, model, price, account, COUNT(*), SUM(prompt), 0, SUM(completion), 0, SUM(cost), 0
        FROM usage_record GROUP BY api_key, ended_at / 86400000, model, price, account;";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let requests = arguments.next().map_or(Ok(200_000), |text| text.parse())?;
    let of = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let temporary = tempfile::tempdir()?;
    let folder = arguments
        .next()
        .map_or(temporary.path().to_owned(), PathBuf::from);
    let path = folder.join("weir.db");
    let options = Options::new(path.clone(), Role::Tool);
    if !path.exists() {
        let accounts = Accounts::open(options.clone(), Timestamp::UNIX_EPOCH).await?;
        accounts.close().await;
        let started = Instant::now();
        fill(&path, requests, of)?;
        println!(
            "filled with {requests} requests of {of} accounts in {:.1?}",
            started.elapsed()
        );
    }
    let accounts = Accounts::open(options, Timestamp::UNIX_EPOCH).await?;
    let part = arguments.next();
    let is_asked = |name| part.as_deref().is_none_or(|part| part == name);
    if is_asked("verify") {
        verify(&accounts).await?;
    }
    if is_asked("export") {
        export(&accounts).await?;
    }
    if is_asked("prune") {
        prune(&accounts).await?;
        verify(&accounts).await?;
    }
    accounts.close().await;
    Ok(())
}

fn fill(path: &Path, requests: i64, accounts: i64) -> rusqlite::Result<()> {
    let raw = rusqlite::Connection::open(path)?;
    raw.execute_batch(
        "PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -262144;
         CREATE TEMP TABLE c (requests INTEGER, accounts INTEGER)",
    )?;
    raw.execute("INSERT INTO c VALUES (?1, ?2)", [requests, accounts])?;
    raw.execute_batch(NUMBERS)?;
    raw.execute_batch("BEGIN")?;
    raw.execute_batch(FILL)?;
    raw.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
}

async fn verify(accounts: &Accounts) -> Result<(), Box<dyn Error>> {
    for _ in 0..ROUNDS {
        let part = Part::begin("verify");
        let differences = accounts.verify().await?;
        part.end(&format!("{} differences", differences.len()))?;
    }
    for _ in 0..ROUNDS {
        let part = Part::begin("verify quickly");
        let differences = accounts.verify_quickly().await?;
        part.end(&format!("{} differences", differences.len()))?;
    }
    Ok(())
}

/// Reads every record, and every day.
async fn export(accounts: &Accounts) -> Result<(), Box<dyn Error>> {
    let all = UsageFilter {
        key: None,
        model: None,
        from: Timestamp::UNIX_EPOCH,
        to: Timestamp::MAX,
    };
    let [mut records, mut days] = [0, 0];
    let part = Part::begin("read records");
    let whose = accounts.accounts().await?;
    for account in &whose {
        let mut last = None;
        loop {
            let read = accounts.usage_records(&account.id, &all, last.as_ref(), PIECE);
            let Some(newest) = read.await?.into_iter().inspect(|_| records += 1).last() else {
                break;
            };
            last = Some(newest);
        }
    }
    part.end(&format!("{records} records"))?;
    let part = Part::begin("read days");
    for account in &whose {
        let mut last = None;
        loop {
            let read = accounts.usage_days(&account.id, &all, last.as_ref(), PIECE);
            let Some(newest) = read.await?.into_iter().inspect(|_| days += 1).last() else {
                break;
            };
            last = Some(newest);
        }
    }
    part.end(&format!("{days} days"))
}

/// Deletes the records of the first half of the history, and then finds that there is nothing to delete.
async fn prune(accounts: &Accounts) -> Result<(), Box<dyn Error>> {
    for what in ["delete half of the records", "find none to delete"] {
        let part = Part::begin(what);
        let half: Timestamp = HALF.parse()?;
        accounts.prune_usage(half, half).await?;
        part.end("")?;
    }
    Ok(())
}

/// A part of the benchmark, with its time and its peak of memory.
struct Part {
    what: &'static str,
    started: Instant,
}

impl Part {
    fn begin(what: &'static str) -> Self {
        // Where the peak can't be reset, it is that of all parts so far.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let started = Instant::now();
        Part { what, started }
    }

    fn end(self, found: &str) -> Result<(), Box<dyn Error>> {
        let took = self.started.elapsed();
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.unwrap_or("unknown").trim();
        println!("{:28} {took:>10.1?}, {peak:>10} {found}", self.what);
        Ok(())
    }
}

//! Export of usage as a file of any length, read and written in chunks. The administrative API sends it, and the
//! command line prints it.

mod csv;

use std::collections::VecDeque;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use schemars::schema_for;
use serde_json::Value;
use weir_accounts::{AccountId, Accounts, StoreError, UsageDay, UsageEntry, UsageFilter};
use weir_api::admin;
pub use weir_api::admin::{By, Format};

use crate::routes::admin::wire::{time, usd};

/// The formats of time that [`moment`] accepts, for error messages.
pub const MOMENT_EXPECTED: &str = "a time is such as 2027-01-31 or 2027-01-31T12:00:00Z";
/// The length of a day as text. Without this check, jiff would parse a time as a day and ignore the hours.
const DAY_LEN: usize = "2027-01-31".len();

/// Parses a point in time: RFC 3339, or a UTC day, which means its beginning.
pub fn moment(text: &str) -> Option<Timestamp> {
    if text.len() != DAY_LEN {
        return text.parse().ok();
    }
    let day: Date = text.parse().ok()?;
    Some(day.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// The error for a period that ends before it begins, or at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyPeriod;

impl fmt::Display for EmptyPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "from is not before to, and nothing is in between; a day is when it begins: all of 2027-01-31 is from \
             2027-01-31 to 2027-02-01",
        )
    }
}

/// The period from the first time until before the second; without limits, all time.
pub fn period(
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<[Timestamp; 2], EmptyPeriod> {
    let (from, to) = (
        from.unwrap_or(Timestamp::UNIX_EPOCH),
        to.unwrap_or(Timestamp::MAX),
    );
    if from >= to {
        return Err(EmptyPeriod);
    }
    Ok([from, to])
}

/// Number of lines that are read, and in memory, at once.
const PIECE: u32 = 500;
/// Number of accounts that are read at once.
const ACCOUNTS: u32 = 500;

/// The options of an export.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub format: Format,
    pub by: By,
    /// `None` for all accounts.
    pub account: Option<AccountId>,
    pub filter: UsageFilter,
}

/// A running export.
#[derive(Debug)]
pub struct Export {
    format: Format,
    /// The first chunk, until it is taken: the column names and the first lines.
    begin: Option<String>,
    lines: Lines,
    more: bool,
}

impl Export {
    /// Starts an export. This makes the first query, so that an unreachable database is reported before anything is
    /// sent.
    pub async fn open(accounts: Accounts, wanted: Wanted) -> Result<Self, StoreError> {
        let Wanted {
            format,
            by,
            account,
            filter,
        } = wanted;
        let mut lines = Lines {
            after: account.is_none().then(String::new),
            next: account.into_iter().collect(),
            accounts,
            filter,
            place: match by {
                By::Record => Place::Record(None),
                By::Day => Place::Day(None),
            },
        };
        let first = lines.next().await?;
        let head = match format {
            Format::Csv => csv::head(&lines.place.names()),
            Format::Jsonl => String::new(),
        };
        Ok(Export {
            format,
            begin: Some(head + &text(format, &first)),
            lines,
            more: !first.is_empty(),
        })
    }

    /// The next chunk, of whole lines; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<String>, StoreError> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        if !self.more {
            return Ok(None);
        }
        let found = self.lines.next().await?;
        self.more = !found.is_empty();
        Ok(self.more.then(|| text(self.format, &found)))
    }
}

fn text(format: Format, lines: &[Value]) -> String {
    match format {
        Format::Csv => csv::lines(lines),
        Format::Jsonl => lines.iter().map(|line| format!("{line}\n")).collect(),
    }
}

/// The position of an export.
#[derive(Debug)]
struct Lines {
    accounts: Accounts,
    filter: UsageFilter,
    /// The accounts whose usage comes next.
    next: VecDeque<AccountId>,
    /// The name of the last account read, if there may be more accounts after it.
    after: Option<String>,
    /// The position within the usage of the first account of `next`.
    place: Place,
}

#[derive(Debug)]
enum Place {
    Record(Option<UsageEntry>),
    Day(Option<UsageDay>),
}

impl Place {
    fn is_begin(&self) -> bool {
        matches!(self, Place::Record(None) | Place::Day(None))
    }

    /// The names of a line's fields, for the first line of a CSV file.
    fn names(&self) -> Vec<String> {
        let schema = match self {
            Place::Record(_) => schema_for!(admin::UsageRecord),
            Place::Day(_) => schema_for!(admin::UsageDay),
        };
        let members = schema.get("properties").and_then(Value::as_object);
        members
            .map(|members| members.keys().cloned().collect())
            .unwrap_or_default()
    }
}

impl Lines {
    /// The next lines, each a JSON object; empty at the end.
    async fn next(&mut self) -> Result<Vec<Value>, StoreError> {
        loop {
            let Some(account) = self.next.front() else {
                let Some(after) = self.after.take() else {
                    return Ok(Vec::new());
                };
                let found = self.accounts.accounts_after(&after, ACCOUNTS).await?;
                self.after = found.last().map(|last| last.name.clone());
                self.next
                    .extend(found.into_iter().map(|account| account.id));
                continue;
            };
            let lines: Vec<Value> = match &mut self.place {
                Place::Record(last) => {
                    let found =
                        self.accounts
                            .usage_records(account, &self.filter, last.as_ref(), PIECE);
                    let found = found.await?;
                    *last = goes_on(&found).cloned();
                    found
                        .iter()
                        .map(|found| line(&shown_usage(found)))
                        .collect()
                }
                Place::Day(last) => {
                    let found =
                        self.accounts
                            .usage_days(account, &self.filter, last.as_ref(), PIECE);
                    let found = found.await?;
                    *last = goes_on(&found).cloned();
                    found.iter().map(|found| line(&shown_day(found))).collect()
                }
            };
            if self.place.is_begin() {
                self.next.pop_front();
            }
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }
}

/// The position of the next chunk, or `None` if this chunk wasn't full: most accounts need no second query.
fn goes_on<T>(found: &[T]) -> Option<&T> {
    let whole = u32::try_from(found.len()).is_ok_and(|len| len == PIECE);
    found.last().filter(|_| whole)
}

fn line<T: serde::Serialize>(line: &T) -> Value {
    serde_json::to_value(line).expect("a line has only texts and numbers")
}

pub(crate) fn shown_usage(entry: &UsageEntry) -> admin::UsageRecord {
    let record = &entry.record;
    admin::UsageRecord {
        id: entry.id,
        account: entry.account.to_string(),
        key: record.key.to_string(),
        request: record.request.clone(),
        attempt: record.attempt,
        model: record.model.clone(),
        prompt_tokens: record.counts.prompt,
        cached_tokens: record.counts.cached,
        completion_tokens: record.counts.completion,
        reasoning_tokens: record.counts.reasoning,
        input_price: record.price.input,
        cached_price: record.price.cached.unwrap_or(record.price.input),
        output_price: record.price.output,
        cost: usd(record.cost),
        promo: usd(record.promo),
        outcome: record.outcome.name(),
        source: record.source.name(),
        started_at: time(record.started_at),
        ended_at: time(record.ended_at),
    }
}

fn shown_day(day: &UsageDay) -> admin::UsageDay {
    admin::UsageDay {
        day: time(day.day).0.chars().take(10).collect(),
        account: day.account.to_string(),
        key: day.key.to_string(),
        model: day.model.clone(),
        requests: day.requests,
        prompt_tokens: day.counts.prompt,
        cached_tokens: day.counts.cached,
        completion_tokens: day.counts.completion,
        reasoning_tokens: day.counts.reasoning,
        input_price: day.price.input,
        cached_price: day.price.cached.unwrap_or(day.price.input),
        output_price: day.price.output,
        cost: usd(day.cost),
        promo: usd(day.promo),
    }
}

//! Usage as a file, however long: it is read and sent piece by piece.

mod csv;

use std::collections::VecDeque;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{HeaderValue, header};
use jiff::Timestamp;
use schemars::schema_for;
use serde_json::{Value, json};
use weir_accounts::{AccountId, Accounts, StoreError, UsageDay, UsageEntry, UsageFilter};
use weir_api::admin::{self, By, ExportQuery, Format, Nothing};

use super::endpoint::{Answer, Call};
use super::openapi::Schemas;
use super::records::shown_usage;
use super::wire::{time, timestamp, usd};
use crate::error::ApiError;

/// Lines that are read, and in memory, at once.
const PIECE: u32 = 500;
/// Accounts whose turn comes next.
const ACCOUNTS: u32 = 500;

pub(crate) async fn export(call: Call<ExportQuery, Nothing>) -> Result<Export, ApiError> {
    let Call {
        accounts, query, ..
    } = call;
    let at =
        |param, text: Option<&_>, absent| text.map_or(Ok(absent), |text| timestamp(param, text));
    let filter = UsageFilter {
        from: at("from", query.from.as_ref(), Timestamp::UNIX_EPOCH)?,
        to: at("to", query.to.as_ref(), Timestamp::MAX)?,
        key: query.key,
        model: query.model,
    };
    let only = match &query.account {
        Some(account) => Some(accounts.account(account).await?.id),
        None => None,
    };
    let mut lines = Lines {
        after: only.is_none().then(String::new),
        next: only.into_iter().collect(),
        accounts,
        filter,
        place: match query.by {
            By::Record => Place::Record(None),
            By::Day => Place::Day(None),
        },
    };
    // The database is asked once before the answer begins: what fails later can only cut it off.
    let first = lines.next().await?;
    let format = query.format;
    Ok(Export {
        format,
        first,
        lines,
    })
}

/// A file that is still being read.
pub(crate) struct Export {
    format: Format,
    first: Vec<Value>,
    lines: Lines,
}

/// Where an export stands.
struct Lines {
    accounts: Accounts,
    filter: UsageFilter,
    /// Whose usage comes next.
    next: VecDeque<AccountId>,
    /// The name after which there may be more of them.
    after: Option<String>,
    /// Within the first of `next`.
    place: Place,
}

enum Place {
    Record(Option<UsageEntry>),
    Day(Option<UsageDay>),
}

impl Place {
    /// What the members of a line are called.
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
    /// The next ones, each an object; none at the end.
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
                    *last = found.last().cloned();
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
                    *last = found.last().cloned();
                    found.iter().map(|found| line(&shown_day(found))).collect()
                }
            };
            if !lines.is_empty() {
                return Ok(lines);
            }
            self.next.pop_front();
        }
    }
}

fn line<T: serde::Serialize>(line: &T) -> Value {
    serde_json::to_value(line).expect("a line has only texts and numbers")
}

impl IntoResponse for Export {
    fn into_response(self) -> Response {
        let Export {
            format,
            first,
            lines,
        } = self;
        let media_type = HeaderValue::from_static(media_type(format));
        let text = move |lines: &[Value]| match format {
            Format::Csv => csv::lines(lines),
            Format::Jsonl => lines.iter().map(|line| format!("{line}\n")).collect(),
        };
        let head = match format {
            Format::Csv => csv::head(&lines.place.names()),
            Format::Jsonl => String::new(),
        };
        let begin = head + &text(&first);
        let more = !first.is_empty();
        let pieces = stream::try_unfold(
            (Some(begin), lines, more),
            move |(begin, mut lines, more)| async move {
                if let Some(begin) = begin {
                    return Ok(Some((begin, (None, lines, more))));
                }
                if !more {
                    return Ok(None);
                }
                let found = lines.next().await.inspect_err(|error| {
                    tracing::error!(%error, "an export is cut off");
                })?;
                match &found[..] {
                    [] => Ok::<_, StoreError>(None),
                    found => Ok(Some((text(found), (None, lines, true)))),
                }
            },
        );
        (
            [(header::CONTENT_TYPE, media_type)],
            Body::from_stream(pieces),
        )
            .into_response()
    }
}

const fn media_type(format: Format) -> &'static str {
    match format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        Format::Jsonl => "application/x-ndjson",
    }
}

impl Answer for Export {
    fn content(schemas: &mut Schemas) -> Value {
        let lines = [
            schemas.answer::<admin::UsageRecord>(),
            schemas.answer::<admin::UsageDay>(),
        ];
        json!({
            "text/csv": {"schema": {"type": "string"}},
            "application/x-ndjson": {"schema": {"description": "Of each line.", "anyOf": lines}},
        })
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

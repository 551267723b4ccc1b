//! Export of usage as a file.

use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_accounts::{StoreError, UsageFilter};
use weir_api::admin::{self, ExportQuery, Format, Nothing};

use super::endpoint::{Answer, Call};
use super::schemas::Schemas;
use crate::error::{ApiError, Reason};
use crate::export::{Export, MOMENT_EXPECTED, Wanted, moment, period};
use crate::layers::StreamFailure;

pub(crate) async fn export(call: Call<ExportQuery, Nothing>) -> Result<File, ApiError> {
    let Call {
        accounts, query, ..
    } = call;
    let (from, to) = (at("from", query.from)?, at("to", query.to)?);
    let [from, to] =
        period(from, to).map_err(|empty| ApiError::invalid("from", empty.to_string()))?;
    let key = match &query.key {
        Some(key) => Some(accounts.key(key).await?.id.to_string()),
        None => None,
    };
    let filter = UsageFilter {
        from,
        to,
        key,
        model: query.model,
    };
    let account = match &query.account {
        Some(account) => Some(accounts.account(account).await?.id),
        None => None,
    };
    let format = query.format;
    let wanted = Wanted {
        format,
        by: query.by,
        account,
        filter,
    };
    // After this, an error can only cut the answer off.
    let export = Export::open(accounts, wanted).await?;
    Ok(File { format, export })
}

/// Parses a time in the formats that the command line also accepts.
fn at(param: &str, text: Option<String>) -> Result<Option<Timestamp>, ApiError> {
    let read = |text: String| {
        let expected = || ApiError::invalid(param, format!("{param}: {MOMENT_EXPECTED}"));
        moment(&text).ok_or_else(expected)
    };
    text.map(read).transpose()
}

/// A running export.
pub(crate) struct File {
    format: Format,
    export: Export,
}

impl IntoResponse for File {
    fn into_response(self) -> Response {
        let media_type = HeaderValue::from_static(media_type(self.format));
        let failure = StreamFailure::default();
        let noted = failure.clone();
        let pieces = stream::try_unfold((self.export, noted), async |(mut export, noted)| {
            let piece = export.next().await.inspect_err(|error| {
                tracing::error!(%error, "an export is cut off");
                noted.set(Reason::StoreUnavailable);
            })?;
            Ok::<_, StoreError>(piece.map(|piece| (piece, (export, noted))))
        });
        let headers = [
            (header::CONTENT_TYPE, media_type),
            // Browsers save the file, and don't guess another type from its contents.
            (
                header::CONTENT_DISPOSITION,
                HeaderValue::from_static(file_name(self.format)),
            ),
            (
                header::X_CONTENT_TYPE_OPTIONS,
                HeaderValue::from_static("nosniff"),
            ),
        ];
        (headers, Extension(failure), Body::from_stream(pieces)).into_response()
    }
}

const fn media_type(format: Format) -> &'static str {
    match format {
        Format::Csv => "text/csv; charset=utf-8; header=present",
        Format::Jsonl => "application/x-ndjson",
    }
}

const fn file_name(format: Format) -> &'static str {
    match format {
        Format::Csv => "attachment; filename=\"weir-usage.csv\"",
        Format::Jsonl => "attachment; filename=\"weir-usage.jsonl\"",
    }
}

impl Answer for File {
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

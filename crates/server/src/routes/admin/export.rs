//! Usage as a file.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::{HeaderValue, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use weir_accounts::{StoreError, UsageFilter};
use weir_api::admin::{self, ExportQuery, Format, Nothing};

use super::endpoint::{Answer, Call};
use super::openapi::Schemas;
use super::wire::timestamp;
use crate::error::ApiError;
use crate::export::{Export, Wanted};

pub(crate) async fn export(call: Call<ExportQuery, Nothing>) -> Result<File, ApiError> {
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
    // What fails after that can only cut the answer off.
    let export = Export::open(accounts, wanted).await?;
    Ok(File { format, export })
}

/// An export on its way.
pub(crate) struct File {
    format: Format,
    export: Export,
}

impl IntoResponse for File {
    fn into_response(self) -> Response {
        let media_type = HeaderValue::from_static(media_type(self.format));
        let pieces = stream::try_unfold(self.export, async |mut export| {
            let piece = export.next().await.inspect_err(|error| {
                tracing::error!(%error, "an export is cut off");
            })?;
            Ok::<_, StoreError>(piece.map(|piece| (piece, export)))
        });
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

//! `weir ledger verify`: whether the books balance. Works beside a running server.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;
use weir_accounts::Options;

use super::accounts;
use crate::cli::Json;
use crate::output;

const EXIT_DIFFERENCES: u8 = 1;
const EXIT_UNKNOWN: u8 = 2;

/// Prints each difference on a line of its own.
pub(crate) async fn verify(
    options: Options,
    output: Json,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let differences = match differences(options, now).await {
        Ok(differences) => differences,
        Err(error) => {
            output::note(&format!("{error:#}"))?;
            return Ok(ExitCode::from(EXIT_UNKNOWN));
        }
    };
    let text = match &differences[..] {
        [] => "the books balance".to_owned(),
        some => some.join("\n"),
    };
    output::one(output, &json!({"differences": differences}), &text)?;
    Ok(match differences.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_DIFFERENCES),
    })
}

pub(super) async fn differences(options: Options, now: Timestamp) -> anyhow::Result<Vec<String>> {
    let opened = accounts::open(options, false, now).await?;
    let differences = opened.verify().await;
    opened.close().await;
    Ok(differences?)
}

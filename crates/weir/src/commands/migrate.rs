//! `weir migrate`: brings the schema up to date, or says whether it is.

use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::json;
use weir_accounts::{Accounts, Options, Schema};

use super::accounts::not_opened;
use crate::cli::Migrate;
use crate::output;

const EXIT_PENDING: u8 = 1;
const EXIT_NEWER: u8 = 2;
const EXIT_UNKNOWN: u8 = 3;

pub(crate) async fn migrate(
    options: Options,
    command: Migrate,
    now: Timestamp,
) -> anyhow::Result<ExitCode> {
    let (location, timeout) = (options.database.clone(), options.timeout);
    if !command.check {
        let opening = Accounts::open(options, now).await;
        let opened = opening.map_err(|error| not_opened(&location, error))?;
        opened.close().await;
    }
    let schema = match weir_accounts::schema(&location, timeout).await {
        Ok(schema) => schema,
        Err(error) => {
            output::note(&format!("{:#}", not_opened(&location, error)));
            return Ok(ExitCode::from(EXIT_UNKNOWN));
        }
    };
    let Schema { found, known } = schema;
    let (state, code) = if schema.is_current() {
        ("current", ExitCode::SUCCESS)
    } else if schema.is_newer() {
        ("newer", ExitCode::from(EXIT_NEWER))
    } else {
        ("pending", ExitCode::from(EXIT_PENDING))
    };
    let text = match state {
        "current" => format!("the schema is up to date: {found}"),
        "newer" => format!("the schema is {found}, newer than this program, which knows {known}"),
        _ => {
            format!("the schema is {found}; `weir migrate` or the next start brings it to {known}")
        }
    };
    let data = json!({"state": state, "found": found, "known": known});
    output::unless_closed(output::one(command.output, &data, &text))?;
    Ok(code)
}

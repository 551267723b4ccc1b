//! Arguments of `weir usage`.

use clap::{Args, Subcommand};
use weir_server::export::{By, Format};

use crate::cli::Json;
use crate::cli::value::Moment;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Usage {
    #[command(subcommand)]
    pub(crate) file: Option<UsageFile>,
    /// Name or id of the account
    #[arg(required = true)]
    pub(crate) account: Option<String>,
    /// How many of the newest requests
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    /// Only what ended then or later
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Moment>,
    /// Only what ended before
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Moment>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UsageFile {
    /// Print it as CSV or as JSON lines, whatever its length, by account and the oldest first
    Export(ExportUsage),
}

#[derive(Debug, Args)]
pub(crate) struct ExportUsage {
    /// csv, with a line of names first, or jsonl, a JSON object on each line
    #[arg(long, value_name = "FORMAT", default_value = "csv", value_parser = format)]
    pub(crate) format: Format,
    /// A line for each record, or for each key, model, price and UTC day
    #[arg(long, value_name = "record|day", default_value = "record", value_parser = by)]
    pub(crate) by: By,
    /// Requests that ended then or later; with --by day, all of the days that the time touches
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<Moment>,
    /// Requests that ended before
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<Moment>,
    /// Only of this account: its name or id
    #[arg(long, value_name = "ACCOUNT")]
    pub(crate) account: Option<String>,
    /// Only of this key: its id
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,
    /// Only of this model
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
}

fn format(name: &str) -> Result<Format, &'static str> {
    match name {
        "csv" => Ok(Format::Csv),
        "jsonl" => Ok(Format::Jsonl),
        _ => Err("a format is csv or jsonl"),
    }
}

fn by(name: &str) -> Result<By, &'static str> {
    match name {
        "record" => Ok(By::Record),
        "day" => Ok(By::Day),
        _ => Err("it is by record or by day"),
    }
}

//! The command line, as one types it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use weir_accounts::Nanos;

const EXIT_CODES: &str = "\
Exit status: 0 done; 1 it failed; 2 the command line or the config is wrong.
The config is --config, else WEIR_CONFIG, else ./weir.toml, else assumptions; see docs/config.md.";

/// Your own hosted LLM API in one binary.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where config and database are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// The config file
    #[arg(long, global = true, value_name = "FILE", env = "WEIR_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The directory of the database; wins over the config
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub(crate) data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the API until SIGINT or SIGTERM
    Serve(Serve),
    /// Accounts: who holds a balance
    #[command(subcommand)]
    Account(Account),
    /// Pay into an account
    Credit(Credit),
    /// API keys of an account
    #[command(subcommand)]
    Key(Key),
    /// Models of the config
    #[command(subcommand)]
    Model(Model),
    /// What the requests of an account cost, newest first
    Usage(Usage),
    /// A conversation with a model of the running server; the key is taken from WEIR_API_KEY
    Chat(Chat),
    /// Explain every key of the config, as Markdown
    Config,
    /// Say what is wrong with this machine, the config and the database
    Doctor(Json),
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Json {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Add an account
    Add {
        /// Its name, not used by another
        name: String,
        /// What it starts with, in dollars such as 5 or 0.25
        #[arg(long, value_name = "USD", default_value = "0")]
        credit: Nanos,
        #[command(flatten)]
        output: Json,
    },
    /// List all accounts
    List(Json),
}

#[derive(Debug, Args)]
pub(crate) struct Credit {
    /// Name or id of the account
    pub(crate) account: String,
    /// Dollars such as 5 or 0.25
    #[arg(value_name = "USD")]
    pub(crate) amount: Nanos,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "credit")]
    pub(crate) reason: String,
    /// The payment's own number: the same one again changes nothing
    #[arg(long, value_name = "TEXT")]
    pub(crate) reference: Option<String>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key; its secret is shown once
    Add {
        /// Name or id of the account
        account: String,
        /// What to call it
        #[arg(long, value_name = "TEXT")]
        name: Option<String>,
        #[command(flatten)]
        output: Json,
    },
    /// List the keys of an account
    List {
        /// Name or id of the account
        account: String,
        #[command(flatten)]
        output: Json,
    },
    /// Revoke a key for good; in force within a second
    Revoke {
        /// The id as `key list` shows it
        id: String,
        #[command(flatten)]
        output: Json,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// List the models with their prices
    List(Json),
}

#[derive(Debug, Args)]
pub(crate) struct Usage {
    /// Name or id of the account
    pub(crate) account: String,
    /// How many of the newest requests
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Chat {
    /// The model; the first that can chat if absent
    #[arg(long, value_name = "ID")]
    pub(crate) model: Option<String>,
    /// The server, such as http://127.0.0.1:8080; the config's if absent
    #[arg(long, value_name = "URL", env = "WEIR_BASE_URL")]
    pub(crate) base_url: Option<String>,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// The longest answer, in tokens
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: Option<u32>,
}

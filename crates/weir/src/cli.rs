//! The command line. The doc comments of arguments are the texts of `--help`.

mod manage;
mod usage;
pub(crate) mod value;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use self::manage::{
    Account, AddKey, Adjust, Audit, Balance, Caps, Credit, Key, Limits, Promo, Refund, SetAccount,
    SetKey, ShowLedger,
};
pub(crate) use self::usage::{ExportUsage, Usage, UsageFile};

const EXIT_CODES: &str = "\
Exit status: 0 done; 1 it failed; 2 the command line or the config is wrong; 3 (serve) requests wait to be settled.
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
    /// The directory of the SQLite database; wins over the config
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
    /// Show the balance of an account, and how much its open requests hold
    Balance(Balance),
    /// Pay into an account
    Credit(Credit),
    /// Give an account promotional credit: used first, and gone when it expires
    Promo(Promo),
    /// Give back what a request cost
    Refund(Refund),
    /// Correct an account's balance
    Adjust(Adjust),
    /// API keys of an account
    #[command(subcommand)]
    Key(Key),
    /// Models of the config
    #[command(subcommand)]
    Model(Model),
    /// List the requests of an account with their costs, newest first; or export them all
    Usage(Usage),
    /// Who changed what, newest first
    Audit(Audit),
    /// A conversation with a model of the running server; the key is taken from WEIR_API_KEY
    Chat(Chat),
    /// Explain every key of the config, as Markdown; or check the config
    Config {
        #[command(subcommand)]
        command: Option<Config>,
    },
    /// Bring the schema of the database up to date, as every start does
    Migrate(Migrate),
    /// The books
    #[command(subcommand)]
    Ledger(Ledger),
    /// Whether the system's clock can be trusted
    #[command(subcommand)]
    Clock(Clock),
    /// Measure which settings a model is fastest with: a minute or two, on a machine that does nothing else
    Tune(Tune),
    /// Say whether the server runs and what it serves; exit with 0 if it is ready, 1 if it isn't
    Status(Json),
    /// Say what is wrong with this machine, the config and the database
    Doctor(Json),
    /// Can a model file be loaded? The program asks itself, in a process that may die of it.
    #[cfg(feature = "llama")]
    #[command(hide = true, name = weir_llama::TRIAL_COMMAND)]
    TryModel {
        /// The file
        file: PathBuf,
        /// How it is to be served, as JSON
        options: String,
    },
    /// Does a library of kernels work here? The program asks itself, in a process that may fault.
    #[cfg(feature = "dispatch")]
    #[command(hide = true, name = weir_llama::PROBE_COMMAND)]
    ProbeKernels {
        /// The library
        library: PathBuf,
    },
}

impl Command {
    /// The ids of models that a key or an account's limits are made for.
    pub(crate) fn models(&self) -> &[String] {
        match self {
            Command::Key(Key::Add(add)) => &add.models,
            Command::Key(Key::Set(set)) => &set.models,
            Command::Account(Account::Set(set)) => set.model.as_slice(),
            _ => &[],
        }
    }

    /// Whether the command changes nothing in the books. Then its output may be left unread, and it works on a read-only
    /// database.
    pub(crate) fn only_reads(&self) -> bool {
        match self {
            Command::Account(command) => {
                matches!(command, Account::List { .. } | Account::Show { .. })
            }
            Command::Key(command) => matches!(command, Key::List { .. } | Key::Show { .. }),
            Command::Clock(command) => matches!(command, Clock::Show(_)),
            Command::Tune(tune) => !tune.write,
            Command::Model(_)
            | Command::Usage(_)
            | Command::Balance(_)
            | Command::Status(_)
            | Command::Audit(_)
            | Command::Chat(_)
            | Command::Config { .. }
            | Command::Ledger(_)
            | Command::Doctor(_) => true,
            Command::Serve(_)
            | Command::Credit(_)
            | Command::Promo(_)
            | Command::Refund(_)
            | Command::Adjust(_)
            | Command::Migrate(_) => false,
            #[cfg(feature = "llama")]
            Command::TryModel { .. } => true,
            #[cfg(feature = "dispatch")]
            Command::ProbeKernels { .. } => true,
        }
    }
}

/// How data is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Json {
    /// Print JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Change nothing; exit with 0 if it is up to date, 1 if steps are pending, 2 if it is newer than this
    /// program, 3 if it can't be told
    #[arg(long)]
    pub(crate) check: bool,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port to listen on, such as 0.0.0.0:8080 or localhost:8080. A port alone (8080 or :8080) is one of
    /// 127.0.0.1; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", value_parser = value::listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// The address to listen on, with the port of the config: 0.0.0.0 is all addresses of this machine
    #[arg(long, value_name = "ADDRESS", value_parser = value::host, conflicts_with = "listen")]
    pub(crate) host: Option<IpAddr>,
    /// The port to listen on, with the address of the config; 0 takes a free one
    #[arg(long, value_name = "NUMBER", conflicts_with = "listen")]
    pub(crate) port: Option<u16>,
    /// Serve this GGUF file, in place of the models of the config; may be given several times
    #[arg(long = "model", value_name = "FILE")]
    pub(crate) models: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say whether the config is right: exit with 0 if it is, 2 if it isn't, and name every problem with its file and line
    Check(Json),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Model {
    /// List the models with their prices
    List(Json),
    /// Say what a GGUF file is, and what memory it would take
    Inspect(Inspect),
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A GGUF file, or a model of the config
    pub(crate) model: String,
    /// Read all of it, and load it in another process; exit with 0 if nothing is wrong, 1 if something is
    #[arg(long)]
    pub(crate) check: bool,
    /// Print the chat template and nothing else
    #[arg(long, conflicts_with_all = ["check", "json"])]
    pub(crate) template: bool,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Ledger {
    /// Transactions, newest first
    Show(ShowLedger),
    /// Recompute balances, holds, charges and usage, and name each difference; exit with 0 if there is none,
    /// 1 if there are some, 2 if it can't be told
    Verify(Json),
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum Clock {
    /// Show the clock, and the newest time that the books have seen
    Show(Json),
    /// Say that the clock is right, however far it is from the newest time in the books: what is due by it expires
    Accept(Json),
}

#[derive(Debug, Args)]
pub(crate) struct Tune {
    /// A model of the config, or a GGUF file
    pub(crate) model: String,
    /// How many answers at once are to be fast
    #[arg(long, value_name = "NUMBER", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) streams: u32,
    /// How long these are, in tokens, prompts included; up to 256 if absent. Thousands take minutes
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tokens: Option<u32>,
    /// Try a requantized copy, too: it is made in the data directory, and stays
    #[arg(long)]
    pub(crate) optimize: bool,
    /// Write the best settings to the config file
    #[arg(long)]
    pub(crate) write: bool,
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
    /// The system message, which the model gets before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// The longest answer, in tokens
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_tokens: Option<u32>,
}

//! The `weir` program: the only crate that knows every concrete type, reads arguments, config files and
//! the environment, and asks what time it is.

mod cli;
mod commands;
mod config;
mod lifecycle;
mod model_file;
mod output;
mod wire;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use jiff::Timestamp;
use weir_accounts::{Accounts, Actor, By, Options, Role};
use weir_gateway::Clock;

use crate::cli::{Cli, Command, Ledger, Model, Place};
use crate::commands::chat::Server;
#[cfg(feature = "dispatch")]
use crate::commands::kernels;
#[cfg(feature = "llama")]
use crate::commands::trial;
use crate::commands::{
    accounts, audit, chat, clock, config_check, credit, doctor, inspect, keys, ledger, migrate,
    models, status, tune, usage,
};
use crate::config::{Config, Invalid, Loaded, Overrides};
use crate::lifecycle::Ended;
use crate::output::StdoutError;

/// The exit status of a wrong command line or config; clap uses the same.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let reads = cli.command.only_reads();
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the async runtime");
    let ended = ended.and_then(|runtime| {
        let ended = runtime.block_on(Box::pin(run(cli)));
        // Doesn't wait for threads: one may be reading a line of input that is no longer wanted.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(code) => code,
        Err(error) => failure(&error, reads),
    }
}

/// Prints what went wrong, and returns the exit status. A command that only reads succeeds even if its output wasn't read
/// to the end.
fn failure(error: &anyhow::Error, reads: bool) -> ExitCode {
    let (lines, code) = match (
        error.downcast_ref::<StdoutError>(),
        error.downcast_ref::<Invalid>(),
    ) {
        (Some(printing), _) if printing.is_closed() && reads => return ExitCode::SUCCESS,
        (Some(printing), _) if !reads => (
            vec![format!(
                "it was done, but what came of it is not shown: {printing}"
            )],
            ExitCode::FAILURE,
        ),
        (_, Some(Invalid(problems))) => (problems.clone(), ExitCode::from(EXIT_USAGE)),
        (_, None) => (vec![format!("{error:#}")], ExitCode::FAILURE),
    };
    output::last_notes(lines);
    code
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { place, command } = cli;
    let system = Clock::system();
    let now = system.now();
    match command {
        Command::Serve(serve) => {
            let overrides = Overrides {
                listen: serve.listen,
                host: serve.host,
                port: serve.port,
                models: serve.models,
                ..overrides(&place)
            };
            let load = || load(&overrides);
            let served = lifecycle::serve(&load, serve.output, system);
            return Ok(match Box::pin(served).await? {
                Ended::Served(code) => code,
                // Ends the process without destructors: a model that is still loading would collide with those of llama.cpp.
                Ended::BeforeServing => signal_hook::low_level::exit(0),
            });
        }
        Command::Account(_)
        | Command::Credit(_)
        | Command::Promo(_)
        | Command::Refund(_)
        | Command::Adjust(_)
        | Command::Key(_)
        | Command::Usage(_)
        | Command::Balance(_)
        | Command::Ledger(Ledger::Show(_))
        | Command::Audit(_)
        | Command::Clock(_) => {
            let adds = matches!(command, Command::Account(cli::Account::Add { .. }));
            let role = match command.only_reads() {
                true => Role::Reader,
                false => Role::Tool,
            };
            let (options, offered) = books(&place, role)?;
            models::warn_of_unknown(offered.as_deref(), command.models());
            let opened = accounts::open(options, adds, now).await?;
            let done = Box::pin(manage(&opened, command, now)).await;
            opened.close().await;
            done?;
        }
        Command::Model(Model::List(output)) => models::list(&configured(&place)?, output)?,
        Command::Model(Model::Inspect(command)) => {
            // Inspecting a file works with a broken config.
            let loaded = load(&overrides(&place));
            return inspect::inspect(loaded.map(|it| it.config), &command);
        }
        #[cfg(feature = "llama")]
        Command::TryModel { file, options } => return trial::try_model(&file, &options),
        Command::Chat(command) => {
            let base_url = match &command.base_url {
                Some(url) => url.trim().to_owned(),
                None => format!("http://{}", configured(&place)?.listen),
            };
            // The variable may come from a file, with its line feed at the end.
            let key = std::env::var("WEIR_API_KEY")
                .ok()
                .map(|key| key.trim().to_owned())
                .filter(|key| !key.is_empty());
            Box::pin(chat::chat(Server { base_url, key }, command)).await?;
        }
        Command::Config { command: None } => output::piece(&config::reference::markdown())?,
        Command::Config {
            command: Some(cli::Config::Check(output)),
        } => config_check::check(load(&overrides(&place))?, output)?,
        Command::Migrate(command) => {
            return migrate::migrate(options(&place, Role::Tool)?, command, now).await;
        }
        Command::Ledger(Ledger::Verify(output)) => {
            return ledger::verify(options(&place, Role::Reader)?, output, now).await;
        }
        Command::Status(output) => {
            let ready = status::status(&configured(&place)?, output, now).await?;
            return Ok(if ready {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Command::Tune(command) => tune::tune(&configured(&place)?, &command)?,
        #[cfg(feature = "dispatch")]
        Command::ProbeKernels { library } => return kernels::probe(&library),
        Command::Doctor(output) => {
            let sound = Box::pin(doctor::doctor(load(&overrides(&place)), output, now)).await?;
            return Ok(if sound {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a command on the database; a server may be running at the same time.
async fn manage(opened: &Accounts, command: Command, system: Timestamp) -> anyhow::Result<()> {
    let actor = Actor::command_line(&user());
    let now = opened.time(system);
    let by = By { actor, now };
    match command {
        Command::Account(command) => accounts::account(opened, command, &by).await,
        Command::Credit(command) => credit::credit(opened, command, &by).await,
        Command::Promo(command) => credit::promo(opened, command, &by).await,
        Command::Refund(command) => credit::refund(opened, command, &by).await,
        Command::Adjust(command) => credit::adjust(opened, command, &by).await,
        Command::Key(command) => keys::key(opened, command, &by).await,
        Command::Usage(command) => Box::pin(usage::usage(opened, command)).await,
        Command::Audit(command) => audit::audit(opened, command).await,
        Command::Clock(command) => clock::clock(opened, command, system).await,
        Command::Balance(command) => accounts::balance(opened, command).await,
        Command::Ledger(Ledger::Show(command)) => ledger::show(opened, command).await,
        Command::Serve(_)
        | Command::Model(_)
        | Command::Chat(_)
        | Command::Config { .. }
        | Command::Migrate(_)
        | Command::Ledger(Ledger::Verify(_))
        | Command::Status(_)
        | Command::Tune(_)
        | Command::Doctor(_) => Ok(()),
        #[cfg(feature = "llama")]
        Command::TryModel { .. } => Ok(()),
        #[cfg(feature = "dispatch")]
        Command::ProbeKernels { .. } => Ok(()),
    }
}

/// The user at the command line, for the audit log.
fn user() -> String {
    let name = |variable| std::env::var(variable).ok().filter(|name| !name.is_empty());
    let names = ["SUDO_USER", "USER", "LOGNAME"];
    names
        .into_iter()
        .find_map(name)
        .unwrap_or_else(|| "unknown".to_owned())
}

fn overrides(place: &Place) -> Overrides {
    Overrides {
        config: place.config.clone(),
        data: place.data.clone(),
        ..Overrides::default()
    }
}

fn load(overrides: &Overrides) -> Result<Loaded, Invalid> {
    let directory = std::env::current_dir().map_err(|error| {
        Invalid(vec![format!(
            "the current directory can't be used: {error}"
        )])
    })?;
    // Names and values that aren't UTF-8 are skipped: none of Weir's variables has one.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    config::load(&directory, overrides, variables)
}

/// Loads the config, and prints its warnings.
fn configured(place: &Place) -> anyhow::Result<Config> {
    let Loaded {
        config, warnings, ..
    } = load(&overrides(place))?;
    for warning in warnings {
        output::note(&warning);
    }
    Ok(config)
}

/// The options to open the database. With `--data` no config is read.
fn options(place: &Place, role: Role) -> anyhow::Result<Options> {
    Ok(books(place, role)?.0)
}

/// How to open the database, and the ids of the models that the config offers; with `--data` no config is read.
fn books(place: &Place, role: Role) -> anyhow::Result<(Options, Option<Vec<String>>)> {
    if let Some(data) = &place.data {
        let options = Options::new(data.join(accounts::DATABASE), role);
        return Ok((options, None));
    }
    let config = configured(place)?;
    let offered = config.models.iter().map(|model| model.id.clone());
    Ok((wire::options(&config, role), Some(offered.collect())))
}

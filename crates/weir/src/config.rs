//! The config: values as written (in a file and environment variables), checked and turned into the types of the sections.
//!
//! The types are the only description of the config: [`keys`] reads all keys with their ranges, defaults and comments from their
//! schema. [`reader`] and [`settings`] read values, each checked against its key, so that an error names file and line; [`decode`]
//! turns them into the types.

pub(crate) mod address;
pub(crate) mod assume;
pub(crate) mod changes;
mod decode;
mod file;
pub(crate) mod http;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod models;
mod problem;
mod reader;
pub(crate) mod reference;
mod root;
mod sections;
pub(crate) mod settings;
mod slips;
#[cfg(test)]
mod tests;
pub(crate) mod types;
mod value;
pub(crate) mod webhooks;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub(crate) use self::models::{EngineSection, Llama, Model};
pub(crate) use self::problem::Invalid;
use self::problem::Problem;
pub(crate) use self::root::{Config, Source};
pub(crate) use self::sections::{Log, LogFormat};
use self::settings::Settings;
pub(crate) use self::types::Database;

/// Values from the command line, which win over file and environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overrides {
    pub(crate) config: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) host: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    /// GGUF files that are served in place of the config's models.
    pub(crate) models: Vec<PathBuf>,
}

/// A config, and warnings about parts that are odd but not wrong.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The settings that the config was made of.
    pub(crate) settings: Settings,
    pub(crate) warnings: Vec<String>,
}

/// Loads the config of a command that was started in `directory`: the file named in `overrides`, else `weir.toml` in the
/// directory; then the environment, then the command line. Without a file, assumptions fill the gaps.
pub(crate) fn load(
    directory: &Path,
    overrides: &Overrides,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Invalid> {
    let text = file::read(directory, overrides.config.as_deref())?;
    let assumed = text.is_none();
    let Loaded {
        mut config,
        mut settings,
        mut warnings,
    } = resolve(directory, text, variables)?;
    if let Some(data) = &overrides.data {
        config.data = directory.join(data);
        config.database = Database::Sqlite;
        settings.forget(&["data", "database"]);
    }
    let written = config.listen;
    if let Some(listen) = overrides.listen {
        config.listen = listen;
    }
    if let Some(host) = overrides.host {
        config.listen.set_ip(host);
    }
    if let Some(port) = overrides.port {
        config.listen.set_port(port);
    }
    if config.listen != written {
        settings.forget(&["listen"]);
    }
    if !overrides.models.is_empty() {
        config.models = assume::models(directory, &overrides.models)?;
        warnings.extend(config.models.iter().map(assume::served));
    }
    if assumed {
        assume::fill_in(&mut config, directory);
    }
    Ok(Loaded {
        config,
        settings,
        warnings,
    })
}

fn resolve(
    directory: &Path,
    file: Option<(PathBuf, String)>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, Invalid> {
    let mut problems = Vec::new();
    let mut settings = Settings::default();
    if let Some((path, text)) = &file {
        settings.read(&file::shown(directory, path), text, &mut problems);
    }
    let unknown = settings.overlay(variables, &mut problems);
    let warnings = unknown
        .iter()
        .map(|name| format!("{name} is not a variable of Weir, and is ignored"))
        .collect();
    problems.append(&mut settings.gaps());
    if problems.is_empty() {
        problems = settings.missing();
    }
    let mut config = match problems.is_empty() {
        true => settings.decode().map_err(|problem| told(&[problem]))?,
        false => return Err(told(&problems)),
    };
    config.check(&mut |path, message| problems.push(settings.problem(path, message)));
    if !problems.is_empty() {
        return Err(told(&problems));
    }

    let parent = file.as_ref().and_then(|(path, _)| path.parent());
    let base = parent.unwrap_or(directory);
    config.data = base.join(&config.data);
    for model in &mut config.models {
        model.resolve_paths(base);
    }
    config.models.retain(|model| !model.is_left_out());
    if let Some((path, _)) = file {
        config.source = Source::File(path);
    }
    Ok(Loaded {
        config,
        settings,
        warnings,
    })
}

fn told(problems: &[Problem]) -> Invalid {
    Invalid(problems.iter().map(Problem::to_string).collect())
}

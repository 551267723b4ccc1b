//! The config: settings as written (in a file and environment variables), resolved and checked.
//!
//! [`keys`] is the table of all keys; [`settings`] reads values and checks each against its key; this file turns them into
//! [`Config`], which the rest of the program uses without further checks.

pub(crate) mod address;
pub(crate) mod assume;
pub(crate) mod changes;
mod file;
mod http;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod reference;
pub(crate) mod settings;
mod slips;
#[cfg(test)]
mod tests;
pub(crate) mod webhooks;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use weir_accounts::PostgresUrl;
use weir_inference::local::{CacheSharing, Speculation};
use weir_server::TrustedProxies;
use weir_webhooks::Webhook;

use self::limits::Limits;
use self::settings::{Origin, Problem, Settings, Value};

/// The whole config, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) source: Source,
    pub(crate) listen: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) database: Database,
    /// Whether the first start makes an account with credit; `None` means only on a terminal.
    pub(crate) demo: Option<bool>,
    pub(crate) postgres: Postgres,
    pub(crate) node: Node,
    pub(crate) limits: Limits,
    pub(crate) models: Vec<Model>,
    pub(crate) webhooks: Vec<Webhook>,
    /// How long usage records are kept, in days; `None` means for ever.
    pub(crate) usage_keep_days: Option<u32>,
    /// The most finished requests that may be kept in `data` while the database can't be written.
    pub(crate) unsettled_requests_max: u32,
    pub(crate) http: Http,
    pub(crate) shutdown_grace: Duration,
    pub(crate) log: Log,
    /// The origins that may call from browsers; empty if CORS is off.
    pub(crate) cors_origins: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    /// There is no file. Each line names an assumption that was made instead.
    Assumed(Vec<String>),
}

/// The database of accounts, ledger and usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// A file in the directory [`Config::data`].
    Sqlite,
    Postgres(PostgresUrl),
}

/// How PostgreSQL is used, if it is the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Postgres {
    pub(crate) connections_max: u32,
    pub(crate) timeout: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) silence: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) title: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) price: Price,
    pub(crate) output_tokens_max: Option<u32>,
    pub(crate) engine: Llama,
}

/// Prices in 0.0001 USD per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Price {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cached: Option<u64>,
}

/// Settings of an embedded engine. The engine chooses values that are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Llama {
    pub(crate) path: PathBuf,
    pub(crate) threads: Option<u32>,
    pub(crate) threads_min: Option<u32>,
    pub(crate) context_tokens: Option<u32>,
    pub(crate) cells: Option<u32>,
    pub(crate) sequences: Option<u32>,
    pub(crate) reproducible: bool,
    pub(crate) kv_layout: KvLayout,
    pub(crate) kv_format: KvFormat,
    pub(crate) flash_attention: FlashAttention,
    pub(crate) optimize: Optimize,
    /// Whether the file's bytes are compared with those of its first start.
    pub(crate) checksum: bool,
    /// Whether a generating model gives embeddings too (the means of its tokens' vectors).
    pub(crate) embeddings: bool,
    pub(crate) embedding_tokens: Option<u32>,
    pub(crate) matryoshka: bool,
    pub(crate) queue_requests_max: Option<u32>,
    pub(crate) grammar_compiles_max: Option<u32>,
    pub(crate) grammar_compiles_waiting_max: Option<u32>,
    pub(crate) grammar_compile_burst: Option<Duration>,
    pub(crate) grammar_compile_per_second: Option<Duration>,
    pub(crate) inter_token_target: Option<Duration>,
    pub(crate) prompt_tokens_min: Option<u32>,
    pub(crate) aside_tokens: u32,
    pub(crate) prefix_cache: CacheSharing,
    pub(crate) speculation: Speculation,
}

/// The default of `aside_tokens`: long enough for most prompts. With the demo model the second cache takes 190 MB.
const ASIDE_TOKENS: u32 = 8_192;

impl Llama {
    pub(crate) fn at(path: PathBuf) -> Self {
        Llama {
            path,
            threads: None,
            threads_min: None,
            context_tokens: None,
            cells: None,
            sequences: None,
            reproducible: false,
            kv_layout: KvLayout::Unified,
            kv_format: KvFormat::F16,
            flash_attention: FlashAttention::Auto,
            optimize: Optimize::Off,
            checksum: true,
            embeddings: false,
            embedding_tokens: None,
            matryoshka: false,
            queue_requests_max: None,
            grammar_compiles_max: None,
            grammar_compiles_waiting_max: None,
            grammar_compile_burst: None,
            grammar_compile_per_second: None,
            inter_token_target: None,
            prompt_tokens_min: None,
            aside_tokens: ASIDE_TOKENS,
            prefix_cache: CacheSharing::Account,
            speculation: Speculation::Ngram,
        }
    }
}

/// How KV cells are divided between sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvLayout {
    Unified,
    Split,
}

impl KvLayout {
    /// The value in the config file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            KvLayout::Unified => "unified",
            KvLayout::Split => "split",
        }
    }
}

/// The format of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvFormat {
    F16,
    Q8_0,
    F32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FlashAttention {
    Auto,
    On,
    Off,
}

impl FlashAttention {
    /// The value in the config file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FlashAttention::Auto => "auto",
            FlashAttention::On => "on",
            FlashAttention::Off => "off",
        }
    }
}

/// The goal for which a requantized copy of the file is served, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Optimize {
    /// The file is served as it is.
    Off,
    Speed,
}

impl Optimize {
    /// The value in the config file.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Optimize::Off => "off",
            Optimize::Speed => "speed",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Http {
    pub(crate) body_bytes_max: u64,
    pub(crate) body_bytes_in_flight_max: u64,
    pub(crate) body_bytes_in_flight_per_key_max: u64,
    pub(crate) header_timeout: Duration,
    pub(crate) body_idle_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) connections_max: u64,
    pub(crate) connections_per_address_max: u64,
    pub(crate) connections_reserve: u64,
    pub(crate) trusted_proxies: TrustedProxies,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) json: bool,
    pub(crate) filter: String,
}

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

/// Every problem of a config, one per line.
#[derive(Debug)]
pub(crate) struct Invalid(pub(crate) Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.join("\n"))
    }
}

impl std::error::Error for Invalid {}

impl From<String> for Invalid {
    fn from(problem: String) -> Self {
        Invalid(vec![problem])
    }
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
    if !problems.is_empty() {
        return Err(told(&problems));
    }

    let base = file
        .as_ref()
        .and_then(|(path, _)| path.parent())
        .unwrap_or(directory);
    let mut reader = Reader {
        settings: &settings,
        base,
        problems: Vec::new(),
    };
    let mut config = reader.config();
    let problems = reader.problems;
    if !problems.is_empty() {
        return Err(told(&problems));
    }
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

/// Turns settings into a config, and checks the conditions between several values.
struct Reader<'a> {
    settings: &'a Settings,
    base: &'a Path,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn config(&mut self) -> Config {
        Config {
            source: Source::Assumed(Vec::new()),
            listen: self.address("listen"),
            data: self.path("data").expect("data has a default"),
            database: self.database(),
            demo: match self.value("demo") {
                Some(Value::Flag(whether)) => Some(whether),
                _ => None,
            },
            postgres: Postgres {
                connections_max: self
                    .narrow("postgres.connections_max")
                    .expect("it has a default"),
                timeout: self.seconds("postgres.timeout_seconds"),
            },
            node: Node {
                name: self.text("node.name").expect("node.name has a default"),
                silence: self.seconds("node.silence_seconds"),
            },
            limits: self.limits(),
            models: self.models(),
            webhooks: self.webhooks(),
            usage_keep_days: self.narrow("usage.keep_days"),
            unsettled_requests_max: self
                .narrow("usage.unsettled_requests_max")
                .expect("it has a default"),
            http: self.http(),
            shutdown_grace: self.seconds("shutdown.grace_seconds"),
            log: Log {
                json: self.text("log.format").as_deref() == Some("json"),
                filter: self.text("log.filter").expect("log.filter has a default"),
            },
            cors_origins: match self.value("cors.origins") {
                Some(Value::Texts(origins)) => origins,
                _ => Vec::new(),
            },
        }
    }

    fn database(&mut self) -> Database {
        let written = self.text("database").expect("database has a default");
        if written == "sqlite" {
            return Database::Sqlite;
        }
        match written.parse() {
            Ok(url) => Database::Postgres(url),
            Err(error) => {
                self.problem("database", format!("database is no address: {error}"));
                Database::Sqlite
            }
        }
    }

    fn models(&mut self) -> Vec<Model> {
        let mut models: Vec<Model> = Vec::new();
        for index in 0..self.settings.count("models") {
            let at = format!("models[{index}]");
            let Some((model, optional)) = self.model(&at) else {
                continue;
            };
            if models.iter().any(|other| other.id == model.id) {
                self.problem(
                    &format!("{at}.id"),
                    format!("there is a model `{}` already", model.id),
                );
            }
            // If the existence of a file can't be found out, the model stays: loading it reports the error.
            if !optional || model.engine.path.try_exists().unwrap_or(true) {
                models.push(model);
            }
        }
        models
    }

    /// `None` if something is missing, which is then among the problems.
    fn model(&mut self, at: &str) -> Option<(Model, bool)> {
        let id = self.required(at, "id", "a name");
        let free = "a price (0 if it is free)";
        let input = self.required(at, "input_price", free);
        let output = self.required(at, "output_price", free);
        let cached = self.whole(&format!("{at}.cached_price"));
        let optional = self.value(&format!("{at}.optional")) == Some(Value::Flag(true));
        let engine = self.engine(at);
        let (Value::Text(id), Value::Whole(input), Value::Whole(output)) = (id?, input?, output?)
        else {
            unreachable!("values are of their key's kind")
        };
        if cached.is_some_and(|cached| cached > input) {
            self.problem(
                &format!("{at}.cached_price"),
                "cached_price must be at most input_price".to_owned(),
            );
        }
        let model = Model {
            id,
            title: self.text(&format!("{at}.title")),
            description: self.text(&format!("{at}.description")),
            price: Price {
                input,
                output,
                cached,
            },
            output_tokens_max: self.narrow(&format!("{at}.max_output_tokens")),
            engine: engine?,
        };
        Some((model, optional))
    }

    fn engine(&mut self, model: &str) -> Option<Llama> {
        match self.settings.count(&format!("{model}.engines")) {
            1 => {}
            0 => {
                self.entry_problem(
                    model,
                    format!("{model} has no engine: add [[models.engines]] with a path"),
                );
                return None;
            }
            _ => {
                let second = format!("{model}.engines[1]");
                self.entry_problem(
                    &second,
                    "several engines of a model are not supported in this version".to_owned(),
                );
                return None;
            }
        }
        let at = format!("{model}.engines[0]");
        self.required(&at, "path", "a GGUF file")?;
        Some(Llama {
            path: self.path(&format!("{at}.path"))?,
            threads: self.narrow(&format!("{at}.threads")),
            threads_min: self.narrow(&format!("{at}.threads_min")),
            context_tokens: self.narrow(&format!("{at}.context_tokens")),
            cells: self.narrow(&format!("{at}.cells")),
            sequences: self.narrow(&format!("{at}.sequences")),
            reproducible: self.value(&format!("{at}.reproducible")) == Some(Value::Flag(true)),
            kv_layout: match self.value(&format!("{at}.kv_layout")) {
                Some(Value::Text(layout)) if layout == "split" => KvLayout::Split,
                _ => KvLayout::Unified,
            },
            kv_format: match self.value(&format!("{at}.kv_format")) {
                Some(Value::Text(format)) if format == "q8_0" => KvFormat::Q8_0,
                Some(Value::Text(format)) if format == "f32" => KvFormat::F32,
                _ => KvFormat::F16,
            },
            flash_attention: match self.value(&format!("{at}.flash_attention")) {
                Some(Value::Text(whether)) if whether == "on" => FlashAttention::On,
                Some(Value::Text(whether)) if whether == "off" => FlashAttention::Off,
                _ => FlashAttention::Auto,
            },
            optimize: match self.value(&format!("{at}.optimize")) {
                Some(Value::Text(what)) if what == "speed" => Optimize::Speed,
                _ => Optimize::Off,
            },
            checksum: self.value(&format!("{at}.checksum")) == Some(Value::Flag(true)),
            embeddings: self.value(&format!("{at}.embeddings")).is_some(),
            embedding_tokens: self.narrow(&format!("{at}.embedding_tokens")),
            matryoshka: self.value(&format!("{at}.matryoshka")) == Some(Value::Flag(true)),
            queue_requests_max: self.narrow(&format!("{at}.queue_requests_max")),
            grammar_compiles_max: self.narrow(&format!("{at}.grammar_compiles_max")),
            grammar_compiles_waiting_max: self
                .narrow(&format!("{at}.grammar_compiles_waiting_max")),
            grammar_compile_burst: self
                .whole(&format!("{at}.grammar_compile_burst_ms"))
                .map(Duration::from_millis),
            grammar_compile_per_second: self
                .whole(&format!("{at}.grammar_compile_ms_per_second"))
                .map(Duration::from_millis),
            inter_token_target: self
                .whole(&format!("{at}.inter_token_target_ms"))
                .map(Duration::from_millis),
            prompt_tokens_min: self.narrow(&format!("{at}.prompt_tokens_min")),
            aside_tokens: self.narrow(&format!("{at}.aside_tokens"))?,
            prefix_cache: match self.value(&format!("{at}.prefix_cache")) {
                Some(Value::Text(who)) if who == "everybody" => CacheSharing::Everybody,
                Some(Value::Text(who)) if who == "off" => CacheSharing::Off,
                _ => CacheSharing::Account,
            },
            speculation: match self.value(&format!("{at}.speculation")) {
                Some(Value::Text(how)) if how == "off" => Speculation::Off,
                _ => Speculation::Ngram,
            },
        })
    }

    fn value(&self, path: &str) -> Option<Value> {
        self.settings.value(path)
    }

    fn required(&mut self, entry: &str, name: &str, what: &str) -> Option<Value> {
        let value = self.value(&format!("{entry}.{name}"));
        if value.is_none() {
            self.entry_problem(entry, format!("{entry} has no {name}; it needs {what}"));
        }
        value
    }

    fn text(&self, path: &str) -> Option<String> {
        match self.value(path) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn whole(&self, path: &str) -> Option<u64> {
        match self.value(path) {
            Some(Value::Whole(number)) => Some(number),
            _ => None,
        }
    }

    fn narrow(&self, path: &str) -> Option<u32> {
        self.whole(path)
            .map(|number| u32::try_from(number).expect("the key's range fits"))
    }

    fn seconds(&self, path: &str) -> Duration {
        Duration::from_secs(self.whole(path).expect("times have defaults"))
    }

    fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(|text| self.base.join(text))
    }

    fn address(&self, path: &str) -> SocketAddr {
        match self.value(path) {
            Some(Value::Address(address)) => address,
            _ => unreachable!("addresses have defaults"),
        }
    }

    fn problem(&mut self, path: &str, message: String) {
        let origin = self
            .settings
            .get(path)
            .map_or(Origin::Default, |setting| setting.origin.clone());
        self.problems.push(Problem { origin, message });
    }

    fn entry_problem(&mut self, entry: &str, message: String) {
        self.problems.push(Problem {
            origin: self.settings.entry(entry),
            message,
        });
    }
}

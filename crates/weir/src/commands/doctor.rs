//! `weir doctor`: looks for problems of the machine, the config and the database before they cause harm.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use weir_accounts::{Accounts, Location, Options, Role};

use super::ledger;
use crate::cli::Json;
use crate::config::{Config, Database, EngineSection, Invalid, Llama, Loaded, Model, Source};
#[cfg(feature = "llama")]
use crate::wire::model_files;
use crate::{model_file, output, wire};

/// The least free space: with less, the next weeks' usage records may not fit.
const DISK_BYTES_MIN: u64 = 1 << 30;
/// Open files other than served connections: database, models, log, and connections that are being turned away.
const FILES_BESIDE_CONNECTIONS: u64 = 200;
/// A clock before this time hasn't been set: keys would expire at the wrong time.
const CLOCK_MIN: Timestamp = Timestamp::constant(1_767_225_600, 0);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Wrong,
}

#[derive(Debug, Serialize)]
struct Check {
    check: String,
    verdict: Verdict,
    detail: String,
}

fn check(name: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Check {
    Check {
        check: name.into(),
        verdict,
        detail: detail.into(),
    }
}

/// Prints every check. `Ok(false)` if something is wrong.
pub(crate) async fn doctor(
    loaded: Result<Loaded, Invalid>,
    output: Json,
    now: Timestamp,
) -> output::Result<bool> {
    let mut checks = vec![processor(), kernels(), clock(now)];
    match loaded {
        Ok(Loaded {
            config, warnings, ..
        }) => {
            checks.push(source(&config));
            checks.extend(
                warnings
                    .into_iter()
                    .map(|text| check("environment", Verdict::Warning, text)),
            );
            checks.extend(models(&config));
            if config.database == Database::Sqlite {
                checks.push(directory(&config.data));
                checks.push(disk(&config.data));
            }
            checks.push(open_files(config.http.connections_max));
            checks.extend(books_clock(wire::options(&config, Role::Reader), now).await);
            checks.push(database(wire::options(&config, Role::Reader), now).await);
            checks.push(port(config.listen).await);
        }
        Err(Invalid(problems)) => {
            checks.extend(
                problems
                    .into_iter()
                    .map(|text| check("config", Verdict::Wrong, text)),
            );
        }
    }
    let printed = output::list(output, &["", "CHECK", ""], &checks, |check| {
        let mark = match check.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Wrong => "WRONG",
        };
        vec![mark.to_owned(), check.check.clone(), check.detail.clone()]
    });
    output::unless_closed(printed)?;
    Ok(checks.iter().all(|check| check.verdict != Verdict::Wrong))
}

fn processor() -> Check {
    #[cfg(all(target_arch = "x86_64", not(feature = "dispatch")))]
    {
        let has = [
            ("AVX2", is_x86_feature_detected!("avx2")),
            ("FMA", is_x86_feature_detected!("fma")),
            ("F16C", is_x86_feature_detected!("f16c")),
            ("BMI2", is_x86_feature_detected!("bmi2")),
        ];
        let missing: Vec<_> = has
            .iter()
            .filter(|(_, there)| !there)
            .map(|(name, _)| *name)
            .collect();
        if !missing.is_empty() {
            let detail = format!(
                "this processor lacks {}, which the kernels need",
                missing.join(", ")
            );
            return check("processor", Verdict::Wrong, detail);
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    check(
        "processor",
        Verdict::Ok,
        format!("{}, {threads} threads", std::env::consts::ARCH),
    )
}

#[cfg(feature = "llama")]
fn kernels() -> Check {
    let info = weir_llama::system_info();
    if let Err(reason) = weir_llama::check_kernels() {
        return check("kernels", Verdict::Wrong, reason);
    }
    if cfg!(all(target_arch = "x86_64", not(feature = "dispatch"))) && !info.contains("AVX2 = 1") {
        let detail = format!(
            "llama.cpp was built without AVX2 and is slow; build again without SOURCE_DATE_EPOCH ({info})"
        );
        return check("kernels", Verdict::Warning, detail);
    }
    check("kernels", Verdict::Ok, info)
}

#[cfg(not(feature = "llama"))]
fn kernels() -> Check {
    check(
        "kernels",
        Verdict::Warning,
        "built without the embedded engine",
    )
}

fn clock(now: Timestamp) -> Check {
    let verdict = if now < CLOCK_MIN {
        Verdict::Wrong
    } else {
        Verdict::Ok
    };
    check("clock", verdict, format!("it is {now:.0}"))
}

fn source(config: &Config) -> Check {
    match &config.source {
        Source::File(path) => check("config", Verdict::Ok, path.display().to_string()),
        Source::Assumed(said) => check("config", Verdict::Ok, said.join("; ")),
    }
}

fn models(config: &Config) -> Vec<Check> {
    if config.models.is_empty() {
        return vec![check(
            "models",
            Verdict::Wrong,
            "there is none: `make models` fetches some, or write [[models]]",
        )];
    }
    config.models.iter().map(model).collect()
}

fn model(model: &Model) -> Check {
    let name = format!("model {}", model.id);
    let EngineSection::Llama(llama) = model.engine();
    match loads(llama) {
        Ok(()) => check(name, Verdict::Ok, llama.path.display().to_string()),
        Err(error) => check(name, Verdict::Wrong, error.to_string()),
    }
}

/// Loads the model in another process: only that shows whether a file is damaged, and some damage would end this process.
#[cfg(feature = "llama")]
fn loads(engine: &Llama) -> anyhow::Result<()> {
    let path = &engine.path;
    model_file::check(path)?;
    model_files::checked(path)?;
    let program = model_files::program(path)?;
    weir_llama::try_out(&program, path, &wire::serve_options(engine))?;
    Ok(())
}

#[cfg(not(feature = "llama"))]
fn loads(engine: &Llama) -> anyhow::Result<()> {
    model_file::check(&engine.path)
}

/// The folder, or if it doesn't exist yet its nearest ancestor that does.
fn existing(data: &Path) -> &Path {
    data.ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
}

fn directory(data: &Path) -> Check {
    let directory = existing(data);
    let probe = directory.join(format!(".weir-doctor-{}", std::process::id()));
    let written = fs::write(&probe, "probe").and_then(|()| fs::remove_file(&probe));
    match written {
        Ok(()) => check(
            "data",
            Verdict::Ok,
            format!("{} can be written", data.display()),
        ),
        Err(error) => check(
            "data",
            Verdict::Wrong,
            format!("can't write in {}: {error}", directory.display()),
        ),
    }
}

fn disk(data: &Path) -> Check {
    match rustix::fs::statvfs(existing(data)) {
        Ok(space) => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let verdict = if free < DISK_BYTES_MIN {
                Verdict::Warning
            } else {
                Verdict::Ok
            };
            check(
                "disk",
                verdict,
                format!("{} MiB free for the database", free >> 20),
            )
        }
        Err(error) => check("disk", Verdict::Warning, error.to_string()),
    }
}

fn open_files(connections: u64) -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let needed = connections + FILES_BESIDE_CONNECTIONS;
    match limit {
        Some(limit) if limit < needed => {
            let detail = format!(
                "the limit is {limit}, and http.connections_max needs {needed}: `ulimit -Hn`"
            );
            check("open files", Verdict::Warning, detail)
        }
        _ => check(
            "open files",
            Verdict::Ok,
            limit.map_or("no limit".to_owned(), |limit| format!("up to {limit}")),
        ),
    }
}

/// Compares the clock with the newest time in the books. `None` if there is no database.
async fn books_clock(options: Options, now: Timestamp) -> Option<Check> {
    let opened = Accounts::open(options, now).await.ok()?;
    let state = opened.clock(now).await.ok()?;
    opened.close().await;
    let verdict = match state.trusted {
        true => Verdict::Ok,
        false => Verdict::Wrong,
    };
    Some(check("books' clock", verdict, super::clock::told(&state)))
}

async fn database(options: Options, now: Timestamp) -> Check {
    if let Location::Sqlite(path) = &options.database
        && matches!(path.try_exists(), Ok(false))
    {
        return check(
            "database",
            Verdict::Ok,
            format!("{} will be made", path.display()),
        );
    }
    match Box::pin(ledger::differences(options, now)).await {
        Ok(differences) if differences.is_empty() => {
            check("database", Verdict::Ok, "the books balance")
        }
        Ok(differences) => check("database", Verdict::Wrong, differences.join("; ")),
        Err(error) => check("database", Verdict::Wrong, format!("{error:#}")),
    }
}

async fn port(listen: SocketAddr) -> Check {
    match TcpListener::bind(listen) {
        Ok(_) => check("listen", Verdict::Ok, format!("{listen} is free")),
        Err(_) if weir_answers(listen).await => check(
            "listen",
            Verdict::Ok,
            format!("a server answers on {listen}"),
        ),
        Err(error) => check("listen", Verdict::Wrong, format!("{listen}: {error}")),
    }
}

async fn weir_answers(listen: SocketAddr) -> bool {
    let Ok(client) = reqwest::Client::builder().timeout(HEALTH_TIMEOUT).build() else {
        return false;
    };
    let answer = client.get(format!("http://{listen}/health")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

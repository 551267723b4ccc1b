//! The invariants of ARCHITECTURE.md that a machine can check: the dependencies between crates, and the words that only some
//! crates may contain.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it can't read the sources"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// The crates of the workspace that each crate may depend on. Dependencies go down only.
const ARROWS: &[(&str, &[&str])] = &[
    ("weir-api", &[]),
    ("weir-engine", &[]),
    ("weir-accounts", &[]),
    ("weir-inference", &["weir-engine"]),
    ("weir-llama", &["weir-engine", "weir-inference"]),
    ("weir-webhooks", &["weir-accounts"]),
    ("weir-gateway", &["weir-accounts", "weir-engine"]),
    (
        "weir-server",
        &["weir-accounts", "weir-api", "weir-engine", "weir-gateway"],
    ),
    (
        "weir-testkit",
        &[
            "weir-accounts",
            "weir-engine",
            "weir-gateway",
            "weir-inference",
            "weir-server",
        ],
    ),
    (
        "weir",
        &[
            "weir-accounts",
            "weir-api",
            "weir-engine",
            "weir-gateway",
            "weir-inference",
            "weir-llama",
            "weir-server",
            "weir-webhooks",
        ],
    ),
];

/// Libraries that only some crates may depend on.
const RESERVED: &[(&str, &[&str])] = &[
    ("axum", &["weir-server"]),
    ("hyper", &["weir-server", "weir-webhooks"]),
    ("hyper-util", &["weir-server", "weir-webhooks"]),
    ("http", &["weir-server", "weir-testkit", "weir-webhooks"]),
    ("tokio-rustls", &["weir-webhooks"]),
    ("rusqlite", &["weir-accounts"]),
    ("sqlx", &["weir-accounts"]),
    ("redis", &["weir-gateway"]),
    ("llama-cpp-sys-2", &["weir-llama"]),
    ("cc", &["weir-llama"]),
    ("clap", &["weir"]),
    ("toml", &["weir"]),
    ("minijinja", &["weir-inference"]),
    ("llguidance", &["weir-inference"]),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_path_buf()
}

/// The dependencies of each crate in the product, without those of its tests.
fn dependencies(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let of = |package: &&cargo_metadata::Package| {
        let names = package
            .dependencies
            .iter()
            .filter(|d| d.kind != DependencyKind::Development);
        (
            package.name.to_string(),
            names.map(|d| d.name.clone()).collect(),
        )
    };
    metadata.workspace_packages().iter().map(of).collect()
}

/// Every Rust file in the crate's `src`, with its text.
fn sources(krate: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("crates").join(krate).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {krate}");
    found
}

fn crates() -> Vec<String> {
    let entries = fs::read_dir(root().join("crates")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Lines of product code with their numbers: without comments, and without anything after an unindented `#[cfg(test)]`.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let product = text.lines().take_while(|line| *line != "#[cfg(test)]");
    let code = product.map(|line| line.split("//").next().unwrap_or(""));
    code.enumerate().map(|(index, line)| (index + 1, line))
}

/// Asserts that no product code outside of the `allowed` crates contains the word.
fn check_word_only_in(word: &str, allowed: &[&str]) {
    for krate in crates()
        .iter()
        .filter(|krate| !allowed.contains(&krate.as_str()))
    {
        for (path, text) in sources(krate) {
            for (number, line) in code_lines(&text) {
                assert!(
                    !line.contains(word),
                    "{}:{number}: `{word}` belongs to {allowed:?}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn dependencies_go_down_only() {
    let dependencies = dependencies(&metadata());
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let real: BTreeSet<_> = dependencies.keys().cloned().collect();
    assert_eq!(real, known, "ARROWS lists every crate");
    for (krate, allowed) in ARROWS {
        for name in &dependencies[*krate] {
            let inside = known.contains(name);
            assert!(
                !inside || allowed.contains(&name.as_str()),
                "{krate} must not depend on {name}"
            );
        }
    }
}

#[test]
fn reserved_libraries_stay_where_they_belong() {
    for (krate, names) in dependencies(&metadata()) {
        for (library, owners) in RESERVED {
            let used = names.contains(*library);
            assert!(
                !used || owners.contains(&krate.as_str()),
                "{krate} must not depend on {library}"
            );
        }
    }
}

#[test]
fn every_dependency_says_what_it_is_for() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("[workspace.dependencies]").nth(1).unwrap();
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    for line in lines.filter(|line| line.contains('=') && !line.starts_with("weir-")) {
        assert!(line.contains("# "), "no reason given: {line}");
    }
    for krate in crates() {
        let manifest =
            fs::read_to_string(root().join("crates").join(&krate).join("Cargo.toml")).unwrap();
        let own_version = manifest
            .lines()
            .find(|line| line.contains("version = \"") && line.contains('{'));
        assert_eq!(
            own_version, None,
            "{krate}: versions are set in the root Cargo.toml"
        );
    }
}

#[test]
fn unsafe_is_only_in_llama() {
    for word in [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe extern",
        "extern \"C\"",
    ] {
        check_word_only_in(word, &["llama"]);
    }
}

#[test]
fn sql_is_only_in_accounts_and_the_driver_only_in_db() {
    for word in ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM"] {
        check_word_only_in(word, &["accounts"]);
    }
    for (path, text) in sources("accounts") {
        for (number, line) in code_lines(&text).filter(|_| !is_db(&path)) {
            let named = ["rusqlite", "sqlx", "PgPool"]
                .iter()
                .find(|word| line.contains(**word));
            assert_eq!(
                named,
                None,
                "{}:{number}: only db.rs and db/ name a driver",
                path.display()
            );
        }
    }
}

fn is_db(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.ends_with("/db.rs") || path.contains("/db/")
}

#[test]
fn no_sql_is_built_by_formatting() {
    for (path, text) in sources("accounts") {
        for (number, line) in code_lines(&text) {
            let sql = ["SELECT ", "INSERT ", "UPDATE ", "DELETE "]
                .iter()
                .any(|word| line.contains(word));
            assert!(
                !(sql && line.contains("format!")),
                "{}:{number}: SQL by format!",
                path.display()
            );
            assert!(
                !line.contains("AssertSqlSafe"),
                "{}:{number}: SQL that isn't a constant",
                path.display()
            );
        }
    }
}

#[test]
fn the_scheduler_reads_no_clock_no_randomness_and_no_channel() {
    let mut sources = sources("inference");
    sources.retain(|(path, _)| path.to_string_lossy().contains("/scheduler"));
    assert!(!sources.is_empty(), "the scheduler is in inference");
    for (path, text) in sources {
        for (number, line) in code_lines(&text) {
            let impure = ["Instant", "Timestamp", "rand", "mpsc", "Mutex", "Atomic"];
            let found = impure.iter().find(|word| line.contains(**word));
            assert_eq!(
                found,
                None,
                "{}:{number}: the scheduler is pure",
                path.display()
            );
        }
    }
}

#[test]
fn only_the_binary_reads_the_environment() {
    for word in ["env::var", "env::args"] {
        check_word_only_in(word, &["weir", "testkit"]);
    }
    // `llama` reads which cores are free from the system, `accounts` the marker file beside its database.
    check_word_only_in(
        "fs::read_to_string",
        &["weir", "testkit", "llama", "accounts"],
    );
}

#[test]
fn every_file_is_part_of_a_crate() {
    for krate in crates() {
        let files = sources(&krate);
        for (path, _) in &files {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let is_root = matches!(name, "lib" | "main");
            let declared = [format!("mod {name};"), format!("mod {name} ")];
            let part = is_root
                || files
                    .iter()
                    .any(|(_, text)| declared.iter().any(|mods| text.contains(mods)));
            assert!(part, "{} is in no module", path.display());
        }
    }
}

/// The error codes in the documentation must be those of the code.
#[test]
fn the_error_table_of_the_docs_is_that_of_the_code() {
    let docs = fs::read_to_string(root().join("docs/api.md")).unwrap();
    let table = docs
        .split("## Errors")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let is_reason =
        |word: &&str| word.len() > 5 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let in_docs: BTreeSet<_> = table
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|line| line.split(['|', '`', ' ']).filter(is_reason))
        .collect();
    let (_, code) = sources("server")
        .into_iter()
        .find(|(path, _)| path.ends_with("src/error/reason.rs"))
        .unwrap();
    let code: String = code_lines(&code)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    let in_code: BTreeSet<_> = code
        .split('"')
        .skip(1)
        .step_by(2)
        .filter(is_reason)
        .collect();
    assert!(
        in_code.len() >= 12,
        "the error table was not found: {in_code:?}"
    );
    assert_eq!(in_docs, in_code, "docs/api.md and server/error/reason.rs");
}

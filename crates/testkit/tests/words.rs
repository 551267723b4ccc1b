//! Rules for comments and documents that a machine can check: how doc comments open, and that documents name and link what exists.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails where it can't read the sources"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Words that open a sentence without a subject, or with a pronoun for a noun that nobody has named.
const OPENINGS: &[&str] = &[
    "Anybody", "As", "It", "Its", "It's", "Nobody", "Of", "One", "So many", "So much", "Somebody",
    "Such", "That", "They", "Those", "What", "Whoever",
];

fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.ancestors().nth(2).unwrap().to_path_buf()
}

/// All files with this extension in a folder and the folders in it.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|found| found == extension) => {
                    found.push(path);
                }
                false => {}
            }
        }
    }
    assert!(!found.is_empty(), "nothing in {}", folder.display());
    found
}

/// The documents of the repository: those in its root, and those in `docs`.
fn documents() -> Vec<PathBuf> {
    let entries = fs::read_dir(root()).unwrap();
    let in_root = entries.map(|entry| entry.unwrap().path());
    let in_root = in_root.filter(|path| path.extension().is_some_and(|found| found == "md"));
    in_root.chain(files(&root().join("docs"), "md")).collect()
}

fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn doc_comments_name_their_subject() {
    let mut found = Vec::new();
    for path in files(&root().join("crates"), "rs") {
        let text = fs::read_to_string(&path).unwrap();
        let mut in_comment = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_start();
            let comment = line.strip_prefix("///").or(line.strip_prefix("//!"));
            let words = comment.unwrap_or_default().trim_start();
            let opens = |opening: &&&str| {
                let rest = words.strip_prefix(**opening);
                rest.is_some_and(|rest| {
                    !rest.starts_with(|c: char| c.is_alphanumeric() || c == '\'')
                })
            };
            if !in_comment && let Some(opening) = OPENINGS.iter().find(opens) {
                found.push(format!(
                    "{}:{number}: a comment opens with \"{opening}\"",
                    path.display()
                ));
            }
            in_comment = comment.is_some();
        }
    }
    assert_none(&found);
}

#[test]
fn lines_of_decisions_are_short() {
    let mut found = Vec::new();
    for path in files(&root().join("docs/decisions"), "md") {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            if line.chars().count() > 120 {
                found.push(format!("{}:{number}: over 120 characters", path.display()));
            }
        }
    }
    assert_none(&found);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut found = Vec::new();
    for path in documents() {
        let text = without_code(&fs::read_to_string(&path).unwrap());
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap();
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let linked = match file {
                "" => path.clone(),
                file => path.parent().unwrap().join(file),
            };
            let leads = linked.exists() && (anchor.is_empty() || anchors(&linked).contains(anchor));
            if !leads {
                found.push(format!("{}: ({target}) leads nowhere", path.display()));
            }
        }
    }
    assert_none(&found);
}

/// Only fenced code is left out: a link's text may have code in it.
fn without_code(text: &str) -> String {
    text.split("\n```").step_by(2).collect()
}

/// The headings of a document, as GitHub makes anchors of them.
fn anchors(path: &Path) -> BTreeSet<String> {
    let text = without_code(&fs::read_to_string(path).unwrap());
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// Paths of sources in ARCHITECTURE.md are written without `crates/` and without `src/`. A name alone is of the folder that the
/// path before it in the same row names.
#[test]
fn files_that_the_architecture_names_exist() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut found = Vec::new();
    for row in without_code(&text)
        .lines()
        .filter(|line| line.starts_with("| "))
    {
        let mut folder = PathBuf::new();
        for name in row.split('`').skip(1).step_by(2) {
            let is_path = name.contains('/') || name.ends_with(".rs") || name.ends_with(".lua");
            if !is_path || name.contains([' ', ':', '=']) {
                continue;
            }
            match find(name).or_else(|| find(&format!("{}/{name}", folder.display()))) {
                Some(path) => folder = path,
                None => found.push(format!("ARCHITECTURE.md names {name}, which doesn't exist")),
            }
        }
    }
    assert_none(&found);
}

/// The folder, below `crates`, of a source that exists.
fn find(name: &str) -> Option<PathBuf> {
    let crates = root().join("crates");
    let (krate, rest) = name.split_once('/')?;
    let places = [
        crates.join(krate).join("src").join(rest),
        crates.join(krate).join(rest),
        root().join(name),
    ];
    let exists = places.iter().any(|place| place.exists());
    exists.then(|| Path::new(name).parent().unwrap().to_path_buf())
}

//! `weir model inspect --check`: reads all of a model's files, and loads them in another process.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use weir_llama::gguf::{self, Finding, Gguf, check_numbers};
use weir_llama::{checksum_of, try_out};

use crate::config::{Config, Llama};
use crate::output;
use crate::wire::model_files::{self, Identity, ModelFiles};
use crate::wire::serve_options;

/// The findings, in the order of the checks.
#[derive(Debug, Default)]
pub(super) struct Checked {
    wrong: Vec<String>,
    notes: Vec<String>,
    sha256: Vec<String>,
    /// Whether another process could load the model.
    loads: bool,
}

impl Checked {
    pub(super) fn is_sound(&self) -> bool {
        self.wrong.is_empty()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "sound": self.is_sound(),
            "wrong": self.wrong,
            "notes": self.notes,
            "sha256": self.sha256,
            "loads": self.loads,
        })
    }

    pub(super) fn print(&self) -> output::Result<()> {
        let verdict = if self.is_sound() {
            "nothing is wrong"
        } else {
            "something is wrong"
        };
        let sums = self.sha256.iter().map(|sum| format!("sha256 {sum}"));
        let wrong = self.wrong.iter().map(|what| format!("wrong: {what}"));
        let notes = self.notes.iter().map(|what| format!("note: {what}"));
        let mut lines = sums.chain(wrong).chain(notes).chain([verdict.to_owned()]);
        lines.try_for_each(|line| output::line(&format!("{:15} {line}", "CHECK")))
    }
}

pub(super) fn check(engine: &Llama, config: Option<&Config>) -> Checked {
    let mut checked = Checked::default();
    if let Err(error) = look(engine, config, &mut checked) {
        checked.wrong.push(format!("{error:#}"));
    }
    checked
}

fn look(engine: &Llama, config: Option<&Config>, checked: &mut Checked) -> anyhow::Result<()> {
    let path = &engine.path;
    let head = model_files::checked(path)?;
    let parts = gguf::parts(path, &head)?;
    for part in &parts {
        checked
            .sha256
            .push(checksum_of(part).with_context(|| part.display().to_string())?);
    }
    if let Some(config) = config {
        compare(path, &head, config, checked)?;
    }
    for part in &parts {
        numbers(part, checked)?;
    }
    let program = model_files::program(path)?;
    try_out(&program, path, &serve_options(engine))?;
    checked.loads = true;
    Ok(())
}

/// Compares the checksums with those that the server has recorded.
fn compare(path: &Path, head: &Gguf, config: &Config, checked: &mut Checked) -> anyhow::Result<()> {
    let known = ModelFiles::open(&config.data).sums(path);
    let Some(before) = known.filter(|known| known.sha256 != checked.sha256) else {
        return Ok(());
    };
    let text = format!(
        "its checksum was {} when it was first served, at {}",
        before.sha256.join(" "),
        before.at
    );
    // Replacing a file changes its time or size; if both are the same, the file is damaged.
    if before.is_of(&Identity::of(path, head)?) {
        checked.wrong.push(text);
    } else {
        checked.notes.push(text);
    }
    Ok(())
}

fn numbers(part: &Path, checked: &mut Checked) -> anyhow::Result<()> {
    let head = Gguf::read(part)?;
    let findings =
        check_numbers(part, &head, || true).with_context(|| part.display().to_string())?;
    for finding in findings.into_iter().flatten() {
        let list = match finding {
            Finding::UnusedRows { .. } => &mut checked.notes,
            Finding::NotANumber { .. } | Finding::Zeros { .. } => &mut checked.wrong,
        };
        list.push(finding.to_string());
    }
    Ok(())
}

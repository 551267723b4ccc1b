//! Models in several files: `model-00001-of-00003.gguf` names the others.

use std::path::{Path, PathBuf};

use super::Gguf;
use crate::options::LoadError;

/// The most files of a model: llama.cpp counts them with 16 bits.
const PARTS_MAX: u64 = 65_535;

/// The paths of all files of a model. `path` is the first one, and `head` its header.
pub fn parts(path: &Path, head: &Gguf) -> Result<Vec<PathBuf>, LoadError> {
    let count = head.number("split.count").unwrap_or(1);
    if count <= 1 {
        return Ok(vec![path.to_owned()]);
    }
    let broken = |reason: String| LoadError::Broken {
        path: path.to_owned(),
        reason,
    };
    if count > PARTS_MAX {
        return Err(broken(format!("split.count is {count}")));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = format!("-00001-of-{count:05}.gguf");
    let Some(stem) = name.strip_suffix(&end) else {
        return Err(broken(format!(
            "it is one of {count} files, the first of which is named …{end}"
        )));
    };
    let part = |number: u64| path.with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf"));
    Ok((1..=count).map(part).collect())
}

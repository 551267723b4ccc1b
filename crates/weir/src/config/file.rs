//! Finds and reads the config file.

use std::fs;
use std::path::{Path, PathBuf};

use super::problem::Invalid;

/// The config file's path and text: the named file, else `weir.toml` in the directory, if there is one. A file that may exist
/// is never silently left out.
pub(super) fn read(
    directory: &Path,
    named: Option<&Path>,
) -> Result<Option<(PathBuf, String)>, Invalid> {
    let file = match named {
        Some(file) => directory.join(file),
        None => directory.join("weir.toml"),
    };
    if let Err(error) = fs::metadata(&file) {
        let shown = file.display();
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        return Err(Invalid::from(match fs::read_link(&file) {
            Ok(target) if missing => {
                format!(
                    "{shown} is a link to {}, which doesn't exist",
                    target.display()
                )
            }
            _ if missing && named.is_none() => return Ok(None),
            _ if named.is_some() => format!("can't read {shown}: {error}"),
            _ => format!("can't look for {shown}: {error}; name a config with --config"),
        }));
    }
    let bytes = fs::read(&file)
        .map_err(|error| Invalid::from(format!("can't read {}: {error}", file.display())))?;
    let shown = shown(directory, &file);
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let line = line(bytes, good);
        let byte = bytes[good];
        Invalid::from(format!(
            "{shown}:{line}: this line isn't UTF-8 (byte 0x{byte:02X}): save the file in UTF-8, not in Latin-1 or UTF-16"
        ))
    })?;
    Ok(Some((file, text)))
}

/// The file's name in errors: relative to the directory, if it is there.
pub(super) fn shown(directory: &Path, file: &Path) -> String {
    let shown = file.strip_prefix(directory).unwrap_or(file);
    shown.display().to_string()
}

/// The number of the line that contains the byte at `offset`.
pub(super) fn line(text: &[u8], offset: usize) -> usize {
    let before = &text[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

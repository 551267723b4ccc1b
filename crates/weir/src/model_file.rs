//! Checks the kind of a model's file before anything opens it: opening a named pipe would wait for ever.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::bail;

/// Fails unless the path is a file that this user can read.
pub(crate) fn check(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let kind = match fs::metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) => bail!("{}", unreadable(path, &error)),
    };
    let other = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        ""
    };
    if !other.is_empty() {
        bail!("{shown} is {other}, not a GGUF file");
    }
    match File::open(path) {
        Ok(_) => Ok(()),
        Err(error) => bail!("{}", unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no file {shown}"),
        io::ErrorKind::PermissionDenied => {
            format!("{shown} can't be read: this user has no permission")
        }
        _ => format!("{shown} can't be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let pipe = at("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        fs::write(at("file"), "GGUF").unwrap();
        std::os::unix::fs::symlink(at("file"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("pipe"), at("pipe link")).unwrap();
        std::os::unix::fs::symlink(at("loop"), at("loop")).unwrap();
        let check = |name: &str, wrong: &str| match check(&folder.path().join(name)) {
            Ok(()) => assert_eq!(wrong, "", "{name}"),
            Err(error) => assert!(
                !wrong.is_empty() && error.to_string().contains(wrong),
                "{name}: {error}"
            ),
        };
        check("file", "");
        check("link", "");
        check("pipe", "is a named pipe, not a GGUF file");
        check("pipe link", "is a named pipe");
        check("socket", "is a socket");
        check("", "is a directory");
        check("/dev/zero", "is a device");
        check("missing", "there is no file");
        check("file/below", "can't be read");
        check("loop", "can't be read");
    }
}

//! SHA-256 of files, in the notation of `sha256sum` and model hubs.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Bytes read at a time: enough to read a disk at nearly its full speed.
const PART_BYTES: usize = 1 << 20;

/// SHA-256 of a file, as hexadecimal digits.
pub fn checksum_of(path: &Path) -> io::Result<String> {
    let sum = sha256(File::open(path)?, || true)?;
    Ok(sum.expect("nothing stops it"))
}

/// Hashes everything that `from` yields. `go_on` is asked before each MiB; once it says no, the result is `None`.
pub(crate) fn sha256(
    mut from: impl Read,
    mut go_on: impl FnMut() -> bool,
) -> io::Result<Option<String>> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; PART_BYTES];
    while go_on() {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(Some(hex(&hash.finalize())));
        }
        hash.update(&buffer[..read]);
    }
    Ok(None)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_what_sha256sum_says() {
        let text = &b"abc"[..];
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(text, || true).unwrap().as_deref(), Some(expected));
        assert_eq!(sha256(text, || false).unwrap(), None);
    }
}

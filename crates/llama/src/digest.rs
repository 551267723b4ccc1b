//! A digest of everything that a model's logits depend on, for `system_fingerprint`.
//!
//! A file is digested in part: its beginning, with its metadata and vocabulary, and samples of its weights. Files with other
//! weights differ nearly everywhere, and reading all of many gigabytes would take minutes on a slow disk.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::backend;
use crate::files::Files;
use crate::options::LoadOptions;
use crate::sizes::Sizes;

/// Bytes read from the beginning of a file.
const HEAD_BYTES: u64 = 16 << 20;
/// Number of samples taken behind the beginning, each of [`SAMPLE_BYTES`].
const SAMPLES: u64 = 64;
const SAMPLE_BYTES: u64 = 64 << 10;
/// The version of the kernels, as in the workspace's Cargo.toml.
const KERNELS: &str = "llama-cpp-sys-2 0.1.161";

/// The digest of the model's files, the kernels and the settings that change results, in hexadecimal digits.
pub(crate) fn of(files: &Files, sizes: &Sizes, options: &LoadOptions) -> io::Result<String> {
    let mut digest = Sha256::new();
    for path in files.paths() {
        add_file(&mut digest, path)?;
    }
    let Sizes {
        threads,
        threads_min,
        cells: _,
        context_tokens: _,
        sequences: _,
        rows,
        outputs: _,
        batching,
        forks: _,
        unified,
        flash_attention,
        aside_tokens,
    } = sizes;
    let settings = format!(
        "{KERNELS} {} {threads} {threads_min} {rows} {batching:?} {unified} {flash_attention} {aside_tokens:?} {:?}",
        backend::system_info(),
        options.kv_format,
    );
    digest.update(settings);
    Ok(digest
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

fn add_file(digest: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    digest.update(size.to_le_bytes());
    let mut add = |from: u64, bytes: u64| -> io::Result<()> {
        file.seek(SeekFrom::Start(from))?;
        let mut part = Vec::new();
        (&mut file).take(bytes).read_to_end(&mut part)?;
        digest.update(&part);
        Ok(())
    };
    add(0, HEAD_BYTES)?;
    let rest = size.saturating_sub(HEAD_BYTES);
    if rest <= SAMPLES * SAMPLE_BYTES {
        return add(HEAD_BYTES.min(size), rest);
    }
    // The last sample ends where the file ends.
    for sample in 0..SAMPLES {
        let place = (rest - SAMPLE_BYTES) * sample / (SAMPLES - 1);
        add(HEAD_BYTES + place, SAMPLE_BYTES)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn files_that_differ_have_other_digests() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("model.gguf");
        let of = |size: u64, change: Option<u64>| {
            let mut file = File::create(&path).expect("a file");
            file.set_len(size).expect("it has a size");
            if let Some(place) = change {
                file.seek(SeekFrom::Start(place)).expect("a place");
                file.write_all(b"x").expect("it can be written");
            }
            drop(file);
            let mut digest = Sha256::new();
            add_file(&mut digest, &path).expect("it can be read");
            digest.finalize()
        };
        let large = HEAD_BYTES + 10 * SAMPLES * SAMPLE_BYTES;
        for size in [0, 1, HEAD_BYTES, HEAD_BYTES + 1, large] {
            assert_eq!(of(size, None), of(size, None));
            assert_ne!(of(size, None), of(size + 1, None));
            if size > 0 {
                assert_ne!(of(size, None), of(size, Some(0)));
                assert_ne!(of(size, None), of(size, Some(size - 1)));
            }
        }
        // A change between two samples goes unnoticed.
        assert_eq!(
            of(large, None),
            of(large, Some(HEAD_BYTES + SAMPLE_BYTES + 1))
        );
    }

    #[test]
    fn the_kernels_are_those_of_the_workspace() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).expect("the workspace's manifest");
        let (name, version) = KERNELS.split_once(' ').expect("a name and a version");
        let line = format!("{name} = {{ version = \"={version}\"");
        assert!(manifest.contains(&line), "{line}");
    }
}

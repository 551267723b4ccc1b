//! A faster copy of a model file: made once, measured, and served only while it is complete and belongs to this file.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use weir_inference::model::Model;
use weir_llama::{
    Difference, KL_MEAN_MAX, LoadOptions, Requantized, SpeedOptions, for_speed, load,
};

#[path = "support/common.rs"]
mod common;
use common::{compute, greedy, models, small, smollm2_file, text, tokens};

fn options(folder: &Path) -> SpeedOptions {
    SpeedOptions {
        folder: folder.to_owned(),
        // One thread, since tests run in parallel.
        threads: Some(1),
        kl_mean_max: KL_MEAN_MAX,
    }
}

/// The copy of a source, and whether it was made just now.
fn copy(source: &Path, folder: &Path) -> (PathBuf, Difference, bool) {
    match for_speed(source, &options(folder)).expect("it can be requantized") {
        Requantized::Copy {
            path,
            formats,
            difference,
            new,
        } => {
            assert_eq!(formats, "Q4_1 to Q8_0");
            (path, difference, new)
        }
        other => panic!("{other:?}"),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.map(|entry| name(entry.expect("a file"))).collect();
    names.sort();
    names
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_copy_is_made_once_and_again_when_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("made/if/missing");
    let (path, difference, new) = copy(&smollm2_file(), &folder);
    assert!(new);
    assert!(difference.tokens > 300, "{difference:?}");
    assert!((1e-6..0.01).contains(&difference.kl_mean), "{difference:?}");
    assert!(
        (0.9..=1.0).contains(&difference.same_best),
        "{difference:?}"
    );
    assert_eq!(
        copy(&smollm2_file(), &folder),
        (path.clone(), difference, false)
    );

    // The copy generates text.
    let mut model = load(&path, &small()).expect("the copy loads");
    let prompt = tokens(&model, "The capital of France is");
    let logits = compute(&mut model, 0, 0, &prompt, 64);
    let answer = greedy(&mut model, 0, prompt.len(), &logits, 2);
    assert_eq!(text(&model, &answer).trim(), "Paris.");
    drop(model);

    let whole = fs::read(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let at = whole.len() / 2;
    file.write_all_at(&[whole[at] ^ 1], at as u64).unwrap();
    let again = copy(&smollm2_file(), &folder);
    assert_eq!(again, (path.clone(), difference, true));
    assert!(fs::read(&path).unwrap() == whole);
    assert_eq!(names(&folder).len(), 3, "{:?}", names(&folder));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn two_at_once_make_one_copy() {
    let folder = tempfile::tempdir().unwrap();
    let source = smollm2_file();
    let mut both = std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| copy(&source, folder.path())));
        threads.map(|thread| thread.join().unwrap())
    });
    both.sort_by_key(|(_, _, new)| *new);
    let [(path, difference, false), (other, as_well, true)] = both else {
        panic!("{both:?}");
    };
    assert_eq!((path, difference), (other, as_well));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_copy_that_differs_too_much_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let strict = SpeedOptions {
        kl_mean_max: 0.0,
        ..options(folder.path())
    };
    let refused = for_speed(&smollm2_file(), &strict).unwrap();
    let Requantized::TooDifferent { difference } = refused else {
        panic!("{refused:?}");
    };
    assert!(difference.kl_mean > 0.0);
    let left = names(folder.path());
    assert!(
        left.len() == 2 && left[0].ends_with(".json") && left[1] == "lock",
        "{left:?}"
    );
    // The next start doesn't make the copy again, whatever limit it has.
    for again in [strict, options(folder.path())] {
        assert_eq!(
            for_speed(&smollm2_file(), &again).unwrap(),
            Requantized::TooDifferent { difference }
        );
    }
}

#[test]
fn what_is_served_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let check = |source: &Path, expected: &str| {
        let served = for_speed(source, &options(folder.path()));
        let got = served.map_err(|error| error.to_string());
        assert!(format!("{got:?}").contains(expected), "{got:?}");
    };
    let bert = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-bert.gguf");
    check(Path::new(bert), "AsItIs");
    check(Path::new("missing.gguf"), "can't be read");
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    check(Path::new(text), "is not a GGUF file");
    let gemma = models().join("gemma-3-270m-q4_k_m.gguf");
    if cfg!(target_arch = "x86_64") && gemma.is_file() {
        check(
            &gemma,
            "0 % of its weights are in a format without a fast kernel here",
        );
    }
    if cfg!(target_arch = "x86_64") {
        let file = tempfile::NamedTempFile::new().unwrap();
        let unusable = options(file.path());
        let error = for_speed(&smollm2_file(), &unusable).unwrap_err();
        assert!(error.to_string().contains("exists"), "{error}");
    }
    assert!(names(folder.path()).is_empty());
    // The demo model's file was only read, and loads as before.
    assert!(
        load(&smollm2_file(), &LoadOptions::default())
            .unwrap()
            .capacity()
            .cells
            > 0
    );
}

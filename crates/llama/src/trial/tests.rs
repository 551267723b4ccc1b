use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn a_file_works_only_if_the_trial_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    let check = |script: &str, expected: Result<(), &str>| {
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let tried = try_out(&program, Path::new("a.gguf"), &ServeOptions::default());
        let said = tried.map_err(|error| error.to_string());
        assert_eq!(said, expected.map_err(str::to_owned), "{script}");
    };
    let deadly = |how: &str| {
        format!(
            "the model file a.gguf is damaged, or of a kind that llama.cpp can't load: a process that tried it ended ({how}"
        )
    };
    check("echo this model works", Ok(()));
    check(
        "test $1 = try-model && test $2 = a.gguf && echo this model works",
        Ok(()),
    );
    check(
        "echo it has no vocabulary; exit 3",
        Err("it has no vocabulary"),
    );
    check(
        "echo a >&2; echo 'GGML_ASSERT(x) failed' >&2; echo >&2; kill -ABRT $$",
        Err(&deadly("signal: 6 (SIGABRT)): GGML_ASSERT(x) failed")),
    );
    check("kill -SEGV $$", Err(&deadly("signal: 11 (SIGSEGV)): ")));
    check(
        "echo this model works; exit 1",
        Err(&deadly("exit status: 1): ")),
    );
    check("echo 0 tests", Err(&deadly("exit status: 0): ")));
    fs::remove_file(&program).unwrap();
    let error = try_out(&program, Path::new("a.gguf"), &ServeOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Trial { .. }), "{error}");
}

#[test]
fn a_trial_has_a_small_cache_and_the_options_of_the_model() {
    let check = |asked: [Option<u32>; 3], bytes, expected: [Option<u32>; 3]| {
        let [threads, cells, sequences] = asked;
        let generate = LoadOptions {
            threads,
            cells,
            sequences,
            reproducible: true,
            ..LoadOptions::default()
        };
        let options = ServeOptions {
            generate,
            embeddings: true,
            ..ServeOptions::default()
        };
        let ServeOptions {
            generate,
            embed,
            embeddings,
        } = small(&options, bytes);
        let got = [generate.threads, generate.cells, generate.sequences];
        assert_eq!(got, expected, "{asked:?} {bytes}");
        assert!(generate.reproducible && embeddings);
        assert_eq!(embed.threads.is_some(), bytes < LARGE_BYTES);
    };
    let most = [Some(TRIAL_CELLS), Some(TRIAL_SEQUENCES)];
    check([None, None, None], 1, [Some(1), most[0], most[1]]);
    check(
        [Some(9), Some(99_999), Some(256)],
        1,
        [Some(1), most[0], most[1]],
    );
    check(
        [Some(9), Some(300), Some(1)],
        1 << 40,
        [Some(9), Some(300), Some(1)],
    );
    check([None, None, None], 1 << 40, [None, most[0], most[1]]);
}

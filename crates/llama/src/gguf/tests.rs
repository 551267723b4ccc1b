use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

#[path = "../../tests/support/edit.rs"]
mod edit;
use edit::{Edit, F32, Info, LIST, text};

/// A file with 32 weights that claims to be a llama model.
fn small() -> Edit {
    let mut edit = Edit {
        keys: Vec::new(),
        tensors: vec![
            info("token_embd.weight", &[32, 4], 0),
            info("output.weight", &[32, 4], 512),
        ],
        weights: vec![7; 1024],
        alignment: 32,
        counts: None,
        version: 3,
    };
    edit.set("general.architecture", edit::TEXT, text(b"llama"));
    for (key, value) in [
        ("block_count", 2),
        ("embedding_length", 32),
        ("context_length", 64),
        ("attention.head_count", 4),
    ] {
        edit.set_u32(&format!("llama.{key}"), value);
    }
    let kv = [
        4u32.to_le_bytes().to_vec(),
        2u64.to_le_bytes().to_vec(),
        [4u32, 2].map(u32::to_le_bytes).concat(),
    ];
    edit.set("llama.attention.head_count_kv", LIST, kv.concat());
    let tokens = [8u32.to_le_bytes().to_vec(), 4u64.to_le_bytes().to_vec()];
    let tokens = [
        tokens.concat(),
        [b"a", b"b", b"c", b"d"].map(|it| text(it)).concat(),
    ];
    edit.set("tokenizer.ggml.tokens", LIST, tokens.concat());
    edit
}

fn info(name: &str, sizes: &[u64], offset: u64) -> Info {
    Info {
        name: name.as_bytes().to_vec(),
        sizes: sizes.to_vec(),
        format: Format::F32.ggml(),
        offset,
    }
}

fn read(edit: &Edit) -> Result<Gguf, String> {
    read_bytes(&edit.bytes())
}

fn read_bytes(bytes: &[u8]) -> Result<Gguf, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    let read = Gguf::read(file.path());
    read.map_err(|error| error.to_string())
}

#[test]
fn what_a_head_says() {
    let head = read(&small()).unwrap();
    assert_eq!(head.architecture(), Some("llama"));
    assert_eq!(head.of_model("block_count"), Some(2));
    assert_eq!(head.of_layers("attention.head_count_kv"), Some(vec![4, 2]));
    assert_eq!(head.of_model("attention.head_count_kv"), Some(4));
    assert_eq!(head.length("tokenizer.ggml.tokens"), Some(4));
    assert_eq!(head.number("general.architecture"), None);
    assert_eq!(head.parameters(), 256);
    let output = &head.tensors[1];
    assert_eq!(
        (output.name.as_str(), output.shape, output.bytes),
        ("output.weight", [32, 4, 1], 512)
    );
    assert_eq!(output.offset, head.data_offset + 512);
    assert_eq!(head.bytes, head.data_offset + 1024);
    assert_eq!(head.check(), Ok(()));
}

#[test]
fn a_sum_is_of_the_head_alone() {
    let sum = |edit: &Edit| read(edit).unwrap().head_sha256;
    let before = sum(&small());
    let mut weights = small();
    weights.weights[1_000] = 0;
    assert_eq!(sum(&weights), before);
    let mut head = small();
    head.set_u32("llama.block_count", 3);
    assert_ne!(sum(&head), before);
}

/// Applies a change to the small file, and compares the error with what is expected.
fn check(what: &str, change: impl FnOnce(&mut Edit), expected: &str) {
    let mut edit = small();
    change(&mut edit);
    let refused = read(&edit).and_then(|head| head.check());
    let said = refused.expect_err(what);
    assert!(said.contains(expected), "{what}: {said}");
}

#[test]
fn what_is_wrong_is_said() {
    let huge = u64::MAX.to_le_bytes();
    check("version", |it| it.version = 1, "version 1");
    check("big endian", |it| it.version = 3 << 24, "version 50331648");
    check(
        "keys",
        |it| it.counts = Some((1 << 40, 2)),
        "1099511627776 keys",
    );
    check(
        "tensors",
        |it| it.counts = Some((7, u64::MAX)),
        "18446744073709551615 tensors",
    );
    check(
        "more keys",
        |it| it.counts = Some((60_000, 2)),
        "has a name of",
    );
    check(
        "a key twice",
        |it| it.keys.push(it.keys[0].clone()),
        "is there twice",
    );
    check("no name", |it| it.keys[0].name.clear(), "a name of 0 bytes");
    check("a NUL", |it| it.keys[0].name[3] = 0, "with a NUL");
    check("a kind", |it| it.keys[1].kind = 13, "unknown kind 13");
    check(
        "a list in a list",
        |it| it.set("x", LIST, 9u32.to_le_bytes().repeat(3)),
        "unknown kind 9",
    );
    check(
        "a list without end",
        |it| it.set("x", LIST, [&4u32.to_le_bytes()[..], &huge].concat()),
        "18446744073709551615 entries",
    );
    check(
        "texts without end",
        |it| it.set("x", LIST, [&8u32.to_le_bytes()[..], &huge].concat()),
        "bytes more",
    );
    check(
        "a text without end",
        |it| it.set("x", edit::TEXT, huge.to_vec()),
        "bytes more",
    );
    check(
        "alignment",
        |it| it.set_u32("general.alignment", 24),
        "general.alignment is",
    );
    check(
        "alignment 0",
        |it| it.set_u32("general.alignment", 0),
        "general.alignment is",
    );
    check(
        "alignment of another kind",
        |it| it.set("general.alignment", F32, vec![0; 4]),
        "general.alignment is",
    );
    check(
        "a long name",
        |it| it.tensors[0].name = vec![b'a'; 64],
        "a name of 64 bytes",
    );
    check(
        "a tensor twice",
        |it| it.tensors[1].name = it.tensors[0].name.clone(),
        "is there twice",
    );
    check(
        "dimensions",
        |it| it.tensors[0].sizes = vec![1; 5],
        "5 dimensions",
    );
    check(
        "sizes",
        |it| it.tensors[0].sizes = vec![1 << 40, 1 << 40],
        "can't be counted",
    );
    check(
        "a negative size",
        |it| it.tensors[0].sizes = vec![32, 1 << 63],
        "can't be counted",
    );
    check(
        "a format",
        |it| it.tensors[0].format = 43,
        "unknown format 43",
    );
    check(
        "a format that is gone",
        |it| it.tensors[0].format = 4,
        "unknown format 4",
    );
    check(
        "no whole blocks",
        |it| {
            it.tensors[0].format = Format::Q8_0.ggml();
            it.tensors[0].sizes = vec![33, 4];
        },
        "whose blocks have 32",
    );
    check(
        "an offset",
        |it| it.tensors[1].offset += 32,
        "is said to be at 544",
    );
    check(
        "an offset without end",
        |it| it.tensors[1].offset = u64::MAX,
        "is said to be at",
    );
    check(
        "too short",
        |it| it.weights.truncate(1023),
        "and the file has",
    );
    check("no weights", |it| it.weights.clear(), "and the file has");
    check("no tensors", |it| it.tensors.clear(), "no tensors");
    check(
        "no architecture",
        |it| it.keys.retain(|key| key.name != b"general.architecture"),
        "general.architecture",
    );
}

#[test]
fn what_llama_cpp_asserts_is_said_before() {
    let number = |key: &str, value: u32, expected: &str| {
        let name = format!("llama.{key}");
        check(
            &format!("{key} {value}"),
            |it| it.set_u32(&name, value),
            expected,
        );
    };
    number(
        "block_count",
        0,
        "block_count is 0, which must be between 1 and 512",
    );
    number("block_count", 1 << 30, "block_count is 1073741824");
    number("block_count", 513, "block_count is 513");
    number("nextn_predict_layers", 3, "must be between 0 and 2");
    number("embedding_length", 0, "embedding_length is 0");
    number(
        "embedding_length",
        u32::MAX,
        "embedding_length is 4294967295",
    );
    number("context_length", 0, "context_length is 0");
    number("context_length", u32::MAX, "context_length is 4294967295");
    number("attention.head_count", 33, "head_count is 33");
    number("attention.head_count_kv", u32::MAX, "head_count_kv is");
    number("expert_count", 1_025, "expert_count is 1025");
    check(
        "experts in use",
        |it| {
            it.set_u32("llama.expert_count", 4);
            it.set_u32("llama.expert_used_count", 5);
        },
        "expert_used_count is 5",
    );
    check(
        "groups of experts",
        |it| {
            it.set_u32("llama.expert_count", 4);
            it.set_u32("llama.expert_group_count", 4);
        },
        "expert_group_count is 4",
    );
    check(
        "rope",
        |it| it.set("llama.rope.scaling.type", edit::TEXT, text(b"lin")),
        "is none of none, linear",
    );
    let few = [
        6u32.to_le_bytes().to_vec(),
        3u64.to_le_bytes().to_vec(),
        vec![0; 12],
    ]
    .concat();
    check(
        "scores",
        |it| it.set("tokenizer.ggml.scores", LIST, few.clone()),
        "has 3 entries, and the vocabulary 4",
    );
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    for path in [pipe, folder.path().to_owned(), PathBuf::from("/dev/zero")] {
        let refused = Gguf::read(&path).map_err(|error| error.to_string());
        assert!(
            refused.clone().unwrap_err().contains("not a regular file"),
            "{refused:?}"
        );
    }
}

#[test]
fn parts_are_named_by_the_first() {
    let mut edit = small();
    edit.set("split.count", 2, 3u16.to_le_bytes().to_vec());
    let head = read(&edit).unwrap();
    let names = |path: &str| parts(Path::new(path), &head).map_err(|error| error.to_string());
    let found = names("/m/a-00001-of-00003.gguf").unwrap();
    let expected = [
        "/m/a-00001-of-00003.gguf",
        "/m/a-00002-of-00003.gguf",
        "/m/a-00003-of-00003.gguf",
    ];
    assert_eq!(found, expected.map(PathBuf::from));
    for other in [
        "/m/a-00002-of-00003.gguf",
        "/m/a.gguf",
        "/m/a-00001-of-00004.gguf",
    ] {
        assert!(
            names(other).unwrap_err().contains("one of 3 files"),
            "{other}"
        );
    }
    let alone = read(&small()).unwrap();
    assert_eq!(
        parts(Path::new("/m/a.gguf"), &alone).unwrap(),
        [PathBuf::from("/m/a.gguf")]
    );
}

proptest! {
    /// Any bytes are changed: the file is read or refused, and no length in it is trusted.
    #[test]
    fn bytes_that_are_changed_are_an_error_or_another_head(
        changes in prop::collection::vec((0usize..1_024, any::<u8>()), 1..8),
        length in 0usize..2_048,
    ) {
        let mut bytes = small().bytes();
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(length.max(4));
        if let Ok(head) = read_bytes(&bytes) {
            let _ = head.check();
            prop_assert!(head.tensors.iter().all(|it| it.offset + it.bytes <= head.bytes));
        }
    }
}

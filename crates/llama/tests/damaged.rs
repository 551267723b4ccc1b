//! Damaged files, generated from a seed: each is refused with a reason, or serves. None ends the serving process, though
//! some end the trial process.
//!
//! `WEIR_MUTANTS=5000 cargo nextest run --release -p weir-llama --test damaged` tests more of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weir_inference::model::{Bos, Model, SequenceId};
use weir_llama::gguf::Gguf;
use weir_llama::{EmbedOptions, LoadError, LoadOptions, ServeOptions, Served, open, try_out};

#[path = "support/common.rs"]
mod common;
#[path = "support/edit.rs"]
mod edit;
use common::{compute, smollm2_file, tiny_file};
use edit::{Edit, Info, LIST, TEXT};

/// The program that runs the trial.
const TRIAL: &str = env!("CARGO_BIN_EXE_try-model");

/// Mutants per file; those of the demo model take longer.
const MUTANTS: u64 = 128;
const DEMO_MUTANTS: u64 = 10;

#[test]
fn mutants_of_an_encoder() {
    check(&tiny_file("bert"), MUTANTS);
}

#[test]
fn mutants_of_a_recurrent_model() {
    check(&tiny_file("mamba"), MUTANTS);
}

#[test]
fn mutants_of_a_hybrid() {
    check(&tiny_file("jamba"), MUTANTS);
}

#[test]
fn mutants_of_a_hybrid_with_a_window() {
    check(&tiny_file("lfm2"), MUTANTS);
}

#[test]
fn mutants_of_the_demo_model() {
    check(&smollm2_file(), DEMO_MUTANTS);
}

/// Counts of the mutants' results. `deadly` counts them by the last message of the trial process.
#[derive(Debug, Default)]
struct Seen {
    served: u64,
    by_head: u64,
    refused: u64,
    deadly: BTreeMap<String, u64>,
}

fn check(file: &Path, mutants: u64) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let original = Edit::read(file);
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("mutant.gguf");
    let mut seen = Seen::default();
    for seed in 0..number("WEIR_MUTANTS").unwrap_or(mutants) {
        let mut random = Random(seed);
        let mut mutant = original.clone();
        let what = mutate(&mut mutant, &mut random);
        mutant.write(&path);
        let blame = Blame(format!("{}: seed {seed}: {what}\n", file.display()));
        judge(&path, &mut seen);
        drop(blame);
    }
    let died: u64 = seen.deadly.values().sum();
    let all = seen.served + seen.by_head + seen.refused + died;
    // If every mutant were refused, or every one served, the test would show nothing.
    assert!(seen.served > 0 && seen.served < all, "{seen:#?}");
}

/// Prints the mutant's name if its test panics.
struct Blame(String);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), self.0.as_bytes());
        }
    }
}

fn judge(path: &Path, seen: &mut Seen) {
    let options = ServeOptions {
        generate: LoadOptions {
            threads: Some(1),
            ..LoadOptions::default()
        },
        embed: one_thread(),
        ..ServeOptions::default()
    };
    let head = Gguf::read(path).map_err(|error| error.to_string());
    if head.and_then(|head| head.check()).is_err() {
        // A file whose header is refused can't be opened either.
        assert!(open(path).is_err());
        seen.by_head += 1;
        return;
    }
    match try_out(&PathBuf::from(TRIAL), path, &options) {
        Ok(()) => {
            serve(path);
            seen.served += 1;
        }
        Err(LoadError::Refused(_)) => seen.refused += 1,
        Err(LoadError::Deadly { status, said, .. }) => {
            let said: String = said.chars().skip_while(|&c| c != '/').take(160).collect();
            *seen.deadly.entry(format!("{status}: {said}")).or_default() += 1;
        }
        Err(error) => panic!("{error}"),
    }
}

/// Options with one thread: several would spin while they wait for each other.
fn one_thread() -> EmbedOptions {
    EmbedOptions {
        threads: Some(1),
        ..EmbedOptions::default()
    }
}

/// Serves the file in this process, with other sizes than the trial's.
fn serve(path: &Path) {
    let options = ServeOptions {
        generate: LoadOptions {
            threads: Some(1),
            cells: Some(2_048),
            sequences: Some(4),
            ..LoadOptions::default()
        },
        embed: one_thread(),
        ..ServeOptions::default()
    };
    let served = open(path).and_then(|file| file.serve(&options));
    let Served { embedder, model } = served.expect("what was tried loads");
    if let Some(mut embedder) = embedder {
        use weir_inference::model::Embedder;
        embedder.embed(&[[0, 1, 2].into()]).expect("it was tried");
    }
    let Some(mut model) = model else { return };
    let tokens = model
        .tokenizer()
        .tokenize("What a weir is: a dam, 123.", Bos::Add);
    let room = model.facts().context_tokens.min(24) as usize;
    let tokens: Vec<_> = tokens
        .into_iter()
        .chain([0])
        .take(room.div_ceil(2))
        .collect();
    for sequence in [0, 3] {
        let mut logits = compute(&mut model, sequence, 0, &tokens, 8);
        for position in tokens.len()..room {
            let next = common::best(&logits);
            logits = compute(&mut model, sequence, position, &[next], 1);
        }
    }
    model.forget(SequenceId(3));
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// Makes one change, sometimes two, and returns their description.
fn mutate(edit: &mut Edit, random: &mut Random) -> String {
    let times = random.one_of(&[1, 1, 1, 2]);
    let changes = (0..times).map(|_| match random.below(10) {
        0..=5 => change_key(edit, random),
        6 | 7 => change_tensor(edit, random),
        _ => change_weights(edit, random),
    });
    changes.collect::<Vec<_>>().join("; ")
}

fn change_key(edit: &mut Edit, random: &mut Random) -> String {
    let at = random.below(edit.keys.len());
    let key = &mut edit.keys[at];
    let name = String::from_utf8_lossy(&key.name).into_owned();
    let what = match (key.kind, random.below(8)) {
        (_, 0) => {
            edit.keys.remove(at);
            "is gone".to_owned()
        }
        (_, 1) => {
            let others = [3, 5, 6, 7, 10];
            let (kind, value) = (random.one_of(&others), random.next().to_le_bytes());
            let size = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8][kind as usize];
            (key.kind, key.value) = (kind, value[..size].to_vec());
            format!("is of kind {kind}: {value:?}")
        }
        (TEXT, _) => {
            let text: &[u8] = random.one_of(&[
                b"",
                b"?",
                b"llama",
                b"mamba",
                b"bert",
                b"gemma3",
                b"\xff\xfe\x00",
                b"{{ x",
            ]);
            key.value = edit::text(text);
            format!("is {:?}", String::from_utf8_lossy(text))
        }
        (LIST, _) => change_list(&mut key.value, random),
        (..) => {
            let before = key
                .value
                .iter()
                .rev()
                .fold(0u64, |all, &byte| all << 8 | u64::from(byte));
            let value = random.one_of(&[
                0,
                1,
                2,
                3,
                before + 1,
                before.wrapping_sub(1),
                before / 2,
                before * 2,
                1 << 30,
                u64::from(u32::MAX),
                0x7fc0_0000,
                0xff80_0000,
                1 << 31,
            ]);
            let size = key.value.len();
            key.value.copy_from_slice(&value.to_le_bytes()[..size]);
            format!("is {value}, and was {before}")
        }
    };
    format!("{name} {what}")
}

fn change_list(value: &mut Vec<u8>, random: &mut Random) -> String {
    let kind = u32::from_le_bytes(value[..4].try_into().expect("four"));
    let length = u64::from_le_bytes(value[4..12].try_into().expect("eight"));
    if kind != TEXT && random.below(2) == 0 {
        let size = (value.len() - 12) / (length.max(1) as usize);
        let kept = random.one_of(&[0, 1, length / 2, length.saturating_sub(1)]);
        value[4..12].copy_from_slice(&kept.to_le_bytes());
        value.truncate(12 + size * kept as usize);
        return format!("has {kept} entries instead of {length}");
    }
    if kind == TEXT {
        let kept = random.one_of(&[0, 1, length / 2, length.saturating_sub(1)]);
        let mut at = 12;
        for _ in 0..kept {
            let size = u64::from_le_bytes(value[at..at + 8].try_into().expect("eight"));
            at += 8 + size as usize;
        }
        value[4..12].copy_from_slice(&kept.to_le_bytes());
        value.truncate(at);
        return format!("has {kept} texts instead of {length}");
    }
    for _ in 0..random.one_of(&[1, 100]) {
        let at = 12 + random.below(value.len() - 12);
        if let Some(byte) = value.get_mut(at) {
            *byte = random.next() as u8;
        }
    }
    "has other entries".to_owned()
}

/// Changes the description of a tensor. Tensors still follow each other without gaps, so that only the description is wrong.
fn change_tensor(edit: &mut Edit, random: &mut Random) -> String {
    let at = random.below(edit.tensors.len());
    let tensors = edit.tensors.len();
    let name = String::from_utf8_lossy(&edit.tensors[at].name).into_owned();
    let what = match random.below(6) {
        0 => {
            edit.tensors[at].sizes.reverse();
            "is turned"
        }
        1 => {
            let sizes = &mut edit.tensors[at].sizes;
            let size = random.below(sizes.len());
            sizes[size] = random.one_of(&[0, 1, sizes[size] / 2, sizes[size] + 1]);
            "has another size"
        }
        2 => {
            edit.tensors[at].format = random.below(43) as u32;
            "has another format"
        }
        3 => {
            let other = random.below(tensors);
            let taken = edit.tensors[other].name.clone();
            edit.tensors[other].name = std::mem::replace(&mut edit.tensors[at].name, taken);
            "has another's name"
        }
        4 => {
            edit.tensors[at].name.push(b'x');
            "has another name"
        }
        _ => {
            edit.tensors[at].sizes = vec![edit.tensors[at].sizes.iter().product()];
            "is flat"
        }
    };
    lay_out(edit);
    format!("{name} {what}")
}

fn lay_out(edit: &mut Edit) {
    let mut next = 0;
    for Info {
        sizes,
        format,
        offset,
        ..
    } in &mut edit.tensors
    {
        *offset = next;
        let numbers: u64 = sizes.iter().product();
        let bytes = bytes_of(*format, numbers);
        next += bytes.next_multiple_of(edit.alignment as u64);
    }
    let needed = edit.weights.len().max(next as usize);
    edit.weights.resize(needed.min(1 << 28), 0);
}

fn bytes_of(format: u32, numbers: u64) -> u64 {
    let (block, bytes) = match format {
        0 | 26 => (1, 4),
        1 | 25 | 30 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        12 => (256, 144),
        14 => (256, 210),
        24 => (1, 1),
        27 | 28 => (1, 8),
        _ => (256, 100),
    };
    numbers / block * bytes
}

fn change_weights(edit: &mut Edit, random: &mut Random) -> String {
    let length = edit.weights.len();
    let begin = random.below(length);
    let end = (begin + random.one_of(&[1, 64, 4_096, 1 << 20])).min(length);
    let byte = random.one_of(&[0u8, 0xff, 0x7f]);
    edit.weights[begin..end].fill(byte);
    format!("weights {begin}..{end} are {byte:#x}")
}

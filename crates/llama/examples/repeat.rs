//! Measures how often the same request, sent twice in a row, gets two different answers: the second prompt comes from the prefix
//! cache, and is computed in steps of another shape.
//!
//! `cargo run --release -p weir-llama --example repeat -- RESULTS 1000 "as it comes;repeatable" models/*.gguf`
//!
//! Runs that many pairs for each of these modes (or `all`), each file, and each way to sample. Results are appended to the file
//! RESULTS, and results that are there already aren't computed again, so the run can be ended at any time. At the end, and
//! without files, a table is printed.

#![expect(clippy::print_stdout, reason = "a report for a person")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use jiff::Timestamp;
use weir_engine::request::{OutputLimit, Overflow, Prompt, SamplingFields};
use weir_engine::{Event, Input, Request, Sampling};
use weir_inference::local::{LocalEngine, Options, Speculation};
use weir_llama::{LoadOptions, load};

/// Tokens of each answer.
const TOKENS: u32 = 48;
/// The modes, by their names in the table.
const MODES: [&str; 5] = [
    "as it comes",
    "without drafts",
    "repeatable",
    "repeatable, another between",
    "reproducible",
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let results = arguments.next().expect("a file for the results");
    let pairs: u64 = arguments
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a number of pairs");
    let modes = arguments.next().unwrap_or_default();
    let is_asked = |mode: &str| modes == "all" || modes.split(';').any(|asked| asked == mode);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let files: Vec<String> = arguments.collect();
    for mode in MODES.into_iter().filter(|mode| is_asked(mode)) {
        for file in &files {
            let engine = engine(Path::new(file), mode);
            let name = Path::new(file)
                .file_stem()
                .unwrap_or_default()
                .to_string_lossy();
            for temperature in [0.0, 1.0] {
                for number in 0..pairs {
                    let key = format!("{name}\t{mode}\t{temperature}\t{number}");
                    if is_there(&results, &key) {
                        continue;
                    }
                    let ask = |number, repeatable| {
                        let request = request(number, temperature, repeatable);
                        runtime.block_on(answer(&engine, request))
                    };
                    let is_repeatable = mode.starts_with("repeatable");
                    let first = ask(number, is_repeatable);
                    if mode == "repeatable, another between" {
                        ask(number + pairs, false);
                    }
                    let second = ask(number, is_repeatable);
                    let same = first
                        .bytes()
                        .zip(second.bytes())
                        .take_while(|(a, b)| a == b);
                    let differ = (first != second).then(|| same.count());
                    let differ = differ.map_or("same".to_owned(), |at| at.to_string());
                    append(&results, &format!("{key}\t{differ}\t{}", first.len()));
                }
            }
            engine.stop_and_wait();
        }
    }
    table(&results);
}

fn engine(path: &Path, mode: &str) -> LocalEngine {
    let options = LoadOptions {
        reproducible: mode == "reproducible",
        aside_tokens: 8_192,
        ..LoadOptions::default()
    };
    let model = load(path, &options).expect("the model loads");
    let mut options = Options::new(|| Timestamp::UNIX_EPOCH);
    options.speculation = match mode {
        "without drafts" => Speculation::Off,
        _ => Speculation::Ngram,
    };
    LocalEngine::spawn(model, options).expect("the engine starts")
}

/// Request number `number` of a thousand different ones.
fn request(number: u64, temperature: f64, repeatable: bool) -> Request {
    const ASKED: [&str; 10] = [
        "Explain in two sentences what {} is.",
        "Write a short poem about {}.",
        "List three facts about {}.",
        "What would a child ask about {}?",
        "Tell a story that begins with {}.",
        "Why does {} matter?",
        "Describe {} to somebody who has never seen it.",
        "What is the history of {}?",
        "Give advice to somebody who is afraid of {}.",
        "Compare {} with a river.",
    ];
    const THINGS: [&str; 25] = [
        "a weir",
        "the moon",
        "bread",
        "a bicycle",
        "rain",
        "an engine",
        "money",
        "a garden",
        "glass",
        "music",
        "a bridge",
        "sleep",
        "the north",
        "salt",
        "a lighthouse",
        "wool",
        "time",
        "a debt",
        "a mill",
        "snow",
        "copper",
        "a letter",
        "silence",
        "a map",
        "tea",
    ];
    let (asked, rest) = (ASKED[(number % 10) as usize], number / 10);
    let thing = THINGS[(rest % 25) as usize];
    let asked = asked.replace("{}", thing);
    let many =
        ["", " Be brief.", " Use plain words.", " Mention a number."][(rest / 25 % 4) as usize];
    // Requests at different temperatures have different beginnings, so that they share no cached prefix.
    let greeting = if temperature > 0.0 { "Hello! " } else { "" };
    let text =
        format!("<|im_start|>user\n{greeting}{asked}{many}<|im_end|>\n<|im_start|>assistant\n");
    let fields = SamplingFields {
        temperature: Some(temperature),
        seed: Some(i64::try_from(number).expect("a small number")),
        ..SamplingFields::default()
    };
    Request {
        sampling: Sampling::new(fields).expect("plain sampling"),
        output: OutputLimit {
            tokens: Some(TOKENS),
            overflow: Overflow::Refuse,
        },
        repeatable,
        ..Request::new(Input::Prompts(vec![Prompt::Text(text)]))
    }
}

async fn answer(engine: &LocalEngine, request: Request) -> String {
    let prepared = engine.render(request).await.expect("it fits the context");
    let mut events = engine.start(prepared).expect("it is accepted");
    let mut answer = String::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Text { text, .. } => answer.push_str(&text),
            Event::Done(_) => return answer,
            Event::Failed(error) => panic!("{error}"),
            Event::Prompt { .. } | Event::Finished { .. } | Event::Call { .. } => {}
        }
    }
    unreachable!("a generation has a last event")
}

fn is_there(results: &str, key: &str) -> bool {
    let text = fs::read_to_string(results).unwrap_or_default();
    text.lines().any(|line| {
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with('\t'))
    })
}

fn append(results: &str, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(results);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    written.expect("results can be written");
}

/// Prints per file, mode and temperature: pairs, pairs that differ, and the part of the text before the first difference, on average.
fn table(results: &str) {
    let text = fs::read_to_string(results).unwrap_or_default();
    let mut rows: BTreeMap<[&str; 3], (u64, u64, f64)> = BTreeMap::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [file, mode, temperature, _, differ, bytes] = fields[..] else {
            continue;
        };
        let row = rows.entry([file, mode, temperature]).or_default();
        row.0 += 1;
        if let (Ok(at), Ok(bytes)) = (differ.parse::<f64>(), bytes.parse::<f64>()) {
            row.1 += 1;
            row.2 += at / bytes.max(1.0);
        }
    }
    println!("file\tmode\ttemperature\tpairs\tdiffer\tthe same until");
    for ([file, mode, temperature], (pairs, differ, part)) in rows {
        let percent = differ as f64 * 100.0 / pairs as f64;
        let same = part * 100.0 / differ.max(1) as f64;
        println!("{file}\t{mode}\t{temperature}\t{pairs}\t{percent:.1} %\t{same:.0} %");
    }
}

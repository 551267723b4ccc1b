//! Compiles JSON Schemas and writes documents that they allow, by random walks: what `scripts/schemas.py` measures.
//!
//! Each line of the input is `{"name": …, "schema": …}`; each line of the output has the name, whether the schema was
//! accepted, what of it isn't enforced, the time that it took, and documents. Tokens are single bytes.

#![expect(clippy::print_stdout, reason = "its purpose")]
#![expect(
    clippy::disallowed_types,
    reason = "measures real time, outside any runtime"
)]

use std::io::BufRead;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use weir_inference::constraint::{Cancel, Constraints, Grammar};
use weir_inference::sim::{SimTokenizer, random_text};

/// Bytes of a document; longer ones aren't finished.
const DOCUMENT_BYTES_MAX: usize = 3_000;

fn main() {
    let documents: u64 = std::env::args()
        .nth(1)
        .and_then(|count| count.parse().ok())
        .unwrap_or(3);
    let constraints = Constraints::new(Arc::new(SimTokenizer));
    constraints.read_vocabulary();
    for line in std::io::stdin().lock().lines() {
        let line: Value =
            serde_json::from_str(&line.expect("a line")).expect("a schema with a name");
        let cancel = Cancel::default();
        let start = Instant::now();
        let compiled = constraints.compile(&Grammar::json_schema(&line["schema"]), &cancel);
        let millis = start.elapsed().as_secs_f64() * 1e3;
        let mut report = json!({"name": line["name"], "millis": millis, "steps": cancel.steps()});
        match compiled {
            Err(error) => report["refused"] = error.to_string().into(),
            Ok(compiled) => {
                let relaxed = compiled
                    .relaxed
                    .iter()
                    .map(|relaxed| json!({"pointer": relaxed.pointer, "reason": relaxed.reason}));
                report["relaxed"] = relaxed.collect();
                let walks = (1..=documents)
                    .map(|seed| random_text(&compiled.constraint, seed, DOCUMENT_BYTES_MAX));
                let (texts, stuck): (Vec<_>, Vec<_>) = walks.partition(Result::is_ok);
                report["documents"] = texts.into_iter().flatten().flatten().collect();
                report["stuck"] = stuck.into_iter().filter_map(Result::err).collect();
            }
        }
        println!("{report}");
    }
}

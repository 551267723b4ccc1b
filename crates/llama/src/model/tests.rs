use std::cell::Cell;
use std::path::Path;

use weir_engine::Token;

use super::*;
use crate::load::load;
use crate::options::LoadOptions;

fn mamba() -> LlamaModel {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let options = LoadOptions {
        threads: Some(1),
        sequences: Some(4),
        ..LoadOptions::default()
    };
    load(&Path::new(folder).join("tiny-mamba.gguf"), &options).expect("the fixture loads")
}

fn rows(sequence: u32, position: u32, tokens: &[Token]) -> Vec<BatchToken> {
    let row = |(position, &token)| BatchToken {
        token,
        position,
        sequence: SequenceId(sequence),
        output: true,
    };
    (position..).zip(tokens).map(row).collect()
}

/// Wherever a step of a recurrent model stops early, the cache is emptied, and everything can be computed again.
#[test]
fn a_step_with_states_that_stops_half_way_loses_all() {
    let text: Vec<Token> = (100..130).collect();
    let mut model = mamba();
    model
        .decode(&rows(0, 0, &text[..4]))
        .expect("it is computed");
    let expected = model.logits(3).to_vec();
    model.forget(SequenceId(0));
    for operations in [0, 1, 5, 20] {
        for sequence in 0..3 {
            let begin = rows(sequence, 0, &text[..2]);
            model.decode(&begin).expect("it is computed");
        }
        model.fork(SequenceId(1), SequenceId(3), 2);
        // The public interface runs such a step to its end, so it is stopped below that; a failure has the same effect.
        let step = [rows(0, 2, &text[..3]), rows(3, 2, &text[..1])].concat();
        model.check(&step).expect("it is a good step");
        model.batch.fill(&step);
        let asked = Cell::new(0);
        let stopped = model.compute(&|| asked.replace(asked.get() + 1) < operations);
        let error = stopped.expect_err("it was stopped");
        assert!(matches!(model.recover(error), DecodeError::Lost(_)));
        assert_eq!(model.lengths, [0; 4]);
        for sequence in 0..4 {
            // The scheduler forgets all its sequences after `Lost`; that must work on empty ones.
            model.forget(SequenceId(sequence));
            let whole = rows(sequence, 0, &text[..4]);
            model.decode(&whole).expect("it is computed");
            let same = model.logits(3).iter().zip(&expected);
            let apart = same.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-4, "{apart} after {operations} operations");
            model.forget(SequenceId(sequence));
        }
    }
}

//! The simulated KV cache: cells that know the tokens before them, shared between forks.

use weir_engine::Token;

use crate::model::{BatchToken, Capacity, Forks, SequenceId};
use crate::sim::tokenizer::{END, Partial, SimTokenizer};
use crate::sim::{SimOptions, mix, unit};

/// The model's state after some tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    seed: u64,
    hash: u64,
    last: Token,
    partial: Option<Partial>,
}

impl State {
    pub(super) fn start(seed: u64) -> Self {
        State {
            seed,
            hash: mix(seed, 0x5eed),
            last: 0,
            partial: None,
        }
    }

    /// The state after one more token. `shape` is that of the batch that computes it, on which kernels' logits depend.
    pub(super) fn then(self, token: Token, position: u32, shape: u64) -> Self {
        let what = u64::from(token) << 32 | u64::from(position);
        State {
            hash: mix(self.hash ^ shape, what),
            last: token,
            seed: self.seed,
            partial: Partial::after(self.partial, token),
        }
    }

    /// The logits after this state: very low for tokens that make no sense here, and random for the others.
    pub(super) fn logits(self, options: &SimOptions) -> Vec<f32> {
        let mut logits = vec![-50.0; SimTokenizer::VOCABULARY];
        if let Some(partial) = self.partial {
            logits[partial.next() as usize] = 10.0;
            return logits;
        }
        for token in SimTokenizer::openings() {
            logits[token as usize] = (unit(mix(self.hash, u64::from(token))) * 6.0) as f32;
        }
        if unit(mix(self.hash, 0x4ab)) < options.habit {
            let openings = SimTokenizer::openings().count() as u64;
            let usual = mix(self.seed, u64::from(self.last)) % openings;
            let usual = SimTokenizer::openings().nth(usual as usize);
            logits[usual.expect("one of them") as usize] = 20.0;
        }
        if unit(mix(self.hash, 0xe0d)) < options.end_probability {
            logits[END as usize] = 50.0;
        }
        logits
    }
}

#[derive(Debug)]
struct Cell {
    state: State,
    /// The number of sequences that have the cell.
    shared: u32,
}

#[derive(Debug)]
pub(super) struct Cache {
    seed: u64,
    forks: Forks,
    cells: Vec<Option<Cell>>,
    free: Vec<usize>,
    sequences: Vec<Vec<usize>>,
}

impl Cache {
    pub(super) fn new(seed: u64, capacity: Capacity) -> Self {
        Cache {
            seed,
            forks: capacity.forks,
            cells: (0..capacity.cells).map(|_| None).collect(),
            free: (0..capacity.cells as usize).rev().collect(),
            sequences: (0..capacity.sequences).map(|_| Vec::new()).collect(),
        }
    }

    pub(super) fn used(&self) -> u32 {
        u32::try_from(self.cells.len() - self.free.len()).expect("as many as a u32 counted")
    }

    /// The number of sequences that have tokens.
    pub(super) fn sequences(&self) -> u32 {
        let some = self
            .sequences
            .iter()
            .filter(|cells| !cells.is_empty())
            .count();
        u32::try_from(some).expect("as many as a u32 counted")
    }

    pub(super) fn append(&mut self, row: BatchToken, shape: u64) -> State {
        let sequence = &mut self.sequences[row.sequence.0 as usize];
        assert_eq!(
            row.position as usize,
            sequence.len(),
            "{row:?} does not continue its sequence"
        );
        let before = match sequence.last() {
            Some(&cell) => {
                self.cells[cell]
                    .as_ref()
                    .expect("a sequence's cell is in use")
                    .state
            }
            None => State::start(self.seed),
        };
        let state = before.then(row.token, row.position, shape);
        let cell = self
            .free
            .pop()
            .expect("a step that does not fit was refused");
        self.cells[cell] = Some(Cell { state, shared: 1 });
        sequence.push(cell);
        state
    }

    pub(super) fn fork(&mut self, from: SequenceId, to: SequenceId, length: u32) {
        let source = &self.sequences[from.0 as usize];
        assert!(
            self.forks == Forks::Anywhere || source.len() == length as usize,
            "a fork of {length} of the {} tokens of {from:?}, which forks at its end only",
            source.len()
        );
        let shared = source[..length as usize].to_vec();
        for &cell in &shared {
            self.cells[cell]
                .as_mut()
                .expect("a sequence's cell is in use")
                .shared += 1;
        }
        let to = &mut self.sequences[to.0 as usize];
        assert!(to.is_empty(), "a fork into a sequence that has tokens");
        *to = shared;
    }

    pub(super) fn truncate(&mut self, sequence: SequenceId, length: u32) {
        assert!(
            self.forks == Forks::Anywhere,
            "{sequence:?} can't be cut to {length} tokens"
        );
        self.keep(sequence, length);
    }

    pub(super) fn forget(&mut self, sequence: SequenceId) {
        self.keep(sequence, 0);
    }

    /// Empties every sequence.
    pub(super) fn lose(&mut self) {
        for sequence in (0..).map(SequenceId).take(self.sequences.len()) {
            self.forget(sequence);
        }
    }

    /// Keeps the sequence's first `length` tokens.
    fn keep(&mut self, sequence: SequenceId, length: u32) {
        let cells = &mut self.sequences[sequence.0 as usize];
        let kept = cells.len().min(length as usize);
        for cell in cells.split_off(kept) {
            let slot = &mut self.cells[cell];
            let shared = &mut slot.as_mut().expect("a sequence's cell is in use").shared;
            *shared -= 1;
            if *shared == 0 {
                *slot = None;
                self.free.push(cell);
            }
        }
    }
}

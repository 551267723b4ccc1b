//! The tokens of a step in llama.cpp's layout: one array per field (`llama_batch`).

use llama_cpp_sys_2 as sys;
use weir_inference::model::BatchToken;

/// Buffers of a `llama_batch`, reused from step to step.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_counts: Vec<i32>,
    outputs: Vec<i8>,
    /// For each place in the batch, the index of its token in the `rows` given to [`fill`](Batch::fill).
    order: Vec<usize>,
    /// The inverse of `order`: for each token as given, its place in the batch.
    places: Vec<i32>,
}

impl Batch {
    /// Fills the buffers with the step's tokens, whose values must have been checked: they fit an `i32`. Tokens are ordered
    /// by sequence: with a split KV cache, llama.cpp computes tokens of several sequences together only if the sequences are
    /// consecutive in the batch.
    pub(crate) fn fill(&mut self, rows: &[BatchToken]) {
        self.order.clear();
        self.order.extend(0..rows.len());
        self.order.sort_by_key(|&row| rows[row].sequence);
        self.places.resize(rows.len(), 0);
        for (place, &row) in (0..).zip(&self.order) {
            self.places[row] = place;
        }
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.sequence_counts.clear();
        for row in self.order.iter().map(|&row| &rows[row]) {
            self.tokens.push(row.token.cast_signed());
            self.positions.push(row.position.cast_signed());
            self.sequences.push(row.sequence.0.cast_signed());
            self.outputs.push(i8::from(row.output));
            self.sequence_counts.push(1);
        }
    }

    /// The place in the batch of the token that had this index in [`fill`](Self::fill).
    pub(crate) fn place(&self, row: usize) -> Option<i32> {
        self.places.get(row).copied()
    }

    /// Calls `with` with the batch, whose pointers are valid until `with` returns.
    pub(crate) fn lend<T>(&mut self, with: impl FnOnce(&sys::llama_batch) -> T) -> T {
        // llama.cpp wants a pointer to a list of sequences per token: each points to its one element of `sequences`.
        let mut lists: Vec<*mut sys::llama_seq_id> =
            self.sequences.iter_mut().map(std::ptr::from_mut).collect();
        let batch = sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len())
                .expect("a step has at most as many rows as the context takes"),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: lists.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        };
        with(&batch)
    }
}

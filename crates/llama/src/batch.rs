//! The rows of a step, as llama.cpp wants them: one array per field.

use llama_cpp_sys_2 as sys;
use weir_engine::model::Row;

/// Buffers that are used again for each step.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_counts: Vec<i32>,
    outputs: Vec<i8>,
    /// The rows as they were given, in the order in which the batch has them.
    order: Vec<usize>,
    /// Where the batch has each row.
    places: Vec<i32>,
}

impl Batch {
    /// Fills the buffers with the rows, whose values were checked: they fit an `i32`. They are ordered by sequence:
    /// llama.cpp computes rows of split cells together only as long as each is of the sequence after the last one's.
    pub(crate) fn fill(&mut self, rows: &[Row]) {
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

    /// Where the batch has a row.
    pub(crate) fn place(&self, row: usize) -> Option<i32> {
        self.places.get(row).copied()
    }

    /// Calls `with` with the batch; its pointers are good until `with` returns.
    pub(crate) fn lend<T>(&mut self, with: impl FnOnce(&sys::llama_batch) -> T) -> T {
        // A row has a pointer to its list of sequences: here to its one element of `sequences`.
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

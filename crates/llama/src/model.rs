//! The [`Model`] itself: computes steps, and keeps account of each sequence's KV cells.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Arc;
use std::time::Duration;

use weir_inference::model::{
    Aside as Progress, AsideCapacity, BatchToken, Batching, Capacity, DecodeError, Forks, Model,
    ModelFacts, SequenceId, Tokenizer,
};

use crate::aside::{A_LONG_TIME, Aside, Done, Went, fault};
use crate::batch::Batch;
use crate::shim::{self, Context, UNWANTED, guarded};
use crate::sizes::{Sizes, Traits};
use crate::tokenizer::LlamaTokenizer;

/// A loaded model with its KV cache.
#[derive(Debug)]
pub struct LlamaModel {
    /// Uses threads of the context, so it must be dropped first: fields are dropped in this order.
    aside: Option<Aside>,
    /// Chunks of one sequence from background prefill that aren't in the cache yet: decode steps would pass over their cells
    /// before the sequence needs them.
    pending: VecDeque<Done>,
    context: Context,
    tokenizer: Arc<LlamaTokenizer>,
    facts: ModelFacts,
    capacity: Capacity,
    costs: Costs,
    batch: Batch,
    /// For each sequence, the tokens that the cache holds.
    lengths: Vec<u32>,
    /// The value of `lengths` after the current step.
    lengths_next: Vec<u32>,
    layout: Layout,
}

/// The costs of the kernels that the scheduler plans with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    pub(crate) tile_rows: u32,
    pub(crate) ttl_tokens: Option<u32>,
}

/// How cells are divided between sequences.
#[derive(Debug)]
pub(crate) enum Layout {
    /// All sequences take cells from one pool, and forks share them. Models with a sliding window need a [`Keeper`].
    Unified(Option<Keeper>),
    /// An equal share per sequence, with a cell for each position: cells behind a window aren't reused for other tokens.
    Split,
}

impl Layout {
    pub(crate) fn new(sizes: &Sizes, traits: &Traits) -> Self {
        if !sizes.unified {
            return Layout::Split;
        }
        Layout::Unified(traits.needs_keeper().then(|| Keeper {
            window: traits.window,
            kept: vec![0; sizes.sequences as usize],
        }))
    }

    fn keeper(&mut self) -> Option<&mut Keeper> {
        match self {
            Layout::Unified(keeper) => keeper.as_mut(),
            Layout::Split => None,
        }
    }
}

/// Holds the cells of sliding-window layers. llama.cpp reuses a cell of such a layer once its only sequence has moved
/// the window beyond it, even if the cache is as large as that of the other layers. A fork from before that point would then
/// miss tokens, and answer nonsense without an error. llama.cpp leaves a cell of two sequences alone, so each sequence has a
/// second one, which is never decoded and only holds cells.
#[derive(Debug)]
pub(crate) struct Keeper {
    window: u32,
    /// For each sequence, the tokens whose cells its second sequence holds.
    kept: Vec<u32>,
}

/// The scheduler never gives out more cells than there are, and any free cell will do.
const ROOM: &str = "there is room for what was counted";

impl LlamaModel {
    pub(crate) fn new(
        context: Context,
        tokenizer: Arc<LlamaTokenizer>,
        facts: ModelFacts,
        capacity: Capacity,
        costs: Costs,
        layout: Layout,
    ) -> Self {
        let none = vec![0; capacity.sequences as usize];
        let batch = Batch::default();
        LlamaModel {
            aside: None,
            pending: VecDeque::new(),
            context,
            tokenizer,
            facts,
            capacity,
            costs,
            batch,
            lengths_next: none.clone(),
            lengths: none,
            layout,
        }
    }

    /// Turns background prefill on, if it works with this model.
    pub(crate) fn add_aside(&mut self, aside: Aside) -> Result<(), DecodeError> {
        self.aside = Some(aside);
        let tried = self.try_aside();
        self.forget(SequenceId(0));
        if tried.is_err() {
            self.aside = None;
        }
        tried
    }

    /// Computes two tokens by background prefill: the first one's cells must be taken by this context, and handed back for the second.
    fn try_aside(&mut self) -> Result<(), DecodeError> {
        for position in 0..2 {
            let row = BatchToken {
                token: 0,
                position,
                sequence: SequenceId(0),
                output: false,
            };
            self.begin_aside(&[row])?;
            while self.go_aside(A_LONG_TIME)? != Progress::Done {}
            self.forget_aside(SequenceId(0));
        }
        Ok(())
    }

    /// Tells the second context that its cells of the sequence are out of date.
    fn forget_aside(&mut self, sequence: SequenceId) {
        if let Some(aside) = &mut self.aside {
            aside.forget(sequence);
        }
    }

    /// Puts chunks from background prefill into the cache if they are of this sequence.
    fn deliver_of(&mut self, SequenceId(sequence): SequenceId) -> Result<(), DecodeError> {
        let of = self.pending.front().map(|done| done.sequence);
        if of == Some(SequenceId(sequence)) {
            self.deliver()?;
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), DecodeError> {
        // llama.cpp takes a state only into an empty sequence, so chunks go through one that is used for nothing else.
        let spare = self.capacity.sequences.cast_signed();
        while let Some(Done {
            sequence, state, ..
        }) = self.pending.front()
        {
            let sequence = sequence.0.cast_signed();
            let taken = self.context.handle().set_state(spare, state);
            if !taken.map_err(fault)? {
                return Err(DecodeError::CacheFull);
            }
            self.copy_all(spare, sequence);
            self.remove(spare, 0);
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Threads that the next step is computed on: fewer while other processes use the cores.
    pub fn threads(&self) -> u32 {
        self.context.threads()
    }

    /// Fails if the files have changed since they were loaded: nothing is computed with them, and no result is used.
    fn check_weights(&self) -> Result<(), DecodeError> {
        match self.tokenizer.weights().files().distrusted() {
            Some(why) => Err(DecodeError::Damaged(why.to_owned())),
            None => Ok(()),
        }
    }

    /// Checks the conditions that llama.cpp asserts, and sets `lengths_next`.
    fn check(&mut self, rows: &[BatchToken]) -> Result<(), String> {
        let Capacity {
            rows: rows_max,
            outputs: outputs_max,
            batching,
            ..
        } = self.capacity;
        if rows.len() > rows_max as usize {
            return Err(format!(
                "a step of {} rows; the context takes {rows_max}",
                rows.len()
            ));
        }
        let outputs = rows.iter().filter(|row| row.output).count();
        if outputs > outputs_max as usize {
            return Err(format!(
                "a step with {outputs} outputs; the context takes {outputs_max}"
            ));
        }
        let alone = rows.iter().all(|row| row.sequence == rows[0].sequence);
        if batching == Batching::OneSequence && !alone {
            return Err("a step of several sequences; each is to be computed alone".to_owned());
        }
        self.check_rows(rows)
    }

    fn check_rows(&mut self, rows: &[BatchToken]) -> Result<(), String> {
        self.lengths_next.clone_from(&self.lengths);
        for row in rows {
            let SequenceId(sequence) = row.sequence;
            if sequence >= self.capacity.sequences {
                return Err(format!(
                    "sequence {sequence}; the context has {}",
                    self.capacity.sequences
                ));
            }
            if row.token >= self.tokenizer.vocabulary() {
                return Err(format!("token {} is not in the vocabulary", row.token));
            }
            let length = &mut self.lengths_next[sequence as usize];
            if row.position != *length {
                return Err(format!(
                    "position {} of sequence {sequence}, which has {length} tokens",
                    row.position
                ));
            }
            if row.position >= self.facts.context_tokens {
                return Err(format!(
                    "position {} is beyond the model's context",
                    row.position
                ));
            }
            *length += 1;
        }
        Ok(())
    }

    fn check_aside(&mut self, rows: &[BatchToken]) -> Result<(), String> {
        let most = self.aside().ok_or("nothing is computed aside")?;
        self.check_rows(rows)?;
        let one = rows.iter().all(|row| row.sequence == rows[0].sequence);
        let end = rows.last().map_or(0, |row| row.position + 1);
        if rows.is_empty() || rows.len() > most.rows as usize || end > most.tokens {
            return Err(format!("{} rows to {end} aside of {most:?}", rows.len()));
        }
        if !one || rows.iter().any(|row| row.output) {
            return Err("aside are rows of one sequence, and no outputs".to_owned());
        }
        Ok(())
    }

    fn compute(&mut self, wanted: &dyn Fn() -> bool) -> Result<(), DecodeError> {
        let context = &mut self.context;
        let data = (&raw const wanted).cast_mut().cast();
        let computed = self.batch.lend(|batch| {
            // SAFETY: `lend` keeps the batch's arrays alive and as long as it says, `check` has seen to the values that
            // llama.cpp asserts, and `data` points to a `&dyn Fn() -> bool`, as `unwanted` expects, until the shim returns,
            // which then removes both from the context.
            unsafe { context.decode(batch, Some(unwanted), data) }
        });
        match computed {
            Ok(0) => Ok(()),
            Ok(1) => Err(DecodeError::CacheFull),
            Ok(UNWANTED) => Err(DecodeError::Unwanted),
            Ok(code) => Err(DecodeError::Fault(format!(
                "llama_decode failed with code {code}"
            ))),
            Err(threw) => Err(DecodeError::Fault(threw.to_string())),
        }
    }

    /// Restores the cache as it was before a step that failed, or empties it if that is impossible.
    fn recover(&mut self, error: DecodeError) -> DecodeError {
        match (self.capacity.forks, error) {
            (Forks::Anywhere, error) => {
                self.take_back();
                error
            }
            // llama.cpp finds a full cache before it changes anything.
            (Forks::AtEnd, DecodeError::CacheFull) => DecodeError::CacheFull,
            (Forks::AtEnd, error) => {
                self.lose();
                DecodeError::Lost(error.to_string())
            }
        }
    }

    /// Empties the cache. A step moves even states of sequences outside of it (`llama_memory_recurrent::find_slot` notes where each
    /// state will be, and the graph moves them), so when a graph stops early, no state can be trusted.
    fn lose(&mut self) {
        self.context.handle().clear();
        self.lengths.fill(0);
    }

    /// Removes the tokens of a failed step: llama.cpp does so itself only after some errors.
    fn take_back(&mut self) {
        for sequence in 0..self.capacity.sequences {
            let (before, after) = (
                self.lengths[sequence as usize],
                self.lengths_next[sequence as usize],
            );
            if before < after {
                self.remove(sequence.cast_signed(), before);
            }
        }
    }

    /// Removes the tokens of the sequence from position `begin` on.
    fn remove(&mut self, sequence: i32, begin: u32) {
        // SAFETY: the sequence is one of the context's; only `sequences_max` ids are given out.
        let removed = unsafe { self.context.handle().remove(sequence, begin.cast_signed()) };
        assert!(removed, "only states can't be cut, and nobody asks that");
    }

    fn copy(&mut self, from: i32, to: i32, tokens: std::ops::Range<u32>) {
        let (begin, end) = (tokens.start.cast_signed(), tokens.end.cast_signed());
        // SAFETY: both sequences are the context's; only `sequences_max` ids are given out.
        unsafe { self.context.handle().copy(from, to, begin, end) }
    }

    fn copy_all(&mut self, from: i32, to: i32) {
        // SAFETY: as in `copy`; -1 at both ends is llama.cpp's way to say all tokens.
        unsafe { self.context.handle().copy(from, to, -1, -1) }
    }

    /// Holds the cells of a sequence that are about to leave the window. llama.cpp counts a window from the last token or in
    /// fixed chunks; in both cases no cell leaves it before the length passes a multiple of the window.
    fn keep(&mut self, sequence: u32) {
        let length = self.lengths[sequence as usize];
        let Some(Keeper { window, kept }) = self.layout.keeper() else {
            return;
        };
        let kept = &mut kept[sequence as usize];
        if length / *window > *kept / *window {
            let tokens = std::mem::replace(kept, length)..length;
            self.copy(sequence.cast_signed(), self.second(sequence), tokens);
        }
    }

    /// The second sequence of `sequence`, which only holds cells.
    fn second(&self, sequence: u32) -> i32 {
        (self.capacity.sequences + sequence).cast_signed()
    }

    fn length(&self, SequenceId(sequence): SequenceId) -> u32 {
        *self
            .lengths
            .get(sequence as usize)
            .expect("sequence ids are below the capacity's")
    }
}

/// llama.cpp's abort callback, called between any two operations of a graph on the thread that computes it: whether to stop.
///
/// # Safety
///
/// `data` points to a `&dyn Fn() -> bool`.
unsafe extern "C" fn unwanted(data: *mut c_void) -> bool {
    // SAFETY: as the caller promises.
    let wanted = unsafe { *data.cast::<&dyn Fn() -> bool>() };
    !wanted()
}

impl Model for LlamaModel {
    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer) as Arc<dyn Tokenizer>
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn capacity(&self) -> Capacity {
        self.capacity
    }

    fn tile_rows(&self) -> u32 {
        self.costs.tile_rows
    }

    fn ttl_tokens(&self) -> Option<u32> {
        self.costs.ttl_tokens
    }

    fn decode_while(
        &mut self,
        rows: &[BatchToken],
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), DecodeError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.check_weights()?;
        self.check(rows).map_err(DecodeError::Fault)?;
        for row in rows {
            self.deliver_of(row.sequence)?;
        }
        self.batch.fill(rows);
        // A recurrent state can't be restored, so a step that changes one runs to its end.
        let computed = match self.capacity.forks {
            Forks::Anywhere => self.compute(wanted),
            Forks::AtEnd => self.compute(&|| true),
        };
        if let Err(error) = computed {
            return Err(self.recover(error));
        }
        // The files may have been cut during the step.
        self.check_weights()?;
        std::mem::swap(&mut self.lengths, &mut self.lengths_next);
        for sequence in 0..self.capacity.sequences {
            self.keep(sequence);
        }
        Ok(())
    }

    fn logits(&self, row: usize) -> &[f32] {
        let index = self.batch.place(row).expect("a row of the last step");
        let mut logits = std::ptr::null();
        let read = guarded(|what, size| {
            // SAFETY: the context is alive and not shared with other threads; llama.cpp checks the index itself.
            unsafe { shim::weir_logits(self.context.pointer(), index, &raw mut logits, what, size) }
        });
        assert!(
            read.is_ok() && !logits.is_null(),
            "row {row} is not an output of the last step"
        );
        // SAFETY: llama.cpp keeps a row of as many logits as the vocabulary has tokens until the next step, which
        // needs `&mut self`.
        unsafe { std::slice::from_raw_parts(logits, self.tokenizer.vocabulary() as usize) }
    }

    fn aside(&self) -> Option<AsideCapacity> {
        self.aside.as_ref().map(Aside::capacity)
    }

    fn begin_aside(&mut self, rows: &[BatchToken]) -> Result<(), DecodeError> {
        self.check_weights()?;
        self.check_aside(rows).map_err(DecodeError::Fault)?;
        let (sequence, from) = (rows[0].sequence, rows[0].position);
        let aside = self.aside.as_ref().expect("it was checked");
        let beginning = if aside.misses(sequence, from) {
            self.deliver()?;
            let state = self.context.handle().state(sequence.0.cast_signed());
            Some(state.map_err(fault)?)
        } else {
            // Chunks of one sequence at a time are kept outside of the cache, since they take memory of their own.
            let others = self.pending.front().map(|done| done.sequence) != Some(sequence);
            if others {
                self.deliver()?;
            }
            None
        };
        if let Some(aside) = &mut self.aside {
            aside.begin(rows, beginning);
        }
        Ok(())
    }

    fn go_aside(&mut self, time: Duration) -> Result<Progress, DecodeError> {
        let aside = self.aside.as_mut();
        let aside = aside.ok_or_else(|| fault("nothing is computed aside"))?;
        let went = self.context.lend(|team| aside.go(time, team))?;
        self.check_weights()?;
        match went {
            Went::Paused => Ok(Progress::Paused),
            Went::Done(done) => {
                self.lengths[done.sequence.0 as usize] += done.rows;
                self.pending.push_back(done);
                Ok(Progress::Done)
            }
        }
    }

    fn fork(&mut self, from: SequenceId, to: SequenceId, length: u32) {
        assert!(
            length <= self.length(from),
            "a fork of {length} tokens from {from:?}, which has fewer"
        );
        assert!(
            self.capacity.forks == Forks::Anywhere || length == self.length(from),
            "a fork of {length} tokens from {from:?}, which forks at its end only"
        );
        assert_eq!(self.length(to), 0, "a fork into {to:?}, which isn't empty");
        if length == 0 {
            return;
        }
        self.deliver_of(from).expect(ROOM);
        let (parent, child) = (from.0.cast_signed(), to.0.cast_signed());
        match self.layout {
            Layout::Unified(_) => self.copy(parent, child, 0..length),
            Layout::Split => {
                // Between the cells of different sequences llama.cpp only copies everything.
                self.copy_all(parent, child);
                self.remove(child, length);
            }
        }
        self.lengths[to.0 as usize] = length;
        self.keep(to.0);
    }

    fn truncate(&mut self, sequence: SequenceId, length: u32) {
        assert_eq!(
            self.capacity.forks,
            Forks::Anywhere,
            "the state of {sequence:?} can't be cut to {length} tokens"
        );
        assert!(
            (1..=self.length(sequence)).contains(&length),
            "{sequence:?} can't be cut to {length} tokens"
        );
        self.forget_aside(sequence);
        self.deliver_of(sequence).expect(ROOM);
        self.remove(sequence.0.cast_signed(), length);
        self.lengths[sequence.0 as usize] = length;
        if let Some(Keeper { kept, .. }) = self.layout.keeper() {
            let kept = &mut kept[sequence.0 as usize];
            *kept = length.min(*kept);
            self.remove(self.second(sequence.0), length);
        }
    }

    fn forget(&mut self, sequence: SequenceId) {
        self.forget_aside(sequence);
        self.pending.retain(|done| done.sequence != sequence);
        if self.length(sequence) == 0 {
            return;
        }
        self.remove(sequence.0.cast_signed(), 0);
        self.lengths[sequence.0 as usize] = 0;
        if let Some(Keeper { kept, .. }) = self.layout.keeper() {
            kept[sequence.0 as usize] = 0;
            self.remove(self.second(sequence.0), 0);
        }
    }
}

#[cfg(test)]
mod tests;

//! Background prefill: chunks of long prompts are computed in a second context of the same weights, with as many tokens at once
//! as its kernels are fastest with, and with pauses between operations, in which the first context decodes its steps. So a
//! long prompt takes hardly longer than alone, but for these steps, and a stream waits for one turn of the prompt, not for all of it.
//!
//! llama.cpp computes a graph up to an operation if asked to (`cb_eval`), calls back, and continues. The second context runs on a
//! thread of its own, which waits in that callback while the first context computes: the two must never compute at once. The
//! KV cells of a chunk are handed over when it is done, and the first context takes them when it needs them. If a prompt
//! begins with cells that only the first context has, these are copied the other way.

mod values;

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use llama_cpp_sys_2 as sys;
use weir_inference::model::{AsideCapacity, BatchToken, DecodeError, SequenceId};

pub(crate) use crate::aside::values::Values;
use crate::batch::Batch;
use crate::shim::{Handle, Threw, UNWANTED};
use crate::threads::Team;

#[expect(
    clippy::disallowed_types,
    reason = "how long kernels took, on a thread that has nothing to do with tokio"
)]
type Moment = std::time::Instant;

/// A time limit that is longer than any chunk takes.
pub(crate) const A_LONG_TIME: Duration = Duration::from_secs(86_400);

/// The second context's sequence with the prompt so far.
const WHOLE: i32 = 0;
/// The second context's sequence with a copy of the last chunk's cells, from which their bytes are read.
const PIECE: i32 = 1;
pub(crate) const SEQUENCES: u32 = 2;

/// The second context, its thread, and the chunk that it is computing.
#[derive(Debug)]
pub(crate) struct Aside {
    capacity: AsideCapacity,
    work: Sender<Work>,
    said: Receiver<Said>,
    thread: Option<JoinHandle<()>>,
    /// The tokens whose cells are in the second context's cache.
    held: Option<Held>,
    piece: Option<Piece>,
}

/// The first `tokens` tokens of a sequence of the first context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    sequence: SequenceId,
    tokens: u32,
}

#[derive(Debug)]
struct Piece {
    sequence: SequenceId,
    from: u32,
    rows: Vec<BatchToken>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Not begun. The cells before the chunk are in the second context's cache, or in these bytes.
    New(Option<Vec<u8>>),
    Paused,
}

/// The result of a call of [`Aside::go`].
pub(crate) enum Went {
    Paused,
    Done(Done),
}

/// A chunk that was computed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) sequence: SequenceId,
    pub(crate) rows: u32,
    /// The chunk's cells, in the first context's layout.
    pub(crate) state: Vec<u8>,
}

#[derive(Debug)]
enum Work {
    Begin {
        rows: Vec<BatchToken>,
        /// State that replaces the content of the cache.
        beginning: Option<Vec<u8>>,
        team: Team,
        until: Moment,
    },
    GoOn {
        until: Moment,
    },
    GiveUp,
}

#[derive(Debug)]
enum Said {
    Paused,
    Done(Result<Vec<u8>, DecodeError>),
}

impl Aside {
    /// Makes the second context with `make` and starts its thread; `None` if `make` returns none. `values` is the layout of
    /// the first context's cache.
    pub(crate) fn start(
        capacity: AsideCapacity,
        values: Values,
        make: impl FnOnce(&Places) -> Result<Option<Handle>, Threw>,
    ) -> Result<Option<Self>, String> {
        let (work, to_do) = channel();
        let (to_say, said) = channel();
        let places = Arc::new(Places {
            turn: Mutex::new(Turn {
                work: to_do,
                said: to_say,
                until: now(),
                last: (sys::GGML_OP_NONE, now()),
                spans: BTreeMap::new(),
            }),
            given_up: AtomicBool::new(false),
        });
        let made = make(&places).map_err(|threw| threw.to_string())?;
        let Some(context) = made else {
            return Ok(None);
        };
        let worker = Worker {
            context,
            places,
            values,
        };
        let thread = std::thread::Builder::new()
            .name("weir-aside".to_owned())
            .spawn(move || worker.run())
            .map_err(|error| error.to_string())?;
        Ok(Some(Aside {
            capacity,
            work,
            said,
            thread: Some(thread),
            held: None,
            piece: None,
        }))
    }

    pub(crate) fn capacity(&self) -> AsideCapacity {
        self.capacity
    }

    /// Whether the cells before `from` have to be given to [`begin`](Self::begin).
    pub(crate) fn misses(&self, sequence: SequenceId, from: u32) -> bool {
        let held = Held {
            sequence,
            tokens: from,
        };
        from > 0 && self.held != Some(held)
    }

    /// Takes on a chunk, in place of the one before if that isn't done. Nothing is computed yet.
    pub(crate) fn begin(&mut self, rows: &[BatchToken], beginning: Option<Vec<u8>>) {
        self.give_up();
        let Some(&BatchToken {
            sequence, position, ..
        }) = rows.first()
        else {
            return;
        };
        self.piece = Some(Piece {
            sequence,
            from: position,
            rows: rows.to_vec(),
            stage: Stage::New(beginning),
        });
    }

    fn give_up(&mut self) {
        if let Some(Piece {
            stage: Stage::Paused,
            ..
        }) = self.piece.take()
        {
            self.held = None;
            // The thread may be in an operation: wait for its answer. If the thread has ended, there is nothing to give up.
            let _ = self.work.send(Work::GiveUp).is_ok() && self.said.recv().is_ok();
        }
    }

    /// Drops what is known of the sequence, whose tokens were removed or replaced.
    pub(crate) fn forget(&mut self, sequence: SequenceId) {
        self.held.take_if(|held| held.sequence == sequence);
        let piece = self.piece.as_ref();
        if piece.is_some_and(|piece| piece.sequence == sequence) {
            self.give_up();
        }
    }

    /// Computes the chunk for about `time`. The first context must compute nothing meanwhile.
    pub(crate) fn go(&mut self, time: Duration, team: Team) -> Result<Went, DecodeError> {
        // The thread ends only by a panic, which has been reported; prompts are then computed in ordinary steps.
        let ended = DecodeError::Unwanted;
        let piece = self.piece.take();
        let mut piece = piece.ok_or_else(|| fault("no piece of a prompt was begun"))?;
        let until = now() + time.min(A_LONG_TIME);
        let work = match std::mem::replace(&mut piece.stage, Stage::Paused) {
            Stage::New(beginning) => Work::Begin {
                rows: piece.rows.clone(),
                beginning,
                team,
                until,
            },
            Stage::Paused => Work::GoOn { until },
        };
        self.held = None;
        self.work.send(work).map_err(|_| ended.clone())?;
        match self.said.recv().map_err(|_| ended)? {
            Said::Paused => {
                self.piece = Some(piece);
                Ok(Went::Paused)
            }
            Said::Done(done) => {
                let state = done?;
                let (sequence, rows) = (piece.sequence, piece.rows.len());
                let rows = u32::try_from(rows).expect("no more than a step has");
                let tokens = piece.from + rows;
                self.held = Some(Held { sequence, tokens });
                Ok(Went::Done(Done {
                    sequence,
                    rows,
                    state,
                }))
            }
        }
    }
}

impl Drop for Aside {
    /// Waits for the thread to end, since its context uses threads of the first one's pool.
    fn drop(&mut self) {
        self.give_up();
        (self.work, _) = channel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the thread itself.
            let _ = thread.join();
        }
    }
}

/// The points between operations at which the graph may pause. Only the thread that computes the graph gets there.
#[derive(Debug)]
pub(crate) struct Places {
    turn: Mutex<Turn>,
    given_up: AtomicBool,
}

#[derive(Debug)]
struct Turn {
    work: Receiver<Work>,
    said: Sender<Said>,
    until: Moment,
    /// The operation of the last such point, and when the graph left it.
    last: (sys::ggml_op, Moment),
    /// For each kind of operation, the time from behind it to the next point.
    spans: BTreeMap<sys::ggml_op, Duration>,
}

/// Decay of an expected time per measurement: operations of one kind are followed by work of different length, so the longest
/// time counts, and less each time.
const SPAN_KEPT: f64 = 0.9;

impl Places {
    /// Has a context call back here between operations.
    pub(crate) fn set(&self, params: &mut sys::llama_context_params) {
        params.cb_eval = Some(place);
        params.cb_eval_user_data = self.pointer();
    }

    fn pointer(&self) -> *mut c_void {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses behind an operation if there is no time left for the work before the next point. `false` if the graph is to stop.
    fn pass(&self, operation: sys::ggml_op) -> bool {
        // llama.cpp may split a graph into several parts, and begins the next one although an earlier one was stopped.
        if self.given_up.load(Ordering::Relaxed) {
            return false;
        }
        let mut turn = self.turn();
        if turn.is_over(operation) {
            if !turn.pause() {
                self.given_up.store(true, Ordering::Relaxed);
            }
            turn.last = (operation, now());
        }
        !self.given_up.load(Ordering::Relaxed)
    }
}

impl Turn {
    fn is_over(&mut self, operation: sys::ggml_op) -> bool {
        let now = now();
        let (last, left) = std::mem::replace(&mut self.last, (operation, now));
        let span = self.spans.entry(last).or_default();
        *span = span.mul_f64(SPAN_KEPT).max(now - left);
        let next = self.spans.get(&operation).copied().unwrap_or_default();
        now + next >= self.until
    }

    fn pause(&mut self) -> bool {
        let told = self.said.send(Said::Paused).is_ok();
        match self.work.recv() {
            Ok(Work::GoOn { until }) if told => {
                self.until = until;
                true
            }
            _ => false,
        }
    }
}

/// llama.cpp's `cb_eval`: with `ask`, whether to call again behind this operation; without, that call.
///
/// # Safety
///
/// `tensor` is one of a graph, and `data` points to [`Places`].
unsafe extern "C" fn place(tensor: *mut sys::ggml_tensor, ask: bool, data: *mut c_void) -> bool {
    // SAFETY: as the caller promises.
    let operation = unsafe { (*tensor).op };
    if ask {
        // The operations that take long, and SET_ROWS, by which keys and values go to the cache before attention.
        return matches!(
            operation,
            sys::GGML_OP_MUL_MAT
                | sys::GGML_OP_MUL_MAT_ID
                | sys::GGML_OP_FLASH_ATTN_EXT
                | sys::GGML_OP_SET_ROWS
        );
    }
    // SAFETY: as the caller promises.
    let places = unsafe { &*data.cast_const().cast::<Places>() };
    places.pass(operation)
}

/// llama.cpp's abort callback, called between any two operations: whether to stop.
///
/// # Safety
///
/// `data` points to [`Places`].
unsafe extern "C" fn given_up(data: *mut c_void) -> bool {
    // SAFETY: as the caller promises.
    let places = unsafe { &*data.cast_const().cast::<Places>() };
    places.given_up.load(Ordering::Relaxed)
}

fn now() -> Moment {
    Moment::now()
}

pub(crate) fn fault(why: impl ToString) -> DecodeError {
    DecodeError::Fault(why.to_string())
}

struct Worker {
    // Must be dropped before `places`, which its callbacks use: fields are dropped in this order.
    context: Handle,
    places: Arc<Places>,
    values: Values,
}

impl Worker {
    fn run(mut self) {
        loop {
            let work = self.places.turn().work.recv();
            let Ok(work) = work else {
                return;
            };
            let Work::Begin {
                rows,
                beginning,
                team,
                until,
            } = work
            else {
                continue;
            };
            let mut turn = self.places.turn();
            (turn.until, turn.last) = (until, (sys::GGML_OP_NONE, now()));
            drop(turn);
            self.places.given_up.store(false, Ordering::Relaxed);
            // SAFETY: the owner of the thread pool drops this worker's thread before the pool.
            unsafe { self.context.join(team) };
            let done = self.compute(&rows, beginning);
            if done.is_err() {
                self.context.clear();
            }
            if self.places.turn().said.send(Said::Done(done)).is_err() {
                return;
            }
        }
    }

    fn compute(
        &mut self,
        rows: &[BatchToken],
        beginning: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, DecodeError> {
        let from = rows.first().map_or(0, |row| row.position);
        self.bring(from, beginning)?;
        let mut batch = Batch::default();
        let whole = SequenceId(WHOLE.cast_unsigned());
        let rows: Vec<BatchToken> = rows
            .iter()
            .map(|row| BatchToken {
                sequence: whole,
                ..*row
            })
            .collect();
        batch.fill(&rows);
        let data = self.places.pointer();
        let code = batch
            // SAFETY: `lend` keeps the batch's arrays alive and as long as it says; its tokens were checked, and continue the
            // tokens in the cache; `places` lives as long as the context.
            .lend(|batch| unsafe { self.context.decode(batch, Some(given_up), data) })
            .map_err(fault)?;
        // A graph that was told to stop may end without an error code.
        let given_up = self.places.given_up.load(Ordering::Relaxed);
        match code {
            0 if !given_up => {}
            0 | UNWANTED => return Err(DecodeError::Unwanted),
            code => {
                return Err(fault(format!(
                    "llama_decode of a prompt aside failed with code {code}"
                )));
            }
        }
        // SAFETY: both are sequences of this context.
        unsafe { self.context.copy(WHOLE, PIECE, from.cast_signed(), -1) };
        let state = self.context.state(PIECE).map_err(fault);
        // SAFETY: as above.
        unsafe { self.context.remove(PIECE, 0) };
        values::laid_out(state?, self.values).map_err(fault)
    }

    /// Makes the cache hold the first `from` tokens of the prompt.
    fn bring(&mut self, from: u32, beginning: Option<Vec<u8>>) -> Result<(), DecodeError> {
        match beginning {
            _ if from == 0 => self.context.clear(),
            None => {}
            Some(state) => {
                self.context.clear();
                let state = values::laid_out(state, Values::ByToken).map_err(fault)?;
                if !self.context.set_state(WHOLE, &state).map_err(fault)? {
                    return Err(fault("a prompt's beginning isn't taken aside"));
                }
            }
        }
        Ok(())
    }
}

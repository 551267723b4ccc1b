//! Counts the KV cache: sequence ids, and the cells that forked sequences share.
//!
//! Sequences are paths in a tree whose nodes are runs of tokens. A fork splits a run where it branches off; a run is
//! free when no run or sequence continues from it. A sequence is live as long as a choice is computed in it, and idle
//! when it is only kept in the prefix cache. Nothing here touches the model: the operations for its cache are written
//! down, in order, and taken along with the next step.

use std::collections::BTreeSet;

use crate::model::SequenceId;
use crate::scheduler::runs::{RunId, Runs};

/// An operation that the model's cache has to do before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOp {
    Fork {
        from: SequenceId,
        to: SequenceId,
        length: u32,
    },
    /// The sequence keeps its first `length` tokens: at least one, and fewer than the model's cache has of it.
    Truncate {
        sequence: SequenceId,
        length: u32,
    },
    Forget(SequenceId),
}

#[derive(Debug)]
pub struct Kv {
    cells: u32,
    used: u32,
    /// Cells of live sequences.
    live: u32,
    /// Free cells that are reserved for background prefill.
    reserved: u32,
    free_ids: BTreeSet<SequenceId>,
    sequences: Vec<Tokens>,
    runs: Runs,
    ops: Vec<CacheOp>,
}

/// The tokens of a sequence that are in the cache.
#[derive(Debug, Clone, Copy, Default)]
struct Tokens {
    length: u32,
    /// The run at the sequence's end; `None` if the sequence is empty.
    last: Option<RunId>,
    idle: bool,
}

impl Kv {
    pub fn new(cells: u32, sequences: u32) -> Self {
        Kv {
            cells,
            used: 0,
            live: 0,
            reserved: 0,
            free_ids: (0..sequences).map(SequenceId).collect(),
            sequences: vec![Tokens::default(); sequences as usize],
            runs: Runs::default(),
            ops: Vec::new(),
        }
    }

    pub fn free_cells(&self) -> u32 {
        self.cells - self.used - self.reserved
    }

    /// Reserves this many free cells for background prefill. An earlier reservation ends.
    pub fn reserve(&mut self, cells: u32) {
        self.reserved = 0;
        assert!(cells <= self.free_cells(), "more cells than are free");
        self.reserved = cells;
    }

    pub fn reserved_cells(&self) -> u32 {
        self.reserved
    }

    pub fn used_cells(&self) -> u32 {
        self.used
    }

    /// Cells that only idle sequences have, which can be evicted.
    pub fn idle_cells(&self) -> u32 {
        self.used - self.live
    }

    pub fn free_sequences(&self) -> usize {
        self.free_ids.len()
    }

    /// The number of the sequence's tokens that are in the cache.
    pub fn length(&self, sequence: SequenceId) -> u32 {
        self.sequences[sequence.0 as usize].length
    }

    /// Cells that would become free without the sequence.
    pub fn own_cells(&self, sequence: SequenceId) -> u32 {
        self.runs.own(self.sequences[sequence.0 as usize].last)
    }

    /// Cells of the sequence's first `length` tokens that only idle sequences have.
    pub fn idle_prefix(&self, sequence: SequenceId, length: u32) -> u32 {
        let place = self.sequences[sequence.0 as usize];
        self.runs.idle(place.last, place.length - length)
    }

    /// Opens an empty sequence; `None` if no id is free.
    pub fn open(&mut self) -> Option<SequenceId> {
        self.free_ids.pop_first()
    }

    /// Opens a sequence with the first `length` tokens of `from`; `None` if no id is free.
    pub fn fork(&mut self, from: SequenceId, length: u32) -> Option<SequenceId> {
        assert!(
            length <= self.length(from),
            "a fork of tokens that are not in the cache"
        );
        let to = self.open()?;
        if length > 0 {
            let source = self.sequences[from.0 as usize];
            let last = self.runs.share(source.last, source.length - length);
            self.live += self.runs.enliven(Some(last));
            self.sequences[to.0 as usize] = Tokens {
                length,
                last: Some(last),
                idle: false,
            };
            self.ops.push(CacheOp::Fork { from, to, length });
        }
        Some(to)
    }

    /// Records that the model has computed this many more tokens of the sequence.
    pub fn extend(&mut self, sequence: SequenceId, tokens: u32) {
        assert!(tokens <= self.free_cells(), "more tokens than cells");
        let place = &mut self.sequences[sequence.0 as usize];
        assert!(!place.idle, "an idle sequence isn't computed");
        place.length += tokens;
        place.last = Some(self.runs.extend(place.last, tokens));
        self.used += tokens;
        self.live += tokens;
    }

    /// Lets the model drop the tokens that it has computed beyond the sequence's length: rejected draft tokens.
    pub fn take_back(&mut self, sequence: SequenceId) {
        let length = self.length(sequence);
        self.ops.push(CacheOp::Truncate { sequence, length });
    }

    /// Makes a sequence idle: no choice is computed in it any more.
    pub fn rest(&mut self, sequence: SequenceId) {
        let place = &mut self.sequences[sequence.0 as usize];
        assert!(
            !std::mem::replace(&mut place.idle, true),
            "it rests already"
        );
        self.live -= self.runs.calm(place.last);
    }

    /// Makes an idle sequence live again.
    pub fn wake(&mut self, sequence: SequenceId) {
        let place = &mut self.sequences[sequence.0 as usize];
        assert!(std::mem::replace(&mut place.idle, false), "it is live");
        self.live += self.runs.enliven(place.last);
    }

    /// Drops the tokens of an idle sequence after the first `length`.
    pub fn truncate(&mut self, sequence: SequenceId, length: u32) {
        let place = self.sequences[sequence.0 as usize];
        assert!(
            place.idle && (1..place.length).contains(&length),
            "{place:?} can't be cut to {length}"
        );
        let last = self.runs.share(place.last, place.length - length);
        self.used -= self.runs.release(place.last);
        self.sequences[sequence.0 as usize] = Tokens {
            length,
            last: Some(last),
            idle: true,
        };
        self.ops.push(CacheOp::Truncate { sequence, length });
    }

    /// Drops a sequence. Its id may be another's from now on.
    pub fn forget(&mut self, sequence: SequenceId) {
        let place = std::mem::take(&mut self.sequences[sequence.0 as usize]);
        if place.length > 0 {
            if !place.idle {
                self.live -= self.runs.calm(place.last);
            }
            self.used -= self.runs.release(place.last);
            self.ops.push(CacheOp::Forget(sequence));
        }
        let new = self.free_ids.insert(sequence);
        assert!(new, "sequence {sequence:?} was forgotten twice");
    }

    /// Takes the operations that the model has to do, in this order, before it computes anything more.
    pub fn take_ops(&mut self) -> Vec<CacheOp> {
        std::mem::take(&mut self.ops)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forks_share_cells() {
        let mut kv = Kv::new(100, 4);
        let a = kv.open().unwrap();
        kv.extend(a, 10);
        let b = kv.fork(a, 6).unwrap();
        assert_eq!(
            (kv.used_cells(), kv.own_cells(a), kv.own_cells(b)),
            (10, 4, 0)
        );
        kv.extend(b, 3);
        kv.extend(a, 1);
        let c = kv.fork(b, 8).unwrap();
        assert_eq!(
            (
                kv.used_cells(),
                kv.own_cells(a),
                kv.own_cells(b),
                kv.own_cells(c)
            ),
            (14, 5, 1, 0)
        );
        kv.forget(a);
        assert_eq!((kv.used_cells(), kv.length(b), kv.length(c)), (9, 9, 8));
        kv.forget(b);
        assert_eq!((kv.used_cells(), kv.own_cells(c)), (8, 8));
        kv.forget(c);
        assert_eq!((kv.used_cells(), kv.free_sequences()), (0, 4));
        let ops = [
            CacheOp::Fork {
                from: a,
                to: b,
                length: 6,
            },
            CacheOp::Fork {
                from: b,
                to: c,
                length: 8,
            },
            CacheOp::Forget(a),
            CacheOp::Forget(b),
            CacheOp::Forget(c),
        ];
        assert_eq!(kv.take_ops(), ops);
        assert_eq!(kv.take_ops(), []);
    }

    #[test]
    fn ids_run_out() {
        let mut kv = Kv::new(10, 1);
        let a = kv.open().unwrap();
        assert_eq!(kv.open(), None);
        assert_eq!(kv.fork(a, 0), None);
        kv.forget(a);
        assert_eq!(
            kv.take_ops(),
            [],
            "an empty sequence is nothing to the model"
        );
        assert_eq!(kv.open(), Some(a));
    }

    /// An operation on a cache: `which` and `length` are taken modulo the number that there are.
    #[derive(Debug, Clone)]
    enum Act {
        Open,
        Extend { which: usize, tokens: u32 },
        Fork { which: usize, length: u32 },
        Forget { which: usize },
        Rest { which: usize },
        Wake { which: usize },
        Truncate { which: usize, length: u32 },
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            Just(Act::Open),
            (any::<usize>(), 1..9u32).prop_map(|(which, tokens)| Act::Extend { which, tokens }),
            (any::<usize>(), any::<u32>()).prop_map(|(which, length)| Act::Fork { which, length }),
            any::<usize>().prop_map(|which| Act::Forget { which }),
            any::<usize>().prop_map(|which| Act::Rest { which }),
            any::<usize>().prop_map(|which| Act::Wake { which }),
            (any::<usize>(), any::<u32>())
                .prop_map(|(which, length)| Act::Truncate { which, length }),
        ]
    }

    proptest! {
        /// Compares the counts with a naive cache that lists every cell of every sequence.
        #[test]
        fn cells_are_counted(acts in prop::collection::vec(act(), 0..60)) {
            let mut kv = Kv::new(60, 5);
            let mut plain: Vec<Plain> = Vec::new();
            let mut cell = 0;
            for act in acts {
                let count = plain.len();
                let at = |which: usize| which % count.max(1);
                match act {
                    Act::Open => plain.extend(kv.open().map(|id| Plain { id, cells: vec![], idle: false })),
                    Act::Extend { which, tokens } if count > 0 && tokens <= kv.free_cells() => {
                        let it = &mut plain[at(which)];
                        if !it.idle {
                            kv.extend(it.id, tokens);
                            it.cells.extend(cell..cell + tokens);
                            cell += tokens;
                        }
                    }
                    Act::Fork { which, length } if count > 0 => {
                        let from = &plain[at(which)];
                        let length = length % (u32::try_from(from.cells.len()).unwrap() + 1);
                        let idle = from.cells[..length as usize].iter();
                        let idle = idle.filter(|&&cell| !is_live(&plain, cell)).count();
                        prop_assert_eq!(kv.idle_prefix(from.id, length) as usize, idle);
                        let cells = from.cells[..length as usize].to_vec();
                        let fork = kv.fork(from.id, length);
                        plain.extend(fork.map(|id| Plain { id, cells, idle: false }));
                    }
                    Act::Forget { which } if count > 0 => kv.forget(plain.swap_remove(at(which)).id),
                    Act::Rest { which } if count > 0 && !plain[at(which)].idle => {
                        kv.rest(plain[at(which)].id);
                        plain[at(which)].idle = true;
                    }
                    Act::Wake { which } if count > 0 && plain[at(which)].idle => {
                        kv.wake(plain[at(which)].id);
                        plain[at(which)].idle = false;
                    }
                    Act::Truncate { which, length } if count > 0 => {
                        let it = &mut plain[at(which)];
                        if it.idle && it.cells.len() > 1 {
                            let length = 1 + length as usize % (it.cells.len() - 1);
                            kv.truncate(it.id, u32::try_from(length).unwrap());
                            it.cells.truncate(length);
                        }
                    }
                    _ => {}
                }
                let all: BTreeSet<u32> = plain.iter().flat_map(|it| it.cells.clone()).collect();
                prop_assert_eq!(kv.used_cells() as usize, all.len());
                let live = all.iter().filter(|&&cell| is_live(&plain, cell)).count();
                prop_assert_eq!(kv.idle_cells() as usize, all.len() - live);
                prop_assert_eq!(kv.free_sequences(), 5 - plain.len());
                for Plain { id, cells, .. } in &plain {
                    let others = plain.iter().filter(|other| other.id != *id);
                    let shared: BTreeSet<u32> = others.flat_map(|other| other.cells.clone()).collect();
                    let own = cells.iter().filter(|cell| !shared.contains(cell)).count();
                    prop_assert_eq!(kv.own_cells(*id) as usize, own);
                    prop_assert_eq!(kv.length(*id) as usize, cells.len());
                }
            }
        }
    }

    /// A sequence of the naive cache, with all its cells.
    struct Plain {
        id: SequenceId,
        cells: Vec<u32>,
        idle: bool,
    }

    fn is_live(all: &[Plain], cell: u32) -> bool {
        all.iter().any(|it| !it.idle && it.cells.contains(&cell))
    }
}

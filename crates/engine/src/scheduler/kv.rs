//! Who holds which part of the KV cache: sequence ids, and cells that forked sequences share.
//!
//! Sequences are paths in a tree whose nodes are runs of tokens. A fork splits a run where it leaves
//! it; a run is free when nothing below it lives. Whoever looks for a prefix only needs a live
//! sequence that begins with it. Nothing here touches the model: what it has to do is written down, in
//! order, and taken along with the next step.

use std::collections::BTreeSet;

use crate::model::SequenceId;

/// What the model's cache has to do before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOp {
    Fork {
        from: SequenceId,
        to: SequenceId,
        length: u32,
    },
    Forget(SequenceId),
}

#[derive(Debug)]
pub struct Kv {
    cells: u32,
    used: u32,
    free_ids: BTreeSet<SequenceId>,
    sequences: Vec<Tokens>,
    runs: Runs,
    ops: Vec<CacheOp>,
}

/// What a sequence has in the cache.
#[derive(Debug, Clone, Copy, Default)]
struct Tokens {
    length: u32,
    /// The run that ends it; none as long as it is empty.
    last: Option<RunId>,
}

impl Kv {
    pub fn new(cells: u32, sequences: u32) -> Self {
        Kv {
            cells,
            used: 0,
            free_ids: (0..sequences).map(SequenceId).collect(),
            sequences: vec![Tokens::default(); sequences as usize],
            runs: Runs::default(),
            ops: Vec::new(),
        }
    }

    pub fn free_cells(&self) -> u32 {
        self.cells - self.used
    }

    pub fn used_cells(&self) -> u32 {
        self.used
    }

    pub fn free_sequences(&self) -> usize {
        self.free_ids.len()
    }

    /// Tokens of the sequence that are in the cache.
    pub fn length(&self, sequence: SequenceId) -> u32 {
        self.sequences[sequence.0 as usize].length
    }

    /// Cells that would be free without the sequence.
    pub fn own_cells(&self, sequence: SequenceId) -> u32 {
        self.runs.own(self.sequences[sequence.0 as usize].last)
    }

    /// An empty sequence.
    pub fn open(&mut self) -> Option<SequenceId> {
        self.free_ids.pop_first()
    }

    /// A sequence that begins with the first `length` tokens of `from`.
    pub fn fork(&mut self, from: SequenceId, length: u32) -> Option<SequenceId> {
        assert!(
            length <= self.length(from),
            "a fork of tokens that are not in the cache"
        );
        let to = self.open()?;
        if length > 0 {
            let source = self.sequences[from.0 as usize];
            let last = self.runs.share(source.last, source.length - length);
            self.sequences[to.0 as usize] = Tokens {
                length,
                last: Some(last),
            };
            self.ops.push(CacheOp::Fork { from, to, length });
        }
        Some(to)
    }

    /// The model has computed so many tokens more.
    pub fn extend(&mut self, sequence: SequenceId, tokens: u32) {
        assert!(tokens <= self.free_cells(), "more tokens than cells");
        let place = &mut self.sequences[sequence.0 as usize];
        place.length += tokens;
        place.last = Some(self.runs.extend(place.last, tokens));
        self.used += tokens;
    }

    /// The sequence has ended; its id may be another's from now on.
    pub fn forget(&mut self, sequence: SequenceId) {
        let place = std::mem::take(&mut self.sequences[sequence.0 as usize]);
        if place.length > 0 {
            self.used -= self.runs.release(place.last);
            self.ops.push(CacheOp::Forget(sequence));
        }
        let new = self.free_ids.insert(sequence);
        assert!(new, "sequence {sequence:?} was forgotten twice");
    }

    /// What the model has to do, in this order, before it computes anything more.
    pub fn take_ops(&mut self) -> Vec<CacheOp> {
        std::mem::take(&mut self.ops)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RunId(usize);

#[derive(Debug)]
struct Run {
    parent: Option<RunId>,
    length: u32,
    /// Runs and sequences that go on from its end.
    heirs: u32,
}

#[derive(Debug, Default)]
struct Runs {
    runs: Vec<Run>,
    free: Vec<RunId>,
}

impl Runs {
    /// The run that ends `back` tokens before the end of `last`, with one heir more.
    fn share(&mut self, last: Option<RunId>, mut back: u32) -> RunId {
        let mut at = last.expect("only tokens are shared");
        while back >= self.runs[at.0].length {
            back -= self.runs[at.0].length;
            at = self.runs[at.0]
                .parent
                .expect("a fork is not longer than its source");
        }
        if back > 0 {
            at = self.split(at, back);
        }
        self.runs[at.0].heirs += 1;
        at
    }

    /// Cuts the last `back` tokens off a run: it keeps them, the new run before it has the others.
    fn split(&mut self, run: RunId, back: u32) -> RunId {
        let Run { parent, length, .. } = self.runs[run.0];
        let before = self.add(Run {
            parent,
            length: length - back,
            heirs: 1,
        });
        self.runs[run.0].parent = Some(before);
        self.runs[run.0].length = back;
        before
    }

    /// A sequence goes on: in its last run if nobody else goes on from there.
    fn extend(&mut self, last: Option<RunId>, tokens: u32) -> RunId {
        match last {
            Some(run) if self.runs[run.0].heirs == 1 => {
                self.runs[run.0].length += tokens;
                run
            }
            // The new run takes the sequence's place among the heirs of the shared one.
            parent => self.add(Run {
                parent,
                length: tokens,
                heirs: 1,
            }),
        }
    }

    /// A sequence ends; how many cells that frees.
    fn release(&mut self, mut last: Option<RunId>) -> u32 {
        let mut freed = 0;
        while let Some(id) = last {
            let run = &mut self.runs[id.0];
            run.heirs -= 1;
            if run.heirs > 0 {
                break;
            }
            freed += run.length;
            last = run.parent;
            self.free.push(id);
        }
        freed
    }

    fn own(&self, mut last: Option<RunId>) -> u32 {
        let mut own = 0;
        while let Some(run) = last.map(|id| &self.runs[id.0])
            && run.heirs == 1
        {
            own += run.length;
            last = run.parent;
        }
        own
    }

    fn add(&mut self, run: Run) -> RunId {
        if let Some(id) = self.free.pop() {
            self.runs[id.0] = run;
            return id;
        }
        self.runs.push(run);
        RunId(self.runs.len() - 1)
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

    /// One thing to do with a cache: `which` and `length` are taken modulo what there is.
    #[derive(Debug, Clone)]
    enum Act {
        Open,
        Extend { which: usize, tokens: u32 },
        Fork { which: usize, length: u32 },
        Forget { which: usize },
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            Just(Act::Open),
            (any::<usize>(), 1..9u32).prop_map(|(which, tokens)| Act::Extend { which, tokens }),
            (any::<usize>(), any::<u32>()).prop_map(|(which, length)| Act::Fork { which, length }),
            any::<usize>().prop_map(|which| Act::Forget { which }),
        ]
    }

    proptest! {
        /// Against a cache that writes down every cell of every sequence.
        #[test]
        fn cells_are_counted(acts in prop::collection::vec(act(), 0..60)) {
            let mut kv = Kv::new(60, 5);
            let mut plain: Vec<(SequenceId, Vec<u32>)> = Vec::new();
            let mut cell = 0;
            for act in acts {
                match act {
                    Act::Open => plain.extend(kv.open().map(|id| (id, vec![]))),
                    Act::Extend { which, tokens } if !plain.is_empty() && tokens <= kv.free_cells() => {
                        let which = which % plain.len();
                        kv.extend(plain[which].0, tokens);
                        plain[which].1.extend(cell..cell + tokens);
                        cell += tokens;
                    }
                    Act::Fork { which, length } if !plain.is_empty() => {
                        let (from, cells) = plain[which % plain.len()].clone();
                        let length = length % (u32::try_from(cells.len()).unwrap() + 1);
                        let fork = kv.fork(from, length).map(|id| (id, cells[..length as usize].to_vec()));
                        plain.extend(fork);
                    }
                    Act::Forget { which } if !plain.is_empty() => {
                        kv.forget(plain.swap_remove(which % plain.len()).0);
                    }
                    Act::Extend { .. } | Act::Fork { .. } | Act::Forget { .. } => {}
                }
                let all: BTreeSet<u32> = plain.iter().flat_map(|(_, cells)| cells.clone()).collect();
                prop_assert_eq!(kv.used_cells() as usize, all.len());
                prop_assert_eq!(kv.free_sequences(), 5 - plain.len());
                for (id, cells) in &plain {
                    let others = plain.iter().filter(|(other, _)| other != id);
                    let shared: BTreeSet<u32> = others.flat_map(|(_, cells)| cells.clone()).collect();
                    let own = cells.iter().filter(|cell| !shared.contains(cell)).count();
                    prop_assert_eq!(kv.own_cells(*id) as usize, own);
                    prop_assert_eq!(kv.length(*id) as usize, cells.len());
                }
            }
        }
    }
}

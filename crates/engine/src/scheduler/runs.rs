//! The tree of runs of tokens that sequences are paths in.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId(usize);

#[derive(Debug)]
struct Run {
    parent: Option<RunId>,
    length: u32,
    /// Runs and sequences that go on from its end.
    heirs: u32,
    /// Those of them that are live, or have something live below.
    live: u32,
}

#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    free: Vec<RunId>,
}

impl Runs {
    /// The run that ends `back` tokens before the end of `last`, with one heir more, which is idle.
    pub(super) fn share(&mut self, last: Option<RunId>, mut back: u32) -> RunId {
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
        let Run {
            parent,
            length,
            live,
            ..
        } = self.runs[run.0];
        let before = self.add(Run {
            parent,
            length: length - back,
            heirs: 1,
            live: live.min(1),
        });
        self.runs[run.0].parent = Some(before);
        self.runs[run.0].length = back;
        before
    }

    /// A live sequence goes on: in its last run if nobody else goes on from there.
    pub(super) fn extend(&mut self, last: Option<RunId>, tokens: u32) -> RunId {
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
                live: 1,
            }),
        }
    }

    /// An heir of the run becomes live; how many cells do with it.
    pub(super) fn enliven(&mut self, mut last: Option<RunId>) -> u32 {
        let mut cells = 0;
        while let Some(run) = last.map(|id| &mut self.runs[id.0]) {
            run.live += 1;
            if run.live > 1 {
                break;
            }
            cells += run.length;
            last = run.parent;
        }
        cells
    }

    /// A live heir of the run becomes idle; how many cells do with it.
    pub(super) fn calm(&mut self, mut last: Option<RunId>) -> u32 {
        let mut cells = 0;
        while let Some(run) = last.map(|id| &mut self.runs[id.0]) {
            run.live -= 1;
            if run.live > 0 {
                break;
            }
            cells += run.length;
            last = run.parent;
        }
        cells
    }

    /// An idle sequence ends; how many cells that frees.
    pub(super) fn release(&mut self, mut last: Option<RunId>) -> u32 {
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

    /// Cells that only the sequence that ends with this run has.
    pub(super) fn own(&self, mut last: Option<RunId>) -> u32 {
        let mut own = 0;
        while let Some(run) = last.map(|id| &self.runs[id.0])
            && run.heirs == 1
        {
            own += run.length;
            last = run.parent;
        }
        own
    }

    /// Idle cells of the path that ends `back` tokens before the end of `last`.
    pub(super) fn idle(&self, mut last: Option<RunId>, mut back: u32) -> u32 {
        let mut idle = 0;
        while let Some(run) = last.map(|id| &self.runs[id.0])
            && run.live == 0
        {
            idle += run.length - back.min(run.length);
            back -= back.min(run.length);
            last = run.parent;
        }
        idle
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

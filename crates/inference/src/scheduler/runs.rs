//! The tree of token runs in which sequences are paths.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunId(usize);

#[derive(Debug)]
struct Run {
    parent: Option<RunId>,
    length: u32,
    /// The number of runs and sequences that continue from the run's end.
    heirs: u32,
    /// The number of heirs that are live or have a live sequence below them.
    live: u32,
}

#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    free: Vec<RunId>,
}

impl Runs {
    /// Adds an idle heir `back` tokens before the end of `last`. Returns the run that ends there, splitting one if
    /// needed.
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

    /// Splits a run: `run` keeps its last `back` tokens, and a new run before it, which is returned, has the others.
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

    /// Adds tokens to a live sequence: to its last run if nothing else continues from there, else in a new run.
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

    /// Makes an heir of the run live. Returns how many cells become live with it.
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

    /// Makes a live heir of the run idle. Returns how many cells become idle with it.
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

    /// Removes an idle sequence. Returns how many cells become free.
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

    /// The number of cells that only the sequence that ends with this run has.
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

    /// The number of idle cells of the path that ends `back` tokens before the end of `last`.
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

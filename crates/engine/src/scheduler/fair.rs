//! Fairness between accounts: whoever had far less computed for it lately comes first. Each account has a counter of its
//! rows ("virtual token counter", Sheng et al., Fairness in Serving Large Language Models, OSDI 2024); instead of
//! being lifted when the account comes back, all counters decay, so that whoever seldom asks doesn't wait for
//! whoever always does.
//!
//! Alone, an account may have all. Beside others, a few of its streams go on in every step, and the others make way
//! for prompts and streams of lighter accounts; and so do the cells that it has beyond an equal part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::scheduler::plan::Draft;
use crate::scheduler::{ChoiceId, Scheduler};

/// Streams of an account that have their next token in every step; half as many for each class that it is above the
/// lightest that is there, and one at least.
const STREAMS_MIN: usize = 4;
/// Accounts that had less than so many rows are equals, and so are those that had up to twice as many as each other.
const EQUALS: u64 = 2_048;
/// After so many rows of all accounts the counters lose a part, …
const DECAY_ROWS: u64 = 1_024;
/// … which is this one: after 22,000 rows, about a minute on two cores, half is left.
const DECAY_PART: u64 = 32;

/// The accounts that have something to compute, or had lately.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    accounts: BTreeMap<Arc<str>, Account>,
    /// How many of them have a choice.
    active: u32,
    /// Rows since the counters have decayed.
    rows: u64,
}

#[derive(Debug, Default)]
struct Account {
    /// Rows computed for it, fewer the longer ago.
    served: u64,
    /// All its choices, waiting or running.
    choices: BTreeSet<ChoiceId>,
    running: usize,
}

impl Accounts {
    pub(super) fn add(&mut self, account: &Arc<str>, choice: ChoiceId) {
        let account = self.accounts.entry(Arc::clone(account)).or_default();
        self.active += u32::from(account.choices.is_empty());
        account.choices.insert(choice);
    }

    pub(super) fn remove(&mut self, account: &Arc<str>, choice: ChoiceId) {
        let account = self.known(account);
        account.choices.remove(&choice);
        self.active -= u32::from(account.choices.is_empty());
    }

    pub(super) fn begin(&mut self, account: &Arc<str>) {
        self.known(account).running += 1;
    }

    pub(super) fn stop(&mut self, account: &Arc<str>) {
        self.known(account).running -= 1;
    }

    pub(super) fn serve(&mut self, account: &Arc<str>, rows: u32) {
        self.known(account).served += u64::from(rows);
        self.rows += u64::from(rows);
        while self.rows >= DECAY_ROWS {
            self.rows -= DECAY_ROWS;
            self.accounts.retain(|_, account| {
                let lost = (account.served / DECAY_PART).max(1);
                account.served = account.served.saturating_sub(lost);
                account.served > 0 || !account.choices.is_empty()
            });
        }
    }

    pub(super) fn active(&self) -> u32 {
        self.active
    }

    /// The choices of each account; who has had far less comes first, then who has few that run, then who has waited
    /// the longest.
    pub(super) fn in_turn(&self) -> impl Iterator<Item = &BTreeSet<ChoiceId>> {
        self.by_class().into_iter().map(|(_, choices)| choices)
    }

    fn by_class(&self) -> Vec<(u32, &BTreeSet<ChoiceId>)> {
        let active = self
            .accounts
            .values()
            .filter(|account| !account.choices.is_empty());
        let mut active: Vec<_> = active.collect();
        active.sort_by_key(|account| {
            let oldest = account.choices.first().copied();
            (account.class(), account.running / STREAMS_MIN, oldest)
        });
        let active = active.into_iter();
        active
            .map(|account| (account.class(), &account.choices))
            .collect()
    }

    fn class(&self, account: &str) -> u32 {
        self.accounts[account].class()
    }

    fn known(&mut self, account: &str) -> &mut Account {
        self.accounts
            .get_mut(account)
            .expect("an account with choices is known")
    }
}

impl Account {
    fn class(&self) -> u32 {
        (self.served / EQUALS + 1).ilog2()
    }
}

impl Scheduler {
    /// Which of the choices have their next token in a step of `rows` rows: all if there is one account, or if all are equals
    /// and nobody waits for anything else. Else a few of each; what is left is for streams and prompts, the lightest
    /// account's first.
    pub(super) fn share_rows(&self, ready: BTreeSet<ChoiceId>, rows: u32) -> BTreeSet<ChoiceId> {
        if self.accounts.active() < 2 {
            return ready;
        }
        let (mut chosen, mut others) = (BTreeSet::new(), Vec::new());
        let accounts = self.accounts.by_class();
        let lightest = accounts[0].0;
        let equals = accounts.iter().all(|(class, _)| *class == lightest);
        if equals && self.waiting.is_empty() && self.all_decode() {
            return ready;
        }
        for (class, choices) in accounts {
            let least = STREAMS_MIN >> (class - lightest).min(STREAMS_MIN.ilog2());
            let mut own: Vec<ChoiceId> = choices.intersection(&ready).copied().collect();
            own.sort_by_key(|choice| (self.running[choice].1.stepped, *choice));
            let rest = own.split_off(least.min(own.len()));
            chosen.extend(own);
            others.push((choices, rest));
        }
        let mut left = (rows as usize).saturating_sub(chosen.len());
        for (choices, rest) in others {
            let streams = rest.len().min(left);
            chosen.extend(rest.into_iter().take(streams));
            left -= streams;
            let prompts = choices.iter().map(|choice| self.prompt_rows(*choice));
            left = prompts.fold(left, |left, rows| left.saturating_sub(rows as usize));
        }
        chosen
    }

    fn all_decode(&self) -> bool {
        let mut running = self.running.values();
        running.all(|(id, sequence)| self.kv.length(*id) + 1 >= sequence.known())
    }

    /// Rows that a choice needs before its next token.
    pub(super) fn prompt_rows(&self, choice: ChoiceId) -> u32 {
        match (self.running.get(&choice), self.waiting.get(&choice)) {
            (Some((id, running)), _) => (running.known() - self.kv.length(*id)).saturating_sub(1),
            (None, Some(waiting)) => waiting.known(),
            (None, None) => 0,
        }
    }

    /// Takes cells and sequences of accounts that have more than an equal part, for one that waits, had less, and
    /// stays within its part.
    pub(super) fn make_fair(&mut self, draft: &Draft<'_>) {
        if self.accounts.active() < 2 {
            return;
        }
        let Some((choice, source)) = self.next_to_begin(draft) else {
            return;
        };
        while !self.may_begin(choice, source)
            && let Some(rival) = self.rival(choice)
        {
            self.preempt(rival);
        }
    }

    /// The youngest choice of the account that holds the most.
    pub(super) fn rival(&self, choice: ChoiceId) -> Option<ChoiceId> {
        let waiting = &self.waiting[&choice];
        let mut held: HashMap<&Arc<str>, Held> = HashMap::new();
        for (id, sequence) in self.running.values() {
            let held = held.entry(&sequence.account).or_default();
            held.cells += self.kv.length(*id);
            held.sequences += 1;
        }
        let accounts = self.accounts.active();
        let part = Held {
            cells: self.capacity.cells / accounts,
            sequences: (self.capacity.sequences / accounts).max(1),
        };
        let mut own = held.remove(&waiting.account).unwrap_or_default();
        own.cells += waiting.known() + waiting.remaining().min(self.output_expected);
        own.sequences += 1;
        if own.is_above(part) {
            return None;
        }
        let class = self.accounts.class(&waiting.account);
        let above = held
            .into_iter()
            .filter(|(account, held)| held.is_above(part) && self.accounts.class(account) > class);
        let (account, _) = above.max_by_key(|(_, held)| (held.cells, held.sequences))?;
        let mut running = self.running.iter().rev();
        running
            .find(|(_, (_, sequence))| sequence.account == *account)
            .map(|(&choice, _)| choice)
    }
}

/// What an account has of the cache.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    cells: u32,
    sequences: u32,
}

impl Held {
    fn is_above(self, part: Held) -> bool {
        self.cells > part.cells || self.sequences > part.sequences
    }
}

//! Fairness between accounts: whoever had far less computed for it lately comes first. Each account has a counter of its
//! rows ("virtual token counter", Sheng et al., Fairness in Serving Large Language Models, OSDI 2024); instead of
//! being lifted when the account comes back, all counters decay, so that whoever seldom asks doesn't wait for
//! whoever always does.
//!
//! An account of weight 2 counts as two: its rows count half, and its part is twice as large.
//!
//! Alone, an account may have all. Beside others, a few of its streams go on in every step, and the others make way
//! for prompts and streams of lighter accounts; and so do the cells that it has beyond an equal part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::scheduler::admit::Reserve;
use crate::scheduler::plan::{Draft, Room, Step};
use crate::scheduler::{ChoiceId, RequestId, Scheduler};

/// Streams of an account that have their next token in every step; half as many for each class that it is above the
/// lightest that is there, and one at least.
const STREAMS_MIN: usize = 4;
/// Rows that an output counts as, beside its own.
const OUTPUT_ROWS: u32 = 1;
/// Accounts that had less than so many rows are equals, and so are those that had up to twice as many as each other.
const EQUALS: u64 = 2_048;
/// Where weights differ, who had so many rows fewer for each part goes first among those.
const EXACTLY: u64 = 256;
/// After so many rows of all accounts the counters lose a part, …
const DECAY_ROWS: u64 = 1_024;
/// … which is this one: after 22,000 rows, about a minute on two cores, half is left.
const DECAY_PART: u64 = 32;

/// The accounts that have something to compute, or had lately.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    accounts: BTreeMap<Arc<str>, Account>,
    /// How many of them have a choice, …
    active: u32,
    /// … and their weights.
    weights: u32,
    /// Rows since the counters have decayed.
    rows: u64,
}

#[derive(Debug)]
pub(super) struct Account {
    /// As its last request says.
    weight: NonZeroU32,
    /// Rows computed for it, fewer the longer ago.
    served: u64,
    /// All its choices, waiting or running.
    pub(super) choices: BTreeSet<ChoiceId>,
    running: usize,
    /// The number of the last step that computed something of it.
    stepped: u64,
}

impl Accounts {
    pub(super) fn add(&mut self, account: &Arc<str>, weight: NonZeroU32, choice: ChoiceId) {
        let new = || Account {
            weight,
            served: 0,
            choices: BTreeSet::new(),
            running: 0,
            stepped: 0,
        };
        let account = self.accounts.entry(Arc::clone(account)).or_insert_with(new);
        if account.choices.is_empty() {
            self.active += 1;
        } else {
            self.weights -= account.weight.get();
        }
        account.weight = weight;
        self.weights += weight.get();
        account.choices.insert(choice);
    }

    pub(super) fn remove(&mut self, account: &Arc<str>, choice: ChoiceId) {
        let account = self.known(account);
        account.choices.remove(&choice);
        if account.choices.is_empty() {
            let weight = account.weight.get();
            self.active -= 1;
            self.weights -= weight;
        }
    }

    pub(super) fn begin(&mut self, account: &Arc<str>) {
        self.known(account).running += 1;
    }

    pub(super) fn stop(&mut self, account: &Arc<str>) {
        self.known(account).running -= 1;
    }

    pub(super) fn stepped(&self, account: &str) -> Option<u64> {
        self.accounts.get(account).map(|account| account.stepped)
    }

    /// The step of this number computes something of the account.
    pub(super) fn step(&mut self, account: &Arc<str>, step: u64) {
        self.known(account).stepped = step;
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

    /// An account's part of something, going by the weights of those that are there.
    fn part(&self, account: &str, of: u32) -> u32 {
        let weight = u64::from(self.accounts[account].weight.get());
        let part = u64::from(of) * weight / u64::from(self.weights.max(1));
        u32::try_from(part).unwrap_or(of)
    }

    /// The choices of an account that is there.
    pub(super) fn choices(&self, account: &str) -> &BTreeSet<ChoiceId> {
        &self.accounts[account].choices
    }

    fn has_running(&self, account: &str) -> bool {
        self.accounts[account].running > 0
    }

    /// Accounts with their names; who has had far less comes first, then who has few that run, then who says so, then who has
    /// waited the longest.
    pub(super) fn by_class<K: Ord>(
        &self,
        key: impl Fn(&Account) -> K,
    ) -> Vec<(&Arc<str>, &Account)> {
        let all = self.accounts.iter();
        let mut active: Vec<_> = all.filter(|(_, it)| !it.choices.is_empty()).collect();
        // Accounts of the same weight needn't have the same, only be served soon; others have what they are told.
        let mixed = active
            .iter()
            .any(|(_, account)| account.weight != active[0].1.weight);
        active.sort_by_key(|(_, account)| {
            let oldest = account.choices.first().copied();
            let exactly = if mixed {
                account.weighed() / EXACTLY
            } else {
                0
            };
            (
                account.class(),
                account.crowd(),
                exactly,
                key(account),
                oldest,
            )
        });
        active
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
        (self.weighed() / EQUALS + 1).ilog2()
    }

    /// Rows that it had, for each part.
    fn weighed(&self) -> u64 {
        self.served / u64::from(self.weight.get())
    }

    /// How many of its choices run, by its weight; a few are none.
    fn crowd(&self) -> usize {
        if self.running < self.streams() {
            return 0;
        }
        self.running / self.weight.get() as usize
    }

    /// How many of its streams go on in each step beside equals.
    fn streams(&self) -> usize {
        STREAMS_MIN * self.weight.get() as usize
    }
}

impl Scheduler {
    /// Which of the choices have their next token in a step: as many as a step may have if there is one account, or if all are
    /// equals and nobody waits for anything else. Else a few of each; what is left is for streams and prompts, the lightest
    /// account's first.
    pub(super) fn share_rows(&self, ready: BTreeSet<ChoiceId>, room: Room) -> BTreeSet<ChoiceId> {
        if self.accounts.active() < 2 {
            return self.longest_unstepped(ready, room.longest);
        }
        let (mut chosen, mut others) = (BTreeSet::new(), Vec::new());
        let accounts = self.accounts.by_class(|_| ());
        let lightest = accounts[0].1.class();
        let equals = accounts
            .iter()
            .all(|(_, account)| account.class() == lightest);
        if equals && self.waiting.is_empty() && self.all_decode() {
            return self.longest_unstepped(ready, room.longest);
        }
        let rows = if equals { room.streams } else { room.rows };
        for (_, account) in accounts {
            let choices = &account.choices;
            let least = (account.streams() >> (account.class() - lightest).min(32)).max(1);
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
            let in_steps = choices.iter().filter(|choice| !self.goes_aside(**choice));
            let prompts = in_steps.map(|choice| self.prompt_rows(*choice));
            left = prompts.fold(left, |left, rows| left.saturating_sub(rows as usize));
        }
        chosen
    }

    /// At most `most` of these choices, those first that have been out of steps for the longest.
    fn longest_unstepped(&self, ready: BTreeSet<ChoiceId>, most: u32) -> BTreeSet<ChoiceId> {
        if ready.len() <= most as usize {
            return ready;
        }
        let mut ready: Vec<ChoiceId> = ready.into_iter().collect();
        ready.sort_by_key(|choice| (self.running[choice].1.stepped, *choice));
        ready.into_iter().take(most as usize).collect()
    }

    /// A row whose logits are wanted costs as much again: the product with the vocabulary, and what is chosen or scored from it.
    pub(super) fn count_outputs(&mut self, step: &Step) {
        let sampled = step.sampled.iter().map(|sampled| sampled.choice);
        let scored = step.scored.iter().map(|scored| scored.first);
        for choice in sampled.chain(scored) {
            let mut of_request = self.running.range(choice.request.all());
            let (_, (_, sequence)) = of_request.next().expect("it is in the step");
            self.accounts.serve(&sequence.account, OUTPUT_ROWS);
        }
    }

    fn all_decode(&self) -> bool {
        let mut running = self.running.iter();
        running.all(|(&choice, (id, sequence))| {
            self.kv.length(*id) + 1 >= sequence.known() || self.goes_aside(choice)
        })
    }

    /// The accounts in the order in which their prompts are computed. Of equals those come first whose next prompt is over within
    /// `rows`: a long one waits a step for it, and it would wait for all of the long one's.
    pub(super) fn in_turn(&self, rows: u32) -> Vec<Arc<str>> {
        let accounts = self.accounts.by_class(|account| {
            let mut prompts = account
                .choices
                .iter()
                .map(|&choice| self.prompt_rows(choice));
            prompts
                .find(|&left| left > 0)
                .is_some_and(|left| left > rows)
        });
        accounts
            .into_iter()
            .map(|(name, _)| Arc::clone(name))
            .collect()
    }

    /// The account's choices that run and have something of a prompt left, or of what they lost, oldest first.
    pub(super) fn running_prompts(&self, account: &str) -> Vec<ChoiceId> {
        let running = self.running.iter();
        let own = running.filter(|(_, (_, sequence))| *sequence.account == *account);
        let own = own.map(|(&choice, _)| choice);
        own.filter(|&choice| self.prompt_rows(choice) > 0).collect()
    }

    /// Rows that a choice needs before its next token.
    pub(super) fn prompt_rows(&self, choice: ChoiceId) -> u32 {
        match (self.running.get(&choice), self.waiting.get(&choice)) {
            (Some((id, running)), _) => (running.known() - self.kv.length(*id)).saturating_sub(1),
            (None, Some(waiting)) => waiting.known(),
            (None, None) => 0,
        }
    }

    /// Takes cells and sequences of accounts that have more than an equal part, for one that waits and stays within its part.
    pub(super) fn make_fair(&mut self, draft: &Draft<'_>) {
        if self.accounts.active() < 2 {
            return;
        }
        let mut accounts = self.in_turn(draft.rows_max());
        // Who has nothing that runs is to have something.
        accounts.sort_by_key(|account| self.accounts.has_running(account));
        let mut accounts = accounts.into_iter();
        let Some(account) = accounts.find(|account| self.next_of(account, draft).is_some()) else {
            return;
        };
        let mut made_way = false;
        // What it begins with may be another's, which is not what it was once that has made way.
        while let Some((choice, source)) = self.next_of(&account, draft) {
            if self.may_begin(choice, source) {
                // At once: else whoever made way might take its cells back.
                if made_way {
                    self.begin(choice, source, Reserve::Kept);
                }
                return;
            }
            let Some(rival) = self.rival(choice, |request| draft.is_blocked(request)) else {
                return;
            };
            self.preempt(rival);
            made_way = true;
        }
    }

    /// The choice that has to make way for one that waits: the youngest of the account that holds the most, if that had far more
    /// computed for it, or if the other account has nothing that runs; and in any case those that can't go on themselves.
    pub(super) fn rival(
        &self,
        choice: ChoiceId,
        is_blocked: impl Fn(RequestId) -> bool,
    ) -> Option<ChoiceId> {
        let waiting = &self.waiting[&choice];
        let mut held: HashMap<&Arc<str>, Held> = HashMap::new();
        for (id, sequence) in self.running.values() {
            let held = held.entry(&sequence.account).or_default();
            held.cells += self.kv.length(*id);
            held.sequences += 1;
        }
        let part = |account: &str| Held {
            cells: self.accounts.part(account, self.capacity.cells),
            sequences: self.accounts.part(account, self.capacity.sequences).max(1),
        };
        let mut own = held.remove(&waiting.account).unwrap_or_default();
        let has_none = own.sequences == 0;
        own.cells += waiting.known() + waiting.remaining().min(self.output_expected);
        own.sequences += 1;
        if own.is_above(part(&waiting.account)) {
            return None;
        }
        let mut above: Vec<_> = held.into_iter().collect();
        above.retain(|(account, held)| held.is_above(part(account)));
        above.sort_by_key(|(_, held)| std::cmp::Reverse((held.cells, held.sequences)));
        let class = self.accounts.class(&waiting.account);
        above.into_iter().find_map(|(account, _)| {
            let running = self.running.iter().rev();
            let mut own = running.filter(|(_, (_, sequence))| sequence.account == *account);
            let mut blocked = own.clone();
            let blocked = blocked.find(|(other, _)| is_blocked(other.request));
            let heavier = has_none || self.accounts.class(account) > class;
            let youngest = || own.next().filter(|_| heavier);
            blocked.or_else(youngest).map(|(&other, _)| other)
        })
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

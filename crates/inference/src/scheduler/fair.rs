//! Fairness between accounts: an account that had far fewer tokens computed lately goes first. Each account has a
//! counter of its tokens ("virtual token counter", Sheng et al., Fairness in Serving Large Language Models, OSDI 2024);
//! instead of being lifted when the account comes back, all counters decay, so that an account that seldom asks doesn't
//! wait for one that always does.
//!
//! An account of weight 2 counts as two: its tokens count half, and its share is twice as large.
//!
//! Alone, an account may have everything. Beside others, a few of its streams continue in every step, and the others
//! make way for prompts and streams of accounts with lower counters; so do the KV cells that it has beyond its share.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::scheduler::admit::Reserve;
use crate::scheduler::plan::{Step, StepBudget, StepBuilder};
use crate::scheduler::{ChoiceId, RequestId, Scheduler};

/// Streams of an account of weight 1 that get their next token in every step. Halved for each class that the account is
/// above the lightest account that is active, but at least one.
const STREAMS_MIN: usize = 4;
/// How many tokens an output counts as, in addition to the token itself.
const OUTPUT_ROWS: u32 = 1;
/// Accounts whose counter is below this many tokens form the lowest class, within which they are equals; each class
/// above is about twice as wide as the one below.
const EQUALS: u64 = 2_048;
/// With unequal weights, the account with the lowest `tokens / weight` of a class goes first; values within the same
/// multiple of this count as equal.
const EXACTLY: u64 = 256;
/// The counters decay each time this many tokens were computed, of all accounts together.
const DECAY_ROWS: u64 = 1_024;
/// Each decay takes this fraction (1/32) off a counter: after 22,000 tokens, about a minute on two cores, half is left.
const DECAY_PART: u64 = 32;

/// The accounts that have choices, or had some lately.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    accounts: BTreeMap<Arc<str>, Account>,
    /// The number of accounts with a choice.
    active: u32,
    /// The sum of these accounts' weights.
    weights: u32,
    /// Tokens computed since the counters last decayed.
    rows: u64,
}

#[derive(Debug)]
pub(super) struct Account {
    /// The weight in the account's last request.
    weight: NonZeroU32,
    /// The account's counter: tokens computed for it, decaying over time.
    served: u64,
    /// All choices of the account, waiting or running.
    pub(super) choices: BTreeSet<ChoiceId>,
    running: usize,
    /// The number of the last step that computed tokens of the account.
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

    /// Records that the step with this number computes tokens of the account.
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

    /// The account's share of `of`, by its weight among the accounts that have choices.
    fn part(&self, account: &str, of: u32) -> u32 {
        let weight = u64::from(self.accounts[account].weight.get());
        let part = u64::from(of) * weight / u64::from(self.weights.max(1));
        u32::try_from(part).unwrap_or(of)
    }

    /// The choices of an account. Panics if the account isn't known.
    pub(super) fn choices(&self, account: &str) -> &BTreeSet<ChoiceId> {
        &self.accounts[account].choices
    }

    fn has_running(&self, account: &str) -> bool {
        self.accounts[account].running > 0
    }

    /// The accounts that have choices, in the order in which they are served: by class, then by `crowd`, then (with
    /// unequal weights) by `tokens / weight`, then by `key`, then by the age of the oldest choice.
    pub(super) fn by_class<K: Ord>(
        &self,
        key: impl Fn(&Account) -> K,
    ) -> Vec<(&Arc<str>, &Account)> {
        let all = self.accounts.iter();
        let mut active: Vec<_> = all.filter(|(_, it)| !it.choices.is_empty()).collect();
        // Accounts of equal weight needn't get exactly the same, only be served soon. Unequal weights promise exact
        // shares.
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

    /// The account's counter per unit of weight.
    fn weighed(&self) -> u64 {
        self.served / u64::from(self.weight.get())
    }

    /// The number of the account's running choices per unit of weight; 0 if they are fewer than [`Self::streams`].
    fn crowd(&self) -> usize {
        if self.running < self.streams() {
            return 0;
        }
        self.running / self.weight.get() as usize
    }

    /// How many of the account's streams continue in each step beside accounts of its class.
    fn streams(&self) -> usize {
        STREAMS_MIN * self.weight.get() as usize
    }
}

impl Scheduler {
    /// The choices of `ready` that get their next token in this step. These are as many as a step may have if there is
    /// one account, or if all accounts are of the same class and everything else is done. Otherwise they are a few of
    /// each account, and the tokens that are left in the step go to more streams and to prompts, the lightest account's
    /// first.
    pub(super) fn share_rows(
        &self,
        ready: BTreeSet<ChoiceId>,
        budget: StepBudget,
    ) -> BTreeSet<ChoiceId> {
        if self.accounts.active() < 2 {
            return self.longest_unstepped(ready, budget.longest);
        }
        let (mut chosen, mut others) = (BTreeSet::new(), Vec::new());
        let accounts = self.accounts.by_class(|_| ());
        let lightest = accounts[0].1.class();
        let equals = accounts
            .iter()
            .all(|(_, account)| account.class() == lightest);
        if equals && self.waiting.is_empty() && self.all_decode() {
            return self.longest_unstepped(ready, budget.longest);
        }
        let rows = if equals { budget.streams } else { budget.rows };
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

    /// Charges accounts for outputs: a token whose logits are wanted costs as much again, for the product with the
    /// vocabulary and for sampling or scoring.
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

    /// The accounts in the order in which their prompts are computed. Of equals, accounts whose next prompt is done
    /// within `rows` tokens go first: a long prompt waits one step for a short one, but a short one would wait for all
    /// of the long one.
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

    /// The account's running choices that have prompt tokens left to compute, or tokens lost by preemption, oldest
    /// first.
    pub(super) fn running_prompts(&self, account: &str) -> Vec<ChoiceId> {
        let running = self.running.iter();
        let own = running.filter(|(_, (_, sequence))| *sequence.account == *account);
        let own = own.map(|(&choice, _)| choice);
        own.filter(|&choice| self.prompt_rows(choice) > 0).collect()
    }

    /// The number of tokens that must be computed before the choice decodes its next token.
    pub(super) fn prompt_rows(&self, choice: ChoiceId) -> u32 {
        match (self.running.get(&choice), self.waiting.get(&choice)) {
            (Some((id, running)), _) => (running.known() - self.kv.length(*id)).saturating_sub(1),
            (None, Some(waiting)) => waiting.known(),
            (None, None) => 0,
        }
    }

    /// Preempts choices of accounts that hold more than their share of cells or sequences, to admit a waiting choice
    /// whose account stays within its share.
    pub(super) fn make_fair(&mut self, builder: &StepBuilder<'_>) {
        if self.accounts.active() < 2 {
            return;
        }
        let mut accounts = self.in_turn(builder.rows_max());
        // Accounts without a running choice go first.
        accounts.sort_by_key(|account| self.accounts.has_running(account));
        let mut accounts = accounts.into_iter();
        let Some(account) = accounts.find(|account| self.next_of(account, builder).is_some())
        else {
            return;
        };
        let mut made_way = false;
        // The cached prefix is looked up again each time: a preemption may have changed the sequence that has it.
        while let Some((choice, source)) = self.next_of(&account, builder) {
            if self.may_begin(choice, source) {
                // Admit the choice at once: otherwise the preempted one might take its cells back.
                if made_way {
                    self.begin(choice, source, Reserve::Kept);
                }
                return;
            }
            let Some(rival) = self.rival(choice, |request| builder.is_blocked(request)) else {
                return;
            };
            self.preempt(rival);
            made_way = true;
        }
    }

    /// The choice to preempt for a waiting one, from the account that holds the most cells beyond its share: a blocked
    /// choice if it has one, else its youngest, but this only if the account is of a higher class or if the waiting
    /// account has no running choice. `None` if the waiting account would exceed its own share.
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

/// The cells and sequences that an account holds.
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

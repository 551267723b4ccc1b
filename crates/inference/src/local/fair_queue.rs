//! A queue in which accounts take turns: an account with a thousand items delays another's first item by one.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// An account may have this part (1/16) of a queue's length in it even when the queue is full, so that no other account
/// shuts it out.
const ACCOUNT_PART: usize = 16;
/// The number of accounts that may use that part of a full queue at once; after them a push is refused.
const ACCOUNTS_BEYOND: usize = 16;

/// Whether one more item of an account is let into a queue of `length` items, of which `own` are the account's, and
/// which is full with `most`.
pub(crate) fn has_room(length: usize, own: usize, most: usize) -> bool {
    let part = (most / ACCOUNT_PART).max(1);
    length < most || (own < part && length < most + part * ACCOUNTS_BEYOND)
}

#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    /// Accounts with something in the queue, the next one first.
    turns: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<T>>,
    length: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
            length: 0,
        }
    }
}

impl<T> FairQueue<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether one more item of the account is let into the queue, which is full with `most`.
    pub(crate) fn has_room(&self, account: &str, most: usize) -> bool {
        let own = self.waiting.get(account).map_or(0, VecDeque::len);
        has_room(self.length, own, most)
    }

    pub(crate) fn push(&mut self, account: &Arc<str>, item: T) {
        let own = self.waiting.entry(Arc::clone(account)).or_default();
        if own.is_empty() {
            self.turns.push_back(Arc::clone(account));
        }
        own.push_back(item);
        self.length += 1;
    }

    /// Takes the oldest item of the account whose turn it is, among the accounts for which `may` is true.
    pub(crate) fn pop(&mut self, may: impl Fn(&str) -> bool) -> Option<(Arc<str>, T)> {
        let at = self.turns.iter().position(|account| may(account))?;
        let account = self.turns.remove(at)?;
        let own = self.waiting.get_mut(&account)?;
        let item = own.pop_front()?;
        self.length -= 1;
        if own.is_empty() {
            self.waiting.remove(&account);
        } else {
            self.turns.push_back(Arc::clone(&account));
        }
        Some((account, item))
    }

    /// Drops the items that aren't wanted any more.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        self.waiting.retain(|_, own| {
            own.retain(|item| wanted(item));
            !own.is_empty()
        });
        self.turns
            .retain(|account| self.waiting.contains_key(account));
        self.length = self.waiting.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(items: &str) -> FairQueue<char> {
        let mut queue = FairQueue::default();
        for item in items.chars() {
            let account = item.to_lowercase().to_string();
            queue.push(&account.into(), item);
        }
        queue
    }

    fn all(mut queue: FairQueue<char>) -> String {
        std::iter::from_fn(|| queue.pop(|_| true))
            .map(|(_, item)| item)
            .collect()
    }

    #[test]
    fn accounts_take_turns_and_each_is_served_in_its_order() {
        for (pushed, popped) in [
            ("", ""),
            ("aAa", "aAa"),
            ("aAaAb", "abAaA"),
            ("aabbc", "abcab"),
            ("abcABC", "abcABC"),
        ] {
            assert_eq!(all(queue(pushed)), popped, "{pushed}");
        }
    }

    #[test]
    fn whoever_comes_back_is_behind_those_that_wait() {
        let mut queue = queue("aaaab");
        let mut popped = String::new();
        for _ in 0..9 {
            let (account, item) = queue.pop(|_| true).unwrap();
            popped.push(item);
            // Both other accounts always have one more item, and still account a has every third turn.
            if *account != *"a" {
                queue.push(&account, item);
            }
            if !queue.waiting.contains_key("c") && popped.len() == 1 {
                queue.push(&"c".into(), 'c');
            }
        }
        assert_eq!(popped, "abacbacba");
    }

    #[test]
    fn accounts_that_may_not_are_passed() {
        let mut queue = queue("aabbc");
        assert_eq!(
            queue.pop(|account| account != "a").map(|(_, item)| item),
            Some('b')
        );
        assert_eq!(queue.pop(|account| account == "d"), None);
        queue.retain(|&item| item != 'b');
        assert_eq!(all(queue), "aca");
    }

    #[test]
    fn a_full_queue_has_room_for_those_that_have_little_in_it() {
        let check = |length, own, most, expected| {
            assert_eq!(
                has_room(length, own, most),
                expected,
                "{own} of {length}, {most}"
            );
        };
        check(511, 511, 512, true);
        check(512, 512, 512, false);
        check(512, 32, 512, false);
        check(512, 31, 512, true);
        check(512, 0, 512, true);
        check(1_023, 0, 512, true);
        check(1_024, 0, 512, false);
        check(1, 0, 1, true);
        check(1, 1, 1, false);
        check(17, 0, 1, false);
    }
}

//! The facts that a process reported, by request.

use std::collections::BTreeMap;

use weir_testkit::torture::{CHECKPOINT_EVERY, Fact, Payment, Prices};

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) account: String,
    pub(crate) whole: bool,
    pub(crate) choices: u64,
    pub(crate) prompt: u64,
    pub(crate) prices: Prices,
    pub(crate) refused: Option<String>,
    pub(crate) hung_up: bool,
    pub(crate) failed: bool,
    pub(crate) done: Option<(u64, u64)>,
    deliveries: Vec<Delivery>,
}

#[derive(Debug)]
struct Delivery {
    line: usize,
    tokens: u64,
    at_us: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) requests: BTreeMap<String, Request>,
    /// Payments by their idempotency key, and whether they were confirmed.
    pub(crate) payments: BTreeMap<String, (Payment, bool)>,
    /// The line of the `Asked` fact of the last hold that became durable. Writes that the ledger had queued before that line are
    /// durable too.
    barrier: usize,
}

impl Request {
    pub(crate) fn delivered(&self) -> u64 {
        self.deliveries.iter().map(|delivery| delivery.tokens).sum()
    }

    /// Tokens that a checkpoint must have made durable: those that were delivered at least an interval before a later
    /// delivery, if the ledger has written anything since.
    fn durable(&self, barrier: usize) -> u64 {
        let before = self
            .deliveries
            .partition_point(|delivery| delivery.line < barrier);
        // The call that returned the last of these deliveries wrote a checkpoint, if one was due, for the deliveries before it.
        let Some(called) = before
            .checked_sub(2)
            .map(|index| self.deliveries[index].at_us)
        else {
            return 0;
        };
        let interval_us = u64::try_from(CHECKPOINT_EVERY.as_micros()).unwrap();
        self.deliveries
            .iter()
            .take_while(|delivery| delivery.at_us + interval_us < called)
            .map(|delivery| delivery.tokens)
            .sum()
    }
}

impl Journal {
    pub(crate) fn read(facts: &[Fact]) -> Self {
        let (mut journal, mut asked_at) = (Journal::default(), BTreeMap::new());
        for (line, fact) in facts.iter().enumerate() {
            if let Fact::Asked { id, .. } = fact {
                asked_at.insert(id.as_str(), line);
            }
            if let Fact::Started { id } = fact {
                journal.barrier = journal.barrier.max(asked_at[id.as_str()]);
            }
            journal.add(line, fact);
        }
        journal
    }

    /// The fewest tokens that a request must be charged for if its process died.
    pub(crate) fn durable(&self, id: &str) -> u64 {
        self.requests[id].durable(self.barrier)
    }

    fn request(&mut self, id: &str) -> &mut Request {
        self.requests.get_mut(id).unwrap()
    }

    fn add(&mut self, line: usize, fact: &Fact) {
        match fact.clone() {
            Fact::Opened | Fact::Recovered | Fact::Drained | Fact::Started { .. } => {}
            Fact::Paying(payment) => {
                self.payments.insert(payment.key.clone(), (payment, false));
            }
            Fact::Paid { key } => self.payments.get_mut(&key).unwrap().1 = true,
            Fact::Asked {
                id,
                account,
                whole,
                choices,
                prompt,
                prices,
            } => {
                let request = Request {
                    account,
                    whole,
                    choices,
                    prompt,
                    prices,
                    refused: None,
                    hung_up: false,
                    failed: false,
                    done: None,
                    deliveries: Vec::new(),
                };
                assert!(self.requests.insert(id, request).is_none(), "asked twice");
            }
            Fact::Refused { id, why } => self.request(&id).refused = Some(why),
            Fact::Delivered { id, tokens, at_us } => {
                let delivery = Delivery {
                    line,
                    tokens,
                    at_us,
                };
                self.request(&id).deliveries.push(delivery);
            }
            Fact::HangsUp { id } => self.request(&id).hung_up = true,
            Fact::Done {
                id,
                prompt,
                completion,
            } => {
                self.request(&id).done = Some((prompt, completion));
            }
            Fact::Failed { id } => self.request(&id).failed = true,
        }
    }
}

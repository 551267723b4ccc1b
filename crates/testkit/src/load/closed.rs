//! A closed loop: each client sends one request after the other, and after a refusal retries when the server says.

use std::cell::{Cell, RefCell};

use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Target;
use super::figures::Times;
use super::target::{Answer, Refusal, Reply};
use super::words::words;
use crate::torture::Random;

#[derive(Debug, Clone)]
pub struct Closed {
    pub prompts: Prompts,
    pub output_tokens: u32,
    pub clients: usize,
    /// The number of answers to wait for.
    pub requests: u64,
    pub ending: Ending,
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prompts {
    Distinct {
        words: usize,
    },
    /// All prompts begin with the same `prefix` words.
    Shared {
        prefix: usize,
        tail: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The clients send exactly that many requests, and the load ends with the last answer.
    Answered,
    /// All clients send requests until that many are answered; then the rest is cancelled. So no client is idle at the end while
    /// another one waits for its retry.
    HungUp,
}

/// The results of all clients, which run on one thread.
#[derive(Debug, Default)]
struct Seen {
    asked: Cell<u64>,
    answered: Cell<u64>,
    /// Text chunks received of answers that aren't complete yet.
    open_pieces: Cell<u64>,
    enough: Notify,
    sums: RefCell<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    ttft: Times,
    gaps: Times,
    refusals: Times,
    retry_after_ms: Vec<u128>,
    /// Retries after a refusal, and how many of them were accepted.
    retries: u64,
    retries_taken: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
}

impl Prompts {
    fn make(self, seed: u64, number: u64) -> String {
        let mut shared = Random::new(seed);
        // Numbers begin with 0, and no prompt may have the seed of the shared prefix: hence + 1.
        let mut own = Random::new(seed ^ (number + 1).wrapping_mul(0xd134_2543_de82_ef95));
        match self {
            Prompts::Distinct { words: count } => words(&mut own, count),
            Prompts::Shared { prefix, tail } => {
                format!("{} {}", words(&mut shared, prefix), words(&mut own, tail))
            }
        }
    }
}

impl Closed {
    pub async fn run(&self, target: &Target) -> anyhow::Result<Value> {
        let seen = Seen::default();
        let started = Instant::now();
        let clients = try_join_all((0..self.clients).map(|_| self.client(target, &seen)));
        tokio::select! {
            // If both are ready, an error wins.
            biased;
            done = clients => drop(done?),
            () = seen.enough.notified() => {}
        }
        let seconds = started.elapsed().as_secs_f64();
        let open_pieces = seen.open_pieces.get();
        let answered = seen.answered.get();
        let sums = seen.sums.into_inner();
        let delivered = sums.output_tokens + open_pieces;
        Ok(json!({
            "clients": self.clients,
            "requests": answered,
            "seconds": seconds,
            "prompt_tokens": sums.prompt_tokens,
            "cached_tokens": sums.cached_tokens,
            "output_tokens": delivered,
            "tokens_per_second": f64::from(u32::try_from(delivered)?) / seconds,
            "ttft_ms": sums.ttft.figures(),
            "gap_ms": sums.gaps.figures(),
            "refusal_ms": sums.refusals.figures(),
            "retry_after_ms": {
                "min": sums.retry_after_ms.iter().min(),
                "max": sums.retry_after_ms.iter().max(),
            },
            "retries": sums.retries,
            "retries_taken": sums.retries_taken,
        }))
    }

    async fn client(&self, target: &Target, seen: &Seen) -> anyhow::Result<()> {
        while self.ending == Ending::HungUp || seen.asked.get() < self.requests {
            let number = seen.asked.replace(seen.asked.get() + 1);
            let prompt = self.prompts.make(self.seed, number);
            let answer = self.answered(target, seen, &prompt).await?;
            let pieces = u64::try_from(answer.pieces.len())?;
            seen.open_pieces.set(seen.open_pieces.get() - pieces);
            seen.answered.set(seen.answered.get() + 1);
            seen.sums.borrow_mut().add(&answer);
            if self.ending == Ending::HungUp && seen.answered.get() >= self.requests {
                seen.enough.notify_one();
            }
        }
        Ok(())
    }

    /// Sends the prompt until it is answered.
    async fn answered(&self, target: &Target, seen: &Seen, prompt: &str) -> anyhow::Result<Answer> {
        let mut again = false;
        loop {
            let piece = |_| seen.open_pieces.set(seen.open_pieces.get() + 1);
            let reply = target.ask(prompt, self.output_tokens, piece).await?;
            if again {
                let mut sums = seen.sums.borrow_mut();
                sums.retries += 1;
                sums.retries_taken += u64::from(matches!(reply, Reply::Answer(_)));
            }
            match reply {
                Reply::Answer(answer) => return Ok(answer),
                Reply::Refused(refusal) => {
                    seen.sums.borrow_mut().refused(&refusal);
                    sleep(refusal.retry_after).await;
                    again = true;
                }
            }
        }
    }
}

impl Sums {
    fn refused(&mut self, refusal: &Refusal) {
        self.refusals.add(refusal.took);
        self.retry_after_ms.push(refusal.retry_after.as_millis());
    }

    fn add(&mut self, answer: &Answer) {
        self.ttft.extend(answer.ttft());
        self.gaps.extend(answer.gaps());
        self.prompt_tokens += answer.prompt_tokens;
        self.cached_tokens += answer.cached_tokens;
        self.output_tokens += answer.output_tokens;
    }
}

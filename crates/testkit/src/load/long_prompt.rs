//! Measures how long decoding streams are silent while a long prompt is computed beside them.

use std::cell::{Cell, RefCell};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Target;
use super::figures::Times;
use super::target::{Answer, Reply};
use super::words::words;
use crate::torture::Random;

/// The chunks that each stream has received before the long prompt is sent: it is decoding by then.
const PIECES_BEFORE: usize = 16;

#[derive(Debug, Clone)]
pub struct LongPrompt {
    pub streams: usize,
    pub stream_words: usize,
    /// The length of each stream: more tokens than it generates until the long prompt is answered.
    pub stream_tokens: u32,
    pub long_words: usize,
    pub long_tokens: u32,
    pub seed: u64,
}

/// The text that a stream has received so far, as the times of its chunks.
#[derive(Debug, Default)]
struct Stream {
    pieces: RefCell<Vec<Instant>>,
    ended: Cell<bool>,
}

impl LongPrompt {
    pub async fn run(&self, target: &Target) -> anyhow::Result<Value> {
        let mut random = Random::new(self.seed);
        let prompts: Vec<String> = (0..self.streams)
            .map(|_| words(&mut random, self.stream_words))
            .collect();
        let long = words(&mut random, self.long_words);
        let streams: Vec<Stream> = prompts.iter().map(|_| Stream::default()).collect();
        let said = Notify::new();
        let running = prompts.iter().zip(&streams).map(async |(prompt, stream)| {
            let piece = |now| {
                stream.pieces.borrow_mut().push(now);
                said.notify_one();
            };
            let reply = target.ask(prompt, self.stream_tokens, piece).await?;
            ensure!(matches!(reply, Reply::Answer(_)), "a stream was refused");
            stream.ended.set(true);
            Ok(())
        });
        let arriving = async {
            while streams
                .iter()
                .any(|stream| stream.pieces.borrow().len() < PIECES_BEFORE)
            {
                said.notified().await;
            }
            target.ask(&long, self.long_tokens, |_| {}).await
        };
        let reply = tokio::select! {
            // When the long prompt is answered, the streams are cancelled.
            reply = arriving => reply?,
            Err(error) = try_join_all(running) => return Err(error),
        };
        match reply {
            Reply::Answer(answer) => self.figures(&streams, &answer),
            Reply::Refused(_) => bail!("the long prompt was refused"),
        }
    }

    fn figures(&self, streams: &[Stream], long: &Answer) -> anyhow::Result<Value> {
        let first = *long
            .pieces
            .first()
            .context("the long prompt has no answer")?;
        let (mut before, mut meanwhile) = (Times::default(), Times::default());
        for stream in streams {
            ensure!(
                !stream.ended.get(),
                "a stream ended before the long prompt was answered"
            );
            let pieces = stream.pieces.borrow();
            for pair in pieces.windows(2) {
                let gap = pair[1] - pair[0];
                match pair[1] < long.sent {
                    true => before.add(gap),
                    // Includes the gap in which the long prompt was sent, and the one in which its answer began.
                    false if pair[0] < first => meanwhile.add(gap),
                    false => {}
                }
            }
            // A stream that hasn't received anything since counts with its silence so far.
            let last = pieces.last().context("a stream said nothing")?;
            if *last < first {
                meanwhile.add(first - *last);
            }
        }
        Ok(json!({
            "streams": self.streams,
            "prompt_tokens": long.prompt_tokens,
            "cached_tokens": long.cached_tokens,
            "long_ttft_ms": (first - long.sent).as_secs_f64() * 1e3,
            "gap_before_ms": before.figures(),
            "gap_ms": meanwhile.figures(),
        }))
    }
}

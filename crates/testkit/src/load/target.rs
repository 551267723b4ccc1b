//! Sends a request to a server, and records when the parts of its answer arrive.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::{Response, StatusCode, header};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

/// The longest accepted line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server with an unbounded queue may send nothing for long.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

/// A server, with the parameters of all requests to it.
#[derive(Debug)]
pub struct Target {
    http: reqwest::Client,
    url: String,
    key: String,
    model: String,
    /// Masks the tokens that end an answer, so that every answer has the requested length.
    bias: Value,
}

/// The result of a request.
#[derive(Debug)]
pub(super) enum Reply {
    Answer(Answer),
    Refused(Refusal),
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sent: Instant,
    /// The times at which the chunks of text arrived.
    pub(super) pieces: Vec<Instant>,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
}

#[derive(Debug)]
pub(super) struct Refusal {
    /// The time until the whole refusal was received.
    pub(super) took: Duration,
    pub(super) retry_after: Duration,
}

impl Answer {
    pub(super) fn ttft(&self) -> Option<Duration> {
        self.pieces.first().map(|first| *first - self.sent)
    }

    pub(super) fn gaps(&self) -> impl Iterator<Item = Duration> {
        self.pieces.windows(2).map(|pair| pair[1] - pair[0])
    }
}

impl Target {
    /// `base` is the address without `/v1`; `ends` are the tokens that end an answer.
    pub fn new(base: &str, key: &str, model: &str, ends: &[u32]) -> anyhow::Result<Self> {
        let bias: Map<String, Value> = ends
            .iter()
            .map(|token| (token.to_string(), json!(-100)))
            .collect();
        Ok(Target {
            http: reqwest::Client::builder()
                // Connections aren't reused: llama-server closes them after a stream without announcing it.
                .pool_max_idle_per_host(0)
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(READ_TIMEOUT)
                .build()?,
            url: format!("{base}/v1/completions"),
            key: key.to_owned(),
            model: model.to_owned(),
            bias: Value::Object(bias),
        })
    }

    /// Requests a greedy stream of exactly this many tokens, and calls `piece` when a chunk of text arrives. Anything but such a
    /// stream, or a refusal with `Retry-After`, is an error.
    pub(super) async fn ask(
        &self,
        prompt: &str,
        tokens: u32,
        mut piece: impl FnMut(Instant),
    ) -> anyhow::Result<Reply> {
        let body = json!({
            "model": self.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
            "logit_bias": self.bias,
        });
        let sent = Instant::now();
        let request = self.http.post(&self.url).bearer_auth(&self.key).json(&body);
        let mut response = request.send().await?;
        let retry_after = retry_after(&response);
        if let (false, Some(retry_after)) = (response.status().is_success(), retry_after) {
            response.bytes().await?;
            let took = sent.elapsed();
            return Ok(Reply::Refused(Refusal { took, retry_after }));
        }
        if response.status() != StatusCode::OK {
            bail!("{}: {}", response.status(), response.text().await?);
        }
        let mut pieces = Vec::new();
        let usage = read(&mut response, |now| {
            pieces.push(now);
            piece(now);
        })
        .await?;
        let answer = Answer {
            sent,
            pieces,
            prompt_tokens: count(&usage, "/prompt_tokens")?,
            cached_tokens: count(&usage, "/prompt_tokens_details/cached_tokens").unwrap_or(0),
            output_tokens: count(&usage, "/completion_tokens")?,
        };
        ensure!(
            answer.output_tokens == u64::from(tokens),
            "{} tokens came, {tokens} were asked for: is a token that ends answers missing in `ends`?",
            answer.output_tokens
        );
        Ok(Reply::Answer(answer))
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?;
    Some(Duration::from_secs(value.to_str().ok()?.parse().ok()?))
}

fn count(usage: &Value, pointer: &str) -> anyhow::Result<u64> {
    let value = usage.pointer(pointer).and_then(Value::as_u64);
    value.with_context(|| format!("no {pointer} in the usage: {usage}"))
}

/// Reads a stream to its end, and returns its usage.
async fn read(response: &mut Response, mut piece: impl FnMut(Instant)) -> anyhow::Result<Value> {
    let mut buffer = Vec::new();
    let mut usage = None;
    while let Some(bytes) = response.chunk().await? {
        let now = Instant::now();
        buffer.extend_from_slice(&bytes);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let Some(data) = line.strip_prefix(b"data: ") else {
                continue;
            };
            if data.trim_ascii() == b"[DONE]" {
                return usage.context("the stream has no usage");
            }
            let chunk: Value = serde_json::from_slice(data).context("a chunk")?;
            ensure!(
                chunk.get("error").is_none(),
                "an error in the stream: {chunk}"
            );
            let text = chunk.pointer("/choices/0/text").and_then(Value::as_str);
            if text.is_some_and(|text| !text.is_empty()) {
                piece(now);
            }
            usage = chunk
                .get("usage")
                .filter(|usage| usage.is_object())
                .cloned()
                .or(usage);
        }
        ensure!(buffer.len() <= LINE_BYTES_MAX, "a line without an end");
    }
    bail!("the stream was cut off")
}

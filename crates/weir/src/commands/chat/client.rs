//! A client for the few API calls that `weir chat` needs.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};

/// The longest accepted frame of a stream, in bytes.
const FRAME_BYTES_MAX: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that sends nothing for this long is gone. Requests in a queue may wait for a while.
const READ_TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    key: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Message {
    role: &'static str,
    content: String,
}

/// The parameters of every request of a conversation.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<u32>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    asked: &'a Asked,
    messages: &'a [Message],
    stream: bool,
}

impl Message {
    pub(crate) fn new(role: &'static str, content: String) -> Self {
        Message { role, content }
    }
}

impl Client {
    /// `base` may end with `/v1`, as other tools expect it.
    pub(crate) fn new(base: &str, key: String) -> anyhow::Result<Self> {
        let base = base
            .trim_end_matches('/')
            .trim_end_matches("/v1")
            .to_owned();
        if !base.starts_with("http://") {
            bail!("the server's address must begin with http://, not {base:?}");
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()?;
        Ok(Client { http, base, key })
    }

    pub(crate) async fn first_chat_model(&self) -> anyhow::Result<String> {
        let sent = self
            .http
            .get(format!("{}/v1/models", self.base))
            .send()
            .await;
        let models: Models = answered(sent, &self.base)
            .await?
            .json()
            .await
            .context("the list of models")?;
        let can_chat = |model: &Model| {
            model.status == 1 && model.endpoints.iter().any(|name| name.contains("chat"))
        };
        let found = models.data.into_iter().find(can_chat);
        Ok(found
            .context("the server has no model that can chat; name one with --model")?
            .id)
    }

    pub(crate) async fn stream(
        &self,
        asked: &Asked,
        messages: &[Message],
    ) -> anyhow::Result<Stream> {
        let body = Body {
            asked,
            messages,
            stream: true,
        };
        let url = format!("{}/v1/chat/completions", self.base);
        let sent = self
            .http
            .post(url)
            .bearer_auth(&self.key)
            .json(&body)
            .send()
            .await;
        Ok(Stream {
            response: answered(sent, &self.base).await?,
            buffer: Vec::new(),
        })
    }
}

async fn answered(sent: reqwest::Result<Response>, base: &str) -> anyhow::Result<Response> {
    let response = sent.map_err(|error| match error.is_connect() {
        true => anyhow!("no server answers at {base}; is `weir serve` running?"),
        false => anyhow!(error.without_url()),
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let text = response.text().await.unwrap_or_default();
    let message = serde_json::from_str(&text).map_or(text, |refused: Refused| refused.message);
    Err(explained(status, &message))
}

/// The server's message, with a hint if there is something that the user can do.
fn explained(status: StatusCode, message: &str) -> anyhow::Error {
    let hint = match status {
        StatusCode::UNAUTHORIZED => "; is WEIR_API_KEY right?",
        StatusCode::FORBIDDEN => "; `weir credit ACCOUNT USD` pays in",
        StatusCode::NOT_FOUND => "; `weir model list` shows the models",
        _ => "",
    };
    anyhow!("{} {message}{hint}", status.as_u16())
}

/// The text of an answer, as it arrives.
pub(crate) struct Stream {
    response: Response,
    buffer: Vec<u8>,
}

impl Stream {
    /// The next part of the text, or `None` at the end.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
                match read_frame(&frame)? {
                    Frame::Text(text) if text.is_empty() => {}
                    Frame::Text(text) => return Ok(Some(text)),
                    Frame::Done => return Ok(None),
                }
            }
            if self.buffer.len() > FRAME_BYTES_MAX {
                bail!("the server's answer makes no sense");
            }
            match self
                .response
                .chunk()
                .await
                .map_err(reqwest::Error::without_url)?
            {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => bail!("the server went away before the answer was complete"),
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Frame {
    Text(String),
    Done,
}

fn read_frame(frame: &[u8]) -> anyhow::Result<Frame> {
    let text = std::str::from_utf8(frame)
        .context("the server's answer is not UTF-8")?
        .trim_end();
    let data = text
        .strip_prefix("data:")
        .context("the server's answer is not a stream of events")?
        .trim_start();
    if data == "[DONE]" {
        return Ok(Frame::Done);
    }
    if let Ok(Refused { code, message }) = serde_json::from_str(data) {
        bail!("{code} {message}");
    }
    let chunk: Chunk = serde_json::from_str(data).context("the server's answer")?;
    let content = chunk
        .choices
        .into_iter()
        .next()
        .and_then(|choice| choice.delta.content);
    Ok(Frame::Text(content.unwrap_or_default()))
}

#[derive(Deserialize)]
struct Refused {
    code: u16,
    message: String,
}

#[derive(Deserialize)]
struct Models {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    #[serde(default)]
    endpoints: Vec<String>,
    status: u8,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Delta,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let read = |frame: &str| read_frame(frame.as_bytes()).map_err(|error| error.to_string());
        let text = |text: &str| Ok(Frame::Text(text.to_owned()));
        let chunk =
            |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
        assert_eq!(
            read(&chunk("{\"role\":\"assistant\",\"content\":\"\"}")),
            text("")
        );
        assert_eq!(read(&chunk("{\"content\":\"né\"}")), text("né"));
        assert_eq!(read(&chunk("{}")), text(""));
        assert_eq!(read("data: {\"choices\":[]}\n\n"), text(""));
        assert_eq!(read("data: [DONE]\n\n"), Ok(Frame::Done));
        let refused = "data: {\"code\":500,\"reason\":\"X\",\"message\":\"down\",\"error\":{}}\n\n";
        assert_eq!(read(refused), Err("500 down".to_owned()));
        assert!(read("event: x\n\n").is_err());
    }
}

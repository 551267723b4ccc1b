//! `weir chat`: a conversation with a model of the running server, in the terminal.

mod client;

use std::io::{self, BufRead, IsTerminal};

use anyhow::{Context, bail};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use self::client::{Asked, Client, Message};
use crate::cli;
use crate::output::{self, StdoutError};

/// The server's address, and the API key.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) base_url: String,
    pub(crate) key: Option<String>,
}

pub(crate) async fn chat(server: Server, command: cli::Chat) -> anyhow::Result<()> {
    let Some(key) = server.key else {
        bail!("set WEIR_API_KEY to a key (`weir key add ACCOUNT` makes one)")
    };
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("WEIR_API_KEY is no API key: it has characters that no key has")
    }
    let client = Client::new(&server.base_url, key)?;
    let model = match command.model {
        Some(model) => model,
        None => client.first_chat_model().await?,
    };
    let asked = Asked {
        model,
        max_tokens: command.max_tokens,
    };
    let mut input = Input::open()?;
    if input.is_terminal() {
        output::note(&format!(
            "talking to {}; Ctrl-C stops an answer, Ctrl-D ends",
            asked.model
        ));
    }
    let mut messages: Vec<_> = command
        .system
        .into_iter()
        .map(|text| Message::new("system", text))
        .collect();
    let mut failed = None;
    while let Some(line) = input.read().await? {
        if line.trim().is_empty() {
            continue;
        }
        messages.push(Message::new("user", line));
        match answer(&client, &asked, &messages).await {
            Ok(text) => {
                failed = None;
                messages.push(Message::new("assistant", text));
            }
            // Stdout is closed.
            Err(error) if error.is::<StdoutError>() => return Err(error),
            Err(error) => {
                // A message without an answer isn't part of the conversation.
                messages.pop();
                output::note(&format!("{error:#}"));
                failed = Some(error);
            }
        }
    }
    match failed {
        Some(_) if !input.is_terminal() => bail!("the last message was not answered"),
        _ => Ok(()),
    }
}

/// Prints the answer as it arrives. Ctrl-C cuts the answer, and the part so far stays in the conversation.
async fn answer(client: &Client, asked: &Asked, messages: &[Message]) -> anyhow::Result<String> {
    let mut text = String::new();
    let streamed = async {
        let mut stream = client.stream(asked, messages).await?;
        while let Some(piece) = stream.next().await? {
            output::piece(&output::printable(&piece))?;
            text.push_str(&piece);
        }
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        ended = streamed => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if !text.is_empty() || ended.is_ok() {
        output::line("")?;
    }
    ended.map(|()| text)
}

/// Lines from a person, with editing and history, or from a pipe.
enum Input {
    Terminal(Option<Box<DefaultEditor>>),
    Pipe,
}

impl Input {
    fn open() -> anyhow::Result<Self> {
        if io::stdin().is_terminal() {
            Ok(Input::Terminal(Some(Box::new(
                DefaultEditor::new().context("the terminal")?,
            ))))
        } else {
            Ok(Input::Pipe)
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal(_))
    }

    /// The next line, or `None` at the end of input.
    async fn read(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Input::Terminal(editor) => {
                let mut taken = editor.take().expect("it is put back after each line");
                let read = move || {
                    let line = edit_line(&mut taken);
                    (taken, line)
                };
                let (taken, line) = tokio::task::spawn_blocking(read).await?;
                *editor = Some(taken);
                line
            }
            Input::Pipe => {
                let read = tokio::task::spawn_blocking(pipe_line);
                tokio::select! {
                    line = read => Ok(line??),
                    _ = tokio::signal::ctrl_c() => Ok(None),
                }
            }
        }
    }
}

fn edit_line(editor: &mut DefaultEditor) -> anyhow::Result<Option<String>> {
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                editor.add_history_entry(&line)?;
                return Ok(Some(line));
            }
            // Ctrl-C discards the line, as in a shell.
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn pipe_line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
}

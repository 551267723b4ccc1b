//! Events on stdout, for the program or the person that started the server. The server runs on if they aren't read.

use std::io;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::cli::Json;
use crate::output::line_queue::LineQueue;

/// The longest that the end of the process waits for the last event to be written.
const LAST_EVENT_WAIT: Duration = Duration::from_secs(1);

/// The stream of events. The last ones are written when it is dropped.
#[derive(Debug)]
pub(crate) struct Events {
    output: Json,
    queue: LineQueue,
}

impl Events {
    pub(crate) fn start(output: Json) -> anyhow::Result<Self> {
        let queue = LineQueue::start("weir-events", io::stdout(), tell_loss);
        Ok(Events {
            output,
            queue: queue.context("the thread of events")?,
        })
    }

    pub(crate) fn output(&self) -> Json {
        self.output
    }

    /// Not shown as text: people find it in the log.
    pub(crate) fn key_in_file(&self, account: &str, id: &str, file: &str) {
        self.tell(
            &json!({"event": "first_start", "account": account, "id": id, "key_file": file}),
            "",
        );
    }

    pub(crate) fn ready(&self, url: &str) {
        self.tell(
            &json!({"event": "ready", "url": url}),
            &format!("listening on {url}; Ctrl-C stops"),
        );
    }

    /// Not shown as text: people find it in the log.
    pub(crate) fn draining(&self) {
        self.tell(&json!({"event": "draining"}), "");
    }

    fn tell(&self, data: &Value, text: &str) {
        let mut line = match self.output.json {
            true => data.to_string(),
            false => text.to_owned(),
        };
        if !line.is_empty() {
            line.push('\n');
            self.queue.push(line.as_bytes());
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.queue.flush(LAST_EVENT_WAIT);
    }
}

fn tell_loss(lines: u64, _works: bool) -> bool {
    tracing::warn!(lines, "stdout can't be written: events were lost");
    true
}

//! The account of the first start, if one is wanted, with its key and calls to try.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;
use weir_accounts::{Accounts, NewKey};
use weir_gateway::{Catalog, Offer};

use crate::cli::Json;
use crate::commands::accounts::{DEMO, demo};
use crate::config::Config;
use crate::lifecycle::events::Events;
use crate::output::secret::{self, Stdout};

/// The file in the data directory for a key that can't be shown on stdout.
const KEY_FILE: &str = "demo-key";

/// Makes an account with credit if there is no account yet, and shows its key this once, with calls ready to paste. The key
/// is worth money, so this is done only if the config says so, or if stdout is a terminal.
pub(crate) async fn first_start(
    config: &Config,
    catalog: &Catalog,
    accounts: &Accounts,
    address: SocketAddr,
    events: &Events,
    now: Timestamp,
) -> anyhow::Result<()> {
    if !config.demo.unwrap_or_else(|| io::stdout().is_terminal()) {
        if accounts.accounts_after("", 1).await?.is_empty() {
            tracing::info!(
                "there is no account yet: `weir account add NAME --credit USD` and `weir key add NAME` make one"
            );
        }
        return Ok(());
    }
    let Some(draft) = demo(accounts, now).await? else {
        return Ok(());
    };
    let key = draft.key();
    let text = shown(&key, catalog, address, events.output());
    let journal = std::env::var("JOURNAL_STREAM").ok();
    let file = config.data.join(KEY_FILE);
    let secret = key.secret.expose().to_owned();
    // Blocks for as long as the reader of stdout is slow.
    let told = tokio::task::spawn_blocking(move || tell(&text, &secret, journal, file));
    match told.await.context("showing the key")? {
        Ok(Told::OnStdout) => {}
        Ok(Told::InFile(path)) => {
            let path = path.display().to_string();
            tracing::info!(
                file = path,
                "first start: made the account `demo`; its key is in a file"
            );
            events.key_in_file(DEMO, key.id.as_str(), &path);
        }
        Err(error) => {
            // The account can be made by the next start; a server that only lacks a demo account serves.
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "the key of the account `demo` can't be shown, and was not made"
            );
            return Ok(());
        }
    }
    let made = accounts.make_key(draft).await;
    made.context("the key that was shown is not valid")?;
    Ok(())
}

/// The place where the key was put.
enum Told {
    OnStdout,
    InFile(PathBuf),
}

/// Shows the text on stdout, or writes the secret to a file if stdout isn't read by anyone or is the journal.
fn tell(text: &str, secret: &str, journal: Option<String>, file: PathBuf) -> anyhow::Result<Told> {
    let place = Stdout::now(journal.as_deref());
    if matches!(place, Ok(Stdout::Pipe | Stdout::Other)) {
        match secret::show(text) {
            Ok(()) => return Ok(Told::OnStdout),
            Err(error) => tracing::warn!(%error, "the key of the first start can't be shown"),
        }
    }
    keep(secret, &file)?;
    Ok(Told::InFile(file))
}

/// Writes the secret to a file that only this user can read, in place of an older file.
fn keep(secret: &str, path: &Path) -> anyhow::Result<()> {
    use std::io::Write;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    writeln!(file, "{secret}")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// The text on stdout: JSON for programs, or instructions for people.
fn shown(key: &NewKey, catalog: &Catalog, address: SocketAddr, output: Json) -> String {
    let secret = key.secret.expose();
    if output.json {
        return json!({"event": "first_start", "account": DEMO, "id": key.id.as_str(), "key": secret})
            .to_string();
    }
    let can_chat = |offer: &&Arc<Offer>| offer.facts().is_some_and(|facts| facts.chat);
    let offers = catalog.offers();
    let shown = offers.iter().find(can_chat).or(offers.first());
    let model = shown.map_or("", |offer| &offer.id);
    welcome(secret, &super::url(address), model)
}

fn welcome(key: &str, url: &str, model: &str) -> String {
    format!(
        r#"
First start: made the account `demo` with 5 USD. Its key is shown only now:

    {key}

Try it with curl:

export WEIR_API_KEY={key}
curl -sS -N {url}/v1/chat/completions \
  -H "Authorization: Bearer $WEIR_API_KEY" -H "Content-Type: application/json" \
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "What is a weir?"}}]}}'

or in Python (pip install openai):

from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key="{key}")
answer = client.chat.completions.create(
    model="{model}",
    messages=[{{"role": "user", "content": "What is a weir?"}}],
)
print(answer.choices[0].message.content)

or in the terminal: weir chat
"#
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_in_a_file_is_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/demo-key");
        for secret in ["sk_a_b", "sk_c_d"] {
            keep(secret, &path).unwrap();
            let mode = path.metadata().unwrap().permissions().mode();
            let kept = std::fs::read_to_string(&path).unwrap();
            assert_eq!((kept, mode & 0o777), (format!("{secret}\n"), 0o600));
        }
    }
}

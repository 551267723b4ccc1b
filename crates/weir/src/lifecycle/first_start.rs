//! The first start makes an account to try things with, and shows how.

use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use weir_accounts::Accounts;
use weir_gateway::{Catalog, Offer};

use crate::cli::Json;
use crate::commands::accounts::demo;
use crate::output;

/// If there is no account yet: one with credit, its key (shown this once), and calls ready to paste.
pub(crate) async fn first_start(
    catalog: &Catalog,
    accounts: &Accounts,
    address: SocketAddr,
    output: Json,
    now: Timestamp,
) -> anyhow::Result<()> {
    let Some(key) = demo(accounts, now).await? else {
        return Ok(());
    };
    let secret = key.secret.expose();
    let data =
        json!({"event": "first_start", "account": "demo", "id": key.id.as_str(), "key": secret});
    let can_chat = |offer: &&Arc<Offer>| offer.facts().is_some_and(|facts| facts.chat);
    let offers = catalog.offers();
    let shown = offers.iter().find(can_chat).or(offers.first());
    let model = shown.map_or("", |offer| &offer.id);
    output::one(output, &data, &welcome(secret, &super::url(address), model))?;
    Ok(())
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

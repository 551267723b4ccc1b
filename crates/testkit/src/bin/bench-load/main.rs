//! Puts a load on a server, and prints its figures as a line of JSON:
//!
//! ```text
//! bench-load load=distinct url=http://127.0.0.1:8080 key=sk_… model=M clients=8 requests=32 seed=1 ends=0,2
//! ```
//!
//! `load` is `distinct`, `shared`, `overload` or `long-prompt`.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde_json::Value;
use weir_testkit::load::{Closed, Ending, LongPrompt, Prompts, Target};

struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn text(&self, name: &str) -> anyhow::Result<&str> {
        let value = self.0.get(name);
        Ok(value.with_context(|| format!("{name}=… is missing"))?)
    }

    fn number(&self, name: &str) -> anyhow::Result<u64> {
        let text = self.text(name)?;
        text.parse()
            .with_context(|| format!("{name}={text} is no number"))
    }
}

// One thread, so that the load takes as little of the machine as possible.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let pairs = std::env::args().skip(1).map(|argument| {
        let pair = argument
            .split_once('=')
            .map(|(a, b)| (a.to_owned(), b.to_owned()));
        pair.with_context(|| format!("{argument} is not NAME=VALUE"))
    });
    let arguments = Arguments(pairs.collect::<anyhow::Result<_>>()?);
    let ends: Result<Vec<u32>, _> = arguments.text("ends")?.split(',').map(str::parse).collect();
    let target = Target::new(
        arguments.text("url")?,
        arguments.text("key")?,
        arguments.text("model")?,
        &ends.context("ends=… are tokens with commas between")?,
    )?;
    println!("{}", run(&arguments, &target).await?);
    Ok(())
}

async fn run(arguments: &Arguments, target: &Target) -> anyhow::Result<Value> {
    let seed = arguments.number("seed")?;
    let closed = |prompts, output_tokens, ending| {
        anyhow::Ok(Closed {
            prompts,
            output_tokens,
            clients: usize::try_from(arguments.number("clients")?)?,
            requests: arguments.number("requests")?,
            ending,
            seed,
        })
    };
    let short = Prompts::Distinct { words: 110 };
    match arguments.text("load")? {
        "distinct" => closed(short, 64, Ending::Answered)?.run(target).await,
        "shared" => {
            let prompts = Prompts::Shared {
                prefix: 400,
                tail: 20,
            };
            closed(prompts, 32, Ending::Answered)?.run(target).await
        }
        "overload" => closed(short, 64, Ending::HungUp)?.run(target).await,
        "long-prompt" => {
            let load = LongPrompt {
                streams: 4,
                stream_words: 110,
                stream_tokens: 1000,
                long_words: 3000,
                long_tokens: 16,
                seed,
            };
            load.run(target).await
        }
        other => bail!("load={other}: not distinct, shared, overload or long-prompt"),
    }
}

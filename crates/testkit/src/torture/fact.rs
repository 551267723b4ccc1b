//! The reports of a node: a line for each fact. A delivery is reported after it was made.

use std::fmt;
use std::str::FromStr;

use super::payment::Payment;

/// Prices in 0.0001 USD per million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    pub input: i64,
    pub output: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The database is open. Open holds of dead nodes are about to be ended.
    Opened,
    Recovered,
    /// A payment is about to be made.
    Paying(Payment),
    Paid {
        key: String,
    },
    /// A request is about to be sent.
    Asked {
        id: String,
        account: String,
        /// Whether the caller gets the text only when it is complete.
        whole: bool,
        choices: u64,
        prompt: u64,
        prices: Prices,
    },
    /// The request's hold is durable.
    Started {
        id: String,
    },
    Refused {
        id: String,
        why: String,
    },
    /// The caller has the text of these tokens. `at_us` is the time in microseconds since the process began.
    Delivered {
        id: String,
        tokens: u64,
        at_us: u64,
    },
    /// The caller is about to hang up.
    HangsUp {
        id: String,
    },
    /// The request was settled with this usage.
    Done {
        id: String,
        prompt: u64,
        completion: u64,
    },
    /// The engine failed, and the request was settled.
    Failed {
        id: String,
    },
    /// The node took no new requests, and finished the running ones.
    Drained,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Opened => f.write_str("opened"),
            Fact::Recovered => f.write_str("recovered"),
            Fact::Paying(Payment {
                key,
                account,
                nanos,
                promotional,
            }) => write!(f, "paying {key} {account} {nanos} {promotional}"),
            Fact::Paid { key } => write!(f, "paid {key}"),
            Fact::Asked {
                id,
                account,
                whole,
                choices,
                prompt,
                prices,
            } => {
                let Prices { input, output } = prices;
                write!(
                    f,
                    "asked {id} {account} {whole} {choices} {prompt} {input} {output}"
                )
            }
            Fact::Started { id } => write!(f, "started {id}"),
            Fact::Refused { id, why } => write!(f, "refused {id} {}", why.replace(' ', "_")),
            Fact::Delivered { id, tokens, at_us } => write!(f, "delivered {id} {tokens} {at_us}"),
            Fact::HangsUp { id } => write!(f, "hangs-up {id}"),
            Fact::Done {
                id,
                prompt,
                completion,
            } => write!(f, "done {id} {prompt} {completion}"),
            Fact::Failed { id } => write!(f, "failed {id}"),
            Fact::Drained => f.write_str("drained"),
        }
    }
}

impl FromStr for Fact {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or("").to_owned();
        let number = |word: String| {
            word.parse::<u64>()
                .map_err(|error| format!("{line}: {error}"))
        };
        let money = |word: String| {
            word.parse::<i64>()
                .map_err(|error| format!("{line}: {error}"))
        };
        Ok(match word().as_str() {
            "opened" => Fact::Opened,
            "recovered" => Fact::Recovered,
            "paying" => Fact::Paying(Payment {
                key: word(),
                account: word(),
                nanos: money(word())?,
                promotional: word() == "true",
            }),
            "paid" => Fact::Paid { key: word() },
            "asked" => Fact::Asked {
                id: word(),
                account: word(),
                whole: word() == "true",
                choices: number(word())?,
                prompt: number(word())?,
                prices: Prices {
                    input: money(word())?,
                    output: money(word())?,
                },
            },
            "started" => Fact::Started { id: word() },
            "refused" => Fact::Refused {
                id: word(),
                why: word(),
            },
            "delivered" => Fact::Delivered {
                id: word(),
                tokens: number(word())?,
                at_us: number(word())?,
            },
            "hangs-up" => Fact::HangsUp { id: word() },
            "done" => Fact::Done {
                id: word(),
                prompt: number(word())?,
                completion: number(word())?,
            },
            "failed" => Fact::Failed { id: word() },
            "drained" => Fact::Drained,
            _ => return Err(format!("no fact: {line}")),
        })
    }
}

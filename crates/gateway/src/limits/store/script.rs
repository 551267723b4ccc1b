//! The calls of the store's script and the parsing of its replies. See `limits.lua`.

use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;
use tokio::time::Instant;

use crate::limits::level::{Level, cost_ns, wait};
use crate::limits::memory::{Correction, Levels};
use crate::limits::quota::{Denied, Subject, Which};

pub(super) const SCRIPT: &str = include_str!("limits.lua");
/// Version of the stored data's layout. A new layout gets a new version, and with it other keys.
const VERSION: &str = "weir:1";

/// The clock by which the script counts.
#[derive(Debug, Clone, Copy)]
pub(in crate::limits) enum Time {
    OfTheStore,
    /// The caller's clock, in microseconds since this moment.
    #[cfg(test)]
    Given(Instant),
}

impl Time {
    pub(super) fn argument(self, now: Instant) -> String {
        match self {
            Time::OfTheStore => {
                let _ = now;
                String::new()
            }
            #[cfg(test)]
            Time::Given(origin) => now.duration_since(origin).as_micros().to_string(),
        }
    }
}

/// The keys and arguments of one run of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    keys: Vec<String>,
    arguments: Vec<String>,
}

/// The script's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::limits) struct Verdict {
    pub(in crate::limits) denied: Option<Denied>,
    /// The time of the decision by the store's clock, in microseconds.
    pub(in crate::limits) at: u64,
    /// The used quota of each subject, in the order of the call.
    pub(in crate::limits) levels: Vec<Levels>,
}

impl Call {
    pub(super) fn request(
        subjects: &[Subject],
        lease_id: &str,
        lease_time: Duration,
        time: String,
    ) -> Self {
        let mut arguments = vec![
            "request".to_owned(),
            time,
            lease_id.to_owned(),
            lease_time.as_micros().to_string(),
        ];
        for subject in subjects {
            arguments.push(request_cost(subject));
            arguments.push(or_empty(subject.quotas.concurrent_requests.map(u64::from)));
        }
        Call::of(subjects, arguments)
    }

    pub(super) fn tokens(subjects: &[Subject], tokens: u64, time: String) -> Self {
        let mut arguments = vec!["tokens".to_owned(), time, String::new(), String::new()];
        for subject in subjects {
            let limit = subject.quotas.tokens_per_minute;
            arguments.push(request_cost(subject));
            arguments.push(or_empty(limit.map(|limit| cost_ns(tokens, limit))));
        }
        Call::of(subjects, arguments)
    }

    pub(super) fn end(
        subjects: &[Subject],
        lease_id: &str,
        correction: Option<(Correction, u64)>,
        time: String,
    ) -> Self {
        let (correction, since) = correction.unzip();
        let mut arguments = vec!["end".to_owned(), time, lease_id.to_owned(), or_empty(since)];
        for subject in subjects {
            let costs = correction
                .zip(subject.quotas.tokens_per_minute)
                .map(|(correction, limit)| correction.costs_ns(limit));
            arguments.push(or_empty(costs.map(|(more, _, _)| more)));
            arguments.push(or_empty(costs.map(|(_, back, _)| back)));
            arguments.push(or_empty(costs.map(|(_, _, taken)| taken)));
        }
        Call::of(subjects, arguments)
    }

    /// Renews slots. Each comes with the key of a set that it is a member of.
    pub(super) fn renew(leases: &[(Arc<str>, String)], lease_time: Duration, time: String) -> Self {
        let mut arguments = vec![
            "renew".to_owned(),
            time,
            String::new(),
            lease_time.as_micros().to_string(),
        ];
        arguments.extend(leases.iter().map(|(id, _)| id.to_string()));
        let both = |(_, place): &(_, String)| [place.clone(), place.clone()];
        Call {
            keys: leases.iter().flat_map(both).collect(),
            arguments,
        }
    }

    /// A call that writes as real ones do, for a subject that doesn't exist.
    pub(super) fn probe() -> Self {
        let arguments = ["request", "", "", "1", "0", "1000000"];
        let probe = "{probe}";
        Call {
            keys: vec![levels(probe), place(probe)],
            arguments: arguments.map(str::to_owned).to_vec(),
        }
    }

    fn of(subjects: &[Subject], arguments: Vec<String>) -> Self {
        let both = |subject: &Subject| [levels(&subject.name), place(&subject.name)];
        Call {
            keys: subjects.iter().flat_map(both).collect(),
            arguments,
        }
    }

    pub(super) fn by_name(&self, script: &str) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(script);
        self.with_arguments(cmd)
    }

    pub(super) fn in_full(&self) -> Cmd {
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(SCRIPT);
        self.with_arguments(cmd)
    }

    fn with_arguments(&self, mut cmd: Cmd) -> Cmd {
        cmd.arg(self.keys.len()).arg(&self.keys);
        cmd.arg(&self.arguments);
        cmd
    }
}

impl Verdict {
    /// Parses a reply; `None` if the script can't have sent it.
    pub(super) fn read(reply: &[i64], subjects: &[Subject]) -> Option<Self> {
        let whole = |number: &i64| u64::try_from(*number).ok();
        let reply: Vec<u64> = reply.iter().map(whole).collect::<Option<_>>()?;
        let ([which, by, wait_ns, at], used) = reply.split_first_chunk()?;
        let levels: Vec<Levels> = used
            .as_chunks()
            .0
            .iter()
            .map(|&[requests, tokens]| Levels {
                requests: Level(requests),
                tokens: Level(tokens),
            })
            .collect();
        let denied = match which {
            0 => None,
            1..=3 => {
                let index = usize::try_from(*by).ok()?.checked_sub(1)?;
                Some(denied(*which, subjects.get(index)?, *wait_ns)?)
            }
            _ => return None,
        };
        (levels.len() == subjects.len()).then_some(Verdict {
            denied,
            at: *at,
            levels,
        })
    }
}

fn denied(which: u64, by: &Subject, wait_ns: u64) -> Option<Denied> {
    let quotas = by.quotas;
    let (which, limit) = match which {
        1 => (Which::Requests, quotas.requests_per_minute.map(u64::from)),
        2 => (Which::Tokens, quotas.tokens_per_minute),
        _ => (Which::Concurrent, quotas.concurrent_requests.map(u64::from)),
    };
    Some(Denied {
        which,
        limit: limit?,
        retry_after: wait(wait_ns),
    })
}

fn request_cost(subject: &Subject) -> String {
    let limit = subject.quotas.requests_per_minute.map(u64::from);
    or_empty(limit.map(|limit| cost_ns(1, limit)))
}

fn levels(subject: &str) -> String {
    format!("{VERSION}:{subject}")
}

/// The key of the set of a subject's open requests.
pub(super) fn place(subject: &str) -> String {
    format!("{VERSION}:{subject}:open")
}

fn or_empty(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

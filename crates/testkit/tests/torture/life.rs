//! The life of one process, from its start to its death.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use weir_testkit::torture::node::{Order, location};
use weir_testkit::torture::{Fact, MID_STREAM, Random};

/// How a process is to end. The same seed gives the same plan.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) node: String,
    seed: u64,
    strike: Option<(&'static str, u32)>,
    /// The number of lines after which the process is killed at the latest.
    lines_max: u64,
    /// Whether it is ended by SIGTERM, after which nothing may be left to recover.
    gently: bool,
}

#[derive(Debug)]
pub(crate) struct Life {
    pub(crate) node: String,
    pub(crate) facts: Vec<Fact>,
    pub(crate) end: End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    At(&'static str),
    Killed,
    Drained,
}

impl Plan {
    /// Draws a plan. `first`: the process is the first in its database. `after`: an earlier death hasn't been recovered from.
    pub(crate) fn draw(node: String, random: &mut Random, first: bool, after: bool) -> Self {
        let strike = if first && random.chance(50) {
            Some(("migration", random.below(2)))
        } else if after && random.chance(30) {
            let place = random.pick(&[
                "recovery-begun",
                "settlement-begun",
                "usage-written",
                "recovery-committed",
            ]);
            let once = place == "recovery-committed";
            Some((place, if once { 0 } else { random.below(4) }))
        } else if random.chance(65) {
            let (place, most) = random.pick(&[
                (MID_STREAM, 400),
                ("hold-written", 40),
                ("hold-committed", 40),
                ("extension-written", 4),
                ("extension-committed", 4),
                ("checkpoint-written", 60),
                ("checkpoint-committed", 30),
                ("settlement-begun", 30),
                ("usage-written", 30),
                ("settlement-committed", 30),
            ]);
            Some((place, random.below(most)))
        } else {
            None
        };
        let gently = strike.is_none() && random.chance(15);
        let lines_max = if strike.is_some() {
            6_000
        } else {
            random.between(1, 1_500)
        };
        Plan {
            node,
            seed: random.number(),
            strike,
            lines_max,
            gently,
        }
    }

    pub(crate) fn live(self, database: &str) -> Life {
        let order = Order {
            database: location(database),
            node: self.node.clone(),
            seed: self.seed,
            strike: self
                .strike
                .map(|(place, passes)| (place.to_owned(), passes)),
        };
        let mut process = Command::new(env!("CARGO_BIN_EXE_torture-node"))
            .args(order.arguments(database))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut facts, mut lines, mut killed) = (Vec::new(), 0, false);
        for line in BufReader::new(process.stdout.take().unwrap()).lines() {
            facts.push(line.unwrap().parse::<Fact>().unwrap());
            lines += 1;
            if lines == self.lines_max {
                let pid = Pid::from_child(&process);
                let signal = if self.gently {
                    Signal::TERM
                } else {
                    Signal::KILL
                };
                // The process may have died by itself just before.
                let _ = kill_process(pid, signal);
                killed = true;
            }
        }
        let status = process.wait().unwrap();
        let end = match self.strike {
            _ if self.gently => End::Drained,
            Some((place, _)) if !killed => End::At(place),
            _ => End::Killed,
        };
        let expected = if end == End::Drained {
            status.success() && facts.last() == Some(&Fact::Drained)
        } else {
            status.signal() == Some(Signal::KILL.as_raw())
        };
        assert!(
            expected,
            "{}: {status} after {lines} lines, {end:?}",
            self.node
        );
        Life {
            node: self.node,
            facts,
            end,
        }
    }
}

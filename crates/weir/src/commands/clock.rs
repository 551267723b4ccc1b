//! `weir clock`: whether the system's clock can be trusted, by the newest time that the books have seen.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use weir_accounts::{Accounts, ClockState};

use crate::cli;
use crate::output;

pub(crate) async fn clock(
    accounts: &Accounts,
    command: cli::Clock,
    system: Timestamp,
) -> anyhow::Result<()> {
    let (state, output) = match command {
        cli::Clock::Show(output) => (accounts.clock(system).await?, output),
        cli::Clock::Accept(output) => {
            accounts.accept_clock(system).await?;
            (accounts.clock(system).await?, output)
        }
    };
    let data = json!({
        "clock": state.system.to_string(),
        "newest": state.newest.to_string(),
        "trusted": state.trusted,
    });
    Ok(output::one(output, &data, &told(&state))?)
}

/// The state in a sentence.
pub(crate) fn told(state: &ClockState) -> String {
    let ClockState {
        newest,
        system,
        trusted,
    } = state;
    let gap = system.duration_since(*newest);
    let days = gap.abs().as_hours() / 24;
    let which = if gap < SignedDuration::ZERO {
        "before"
    } else {
        "after"
    };
    match trusted {
        true => format!("it is {system:.0}"),
        false => format!(
            "it is {system:.0}, {days} days {which} the newest time in the books ({newest:.0}): nothing expires and nothing \
             is deleted until the clock is set right, or accepted with `weir clock accept`"
        ),
    }
}

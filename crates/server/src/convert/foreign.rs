//! Parameters of other servers that would change the answer, and that no engine here supports. A request with one is
//! refused with an error that names it, unless its value has no effect: clients send defaults.
//!
//! docs/api.md lists them; a test keeps the list equal to this table.

mod structured;
mod table;

use weir_api::{Others, Outline, StreamOptions};
use weir_engine::request::Invalid;

use self::table::{CHAT, COMPLETIONS, EVERYWHERE};

/// A parameter that isn't supported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foreign {
    name: &'static str,
    /// Values, besides null, with which the parameter has no effect.
    neutral: &'static [Plain],
    /// The parameter to send instead; empty if there is none.
    instead: &'static str,
}

/// A value without effect.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Plain {
    Bool(bool),
    Number(f64),
    Text(&'static str),
    /// An array or an object without entries.
    Empty,
}

impl Plain {
    fn is(self, value: &Outline) -> bool {
        match (self, value) {
            (Plain::Bool(plain), Outline::Bool(value)) => plain == *value,
            (Plain::Number(plain), Outline::Number(value)) => plain == *value,
            (Plain::Text(plain), Outline::Text(Some(value))) => plain == value,
            (Plain::Empty, Outline::Empty) => true,
            _ => false,
        }
    }
}

impl Foreign {
    fn changes(&self, value: &Outline) -> bool {
        *value != Outline::Null && !self.neutral.iter().any(|plain| plain.is(value))
    }

    fn refused(&self) -> Invalid {
        let Foreign { name, instead, .. } = self;
        let message = match *instead {
            "" => format!("{name} is not supported"),
            instead => format!("{name} is not supported; send {instead} instead"),
        };
        Invalid::new(*name, message)
    }
}

/// Refuses a chat that has such a parameter.
pub(super) fn refuse_in_chat(others: &Others) -> Result<(), Invalid> {
    refuse(others, &[EVERYWHERE, structured::EVERYWHERE, CHAT])
}

/// Refuses a plain completion that has such a parameter.
pub(super) fn refuse_in_completion(others: &Others) -> Result<(), Invalid> {
    refuse(others, &[EVERYWHERE, structured::EVERYWHERE, COMPLETIONS])
}

fn refuse(others: &Others, tables: &[&[Foreign]]) -> Result<(), Invalid> {
    let rows = tables.iter().copied().flatten();
    let given = |row: &&Foreign| others.get(row.name).is_some_and(|value| row.changes(value));
    match rows.into_iter().find(given) {
        Some(row) => Err(row.refused()),
        None => Ok(()),
    }
}

/// Refuses vLLM's option to have the usage in each chunk of a stream.
pub(super) fn refuse_in_stream(options: Option<&StreamOptions>) -> Result<(), Invalid> {
    const NAME: &str = "continuous_usage_stats";
    const PARAM: &str = "stream_options.continuous_usage_stats";
    let given = options.and_then(|options| options.others.get(NAME));
    match given {
        None | Some(Outline::Null | Outline::Bool(false)) => Ok(()),
        Some(_) => Err(Invalid::new(
            PARAM,
            format!("{PARAM} is not supported; send stream_options.include_usage instead"),
        )),
    }
}

#[cfg(test)]
mod tests;

//! Changes conversations that a template refuses into forms that it accepts.
//!
//! Callers' conversations follow OpenAI's rules, which demand no order of roles. Templates have rules of their own: some
//! want users and assistants to alternate, a single system message, the arguments of calls as objects, or a result for
//! each call. A conversation that a template refuses is changed step by step until the template accepts it. One that is
//! accepted as it is isn't changed, unless the template would silently drop some of its messages.

mod arguments;
mod cut_json;
mod turns;

use std::borrow::Cow;

pub(super) use self::arguments::with_objects;
pub(super) use self::turns::is_system;
use weir_engine::request::{Conversation, Ending, Message};

/// The changes, the smallest first. Each includes all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Repair {
    Nothing,
    /// Arguments of calls become objects.
    Arguments,
    /// There is only one system message, which comes first; later ones become user messages.
    Systems,
    /// Each call has a result, and each result a call; other results become user messages.
    Results,
    /// A user message comes first, and users and assistants alternate.
    Turns,
    /// If the assistant has the last message, an empty user message follows.
    LastWord,
    /// There is no system message: its text comes first in a user message.
    NoSystem,
    /// Calls and results become text of the assistant and the user.
    CallsAsText,
}

impl Repair {
    pub(super) const ALL: [Repair; 8] = [
        Repair::Nothing,
        Repair::Arguments,
        Repair::Systems,
        Repair::Results,
        Repair::Turns,
        Repair::LastWord,
        Repair::NoSystem,
        Repair::CallsAsText,
    ];

    /// The changed messages. Arguments aren't changed here: [`with_objects`] has changed them before.
    pub(super) fn messages(self, conversation: &Conversation) -> Cow<'_, [Message]> {
        if self <= Repair::Arguments {
            return Cow::Borrowed(&conversation.messages);
        }
        let mut messages = conversation.messages.clone();
        if self >= Repair::CallsAsText {
            messages = super::generic::plain(&messages);
        }
        if self >= Repair::Systems {
            messages = turns::one_system(messages);
        }
        if self >= Repair::NoSystem {
            messages = turns::no_system(messages);
        }
        if self >= Repair::Results {
            messages = turns::matched_results(messages);
        }
        if self >= Repair::Turns {
            messages = turns::alternating(messages);
        }
        if self >= Repair::LastWord && conversation.ending != Ending::Continuation {
            messages = turns::ending_with_user(messages);
        }
        messages.into()
    }
}

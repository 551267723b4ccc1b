//! Conversations that a template refuses, in forms that it takes.
//!
//! Callers' conversations follow OpenAI's rules, which know no order of roles. Templates have their own: some want
//! users and assistants to take turns, one system message, the arguments of calls as objects, a result for each call.
//! So what a template refuses is shown to it again, changed step by step, until it takes it. A conversation that it
//! takes as it is is never changed.

mod arguments;
mod cut_json;
mod turns;

use std::borrow::Cow;

pub(super) use self::arguments::with_objects;
pub(super) use self::turns::is_system;
use crate::request::{Conversation, Ending, Message};

/// What is changed, the least first. Each changes what those before it do as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Repair {
    Nothing,
    /// Arguments of calls are objects.
    Arguments,
    /// One system message, which is the first; later ones are said by the user.
    Systems,
    /// Each call has its result, and each result its call; others are said by the user.
    Results,
    /// A user begins, and users and assistants take turns.
    Turns,
    /// The user has the last word.
    LastWord,
    /// No system message: the user says it first.
    NoSystem,
    /// Calls and results are what the assistant and the user say.
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

    /// The messages so changed; calls have arguments that are objects already.
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

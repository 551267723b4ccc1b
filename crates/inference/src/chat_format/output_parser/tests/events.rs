//! Tokens and log-probabilities that go along with text.

use weir_engine::event::Stage;

use super::*;

/// Parses events of an engine. Returns the events, with the tokens and log-probabilities of each text, and the number of
/// reasoning tokens.
fn events(rules: ParseRules, texts: &[&str], reason: FinishReason) -> (Vec<String>, u64) {
    let mut readers = ChoiceParsers::from(SharedParseRules::new(rules));
    let mut ready = VecDeque::new();
    for (token, text) in (0..).zip(texts) {
        let logprob = TokenLogprob {
            token,
            bytes: text.as_bytes().to_vec(),
            logprob: Some(-1.0),
            rank: None,
            top: Vec::new(),
        };
        let text = Event::Text {
            choice: 7,
            channel: Channel::Content,
            text: (*text).to_owned(),
            tokens: 1,
            logprobs: vec![logprob],
            ids: vec![token],
        };
        readers.push(text, &mut ready);
    }
    readers.push(Event::Finished { choice: 7, reason }, &mut ready);
    readers.push(Event::Done(Usage::default()), &mut ready);
    let mut reasoning = 0;
    let mut seen = Vec::new();
    for event in ready {
        seen.push(match event {
            Event::Text {
                choice: 7,
                channel,
                text,
                tokens,
                logprobs,
                ids,
            } => {
                let scored: Vec<u32> = logprobs.iter().map(|score| score.token).collect();
                assert_eq!(scored, ids);
                format!("{channel:?} {text:?} {tokens} {scored:?}")
            }
            Event::Call {
                choice: 7,
                call,
                name,
            } => format!("{call}:{name}"),
            Event::Finished { choice: 7, reason } => format!("{reason:?}"),
            Event::Done(usage) => {
                reasoning = usage.reasoning;
                continue;
            }
            other => panic!("{other:?}"),
        });
    }
    (seen, reasoning)
}

#[test]
fn tokens_go_along_with_text() {
    let check = |rules: ParseRules, texts: &[&str], reason, expected: &[&str], reasoning: u64| {
        let (seen, counted) = events(rules, texts, reason);
        assert_eq!(seen, expected);
        assert_eq!(counted, reasoning, "{texts:?}");
    };
    let both = || ParseRules {
        calls: calling(&HERMES).calls,
        ..thinking(None, true)
    };
    check(
        both(),
        &[
            "<think>",
            "\n",
            "Hm",
            "\n",
            "</th",
            "ink>",
            "\n\n",
            "<tool_call>",
            "{\"name\": \"now\"",
            ", \"arguments\": {",
            "}}",
            "</tool_call>",
        ],
        FinishReason::Stop,
        &[
            "Reasoning \"Hm\" 3 [0, 1, 2]",
            "0:now",
            "Call(0) \"{\" 7 [3, 4, 5, 6, 7, 8, 9]",
            "Call(0) \"}\" 1 [10]",
            "Call(0) \"\" 1 [11]",
            "ToolCalls",
        ],
        6,
    );
    check(
        both(),
        &["a", " ", "b", " "],
        FinishReason::Length,
        &[
            "Content \"a\" 1 [0]",
            "Content \" b\" 2 [1, 2]",
            "Content \" \" 1 [3]",
            "Length",
        ],
        0,
    );
    check(
        both(),
        &["<tool_call>{\"name\": \"now\""],
        FinishReason::Length,
        &["0:now", "Content \"\" 1 [0]", "Length"],
        0,
    );
}

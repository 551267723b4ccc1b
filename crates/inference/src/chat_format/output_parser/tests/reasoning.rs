//! Reasoning, with and without tool calls.

use super::*;

#[test]
fn reasoning() {
    let apart = thinking(None, true);
    check(&apart, "<think>\nWhy? <b> </think>\n\nSo.", "‹Why? <b>›So.");
    check(&apart, "\n <think>Why?</think>", "‹Why?›");
    check(&apart, "<think></think>\n\nSo.", "So.");
    check(&apart, " So <think>x</think>", " So <think>x</think>");
    check(&apart, "<thin", "<thin");
    check(&apart, "  ", "  ");
    check(
        &apart,
        "<think>a</think>b<think>c</think>",
        "‹a›b<think>c</think>",
    );
    check_cut(&apart, "<think>still </thi", "‹still </thi›");
    let opened = thinking(Some("<think>\n"), true);
    check(&opened, "Why?\n</think>\n\nSo. ", "‹Why?›So. ");
    check(&opened, "</think>So.", "So.");
    check_cut(&opened, "Why?", "‹Why?›");
    check(&opened, "", "");
    let inside = thinking(Some("<think>\n"), false);
    check(
        &inside,
        "Why?\n</think>\n\nSo.",
        "<think>\nWhy?\n</think>\n\nSo.",
    );
    check(&inside, "", "<think>\n");
    let inside = thinking(None, false);
    for text in ["\n<think>\nWhy?\n</think>\n\nSo. ", "So.", " <think>", " "] {
        check(&inside, text, text);
    }
}

#[test]
fn reasoning_and_calls() {
    let both = |separate| ParseRules {
        calls: calling(&HERMES).calls,
        ..thinking(Some("<think>"), separate)
    };
    let text = "\nI <tool_call> it.\n</think>\n\n<tool_call>\n{\"name\": \"now\"}\n</tool_call>";
    check(&both(true), text, "‹I <tool_call> it.›0:now({})");
    check(
        &both(false),
        text,
        "<think>\nI <tool_call> it.\n</think>0:now({})",
    );
}

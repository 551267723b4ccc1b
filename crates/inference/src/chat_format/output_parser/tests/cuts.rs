//! Random answers, cut at random places.

use super::*;

/// Parts of answers, valid and invalid, which are joined in random order.
const PARTS: [&str; 26] = [
    "<tool_call>",
    "</tool_call>",
    "\n",
    " ",
    "{\"name\": \"now\"",
    "{\"name\": \"",
    "weather",
    "now",
    "\"",
    ", \"arguments\": ",
    "{\"city\": \"",
    "ü🙂",
    "\\",
    "{",
    "}",
    "[",
    "]",
    "<think>",
    "</think>",
    "<",
    "[TOOL_CALLS]",
    "<function=",
    "<parameter=city>",
    "</parameter>",
    "null",
    ":",
];

proptest! {
    #[test]
    fn any_text_reads_the_same_however_it_is_cut(
        parts in prop::collection::vec(prop::sample::select(PARTS.as_slice()), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        format in 0..10usize,
        ended: bool,
        separate: bool,
        opened: bool,
    ) {
        let formats = [
            &HERMES, &LLAMA, &MISTRAL_LIST, &MISTRAL, &GRANITE, &DEEPSEEK_V3, &QWEN_CODER, &GLM,
            &MINIMAX, &KIMI_K2,
        ];
        let rules = ParseRules {
            calls: calling(formats[format]).calls,
            ..thinking(opened.then_some("<think>\n"), separate)
        };
        let text = parts.concat();
        let mut cuts: Vec<usize> = cuts
            .iter()
            .map(|cut| cut.index(text.len() + 1))
            .filter(|&cut| text.is_char_boundary(cut))
            .chain([0, text.len()])
            .collect();
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        let whole = read(&rules, [text.as_str()].into_iter(), ended);
        prop_assert_eq!(read(&rules, parts, ended), whole);
    }

    /// A call in Hermes' format is parsed to the arguments that were written.
    #[test]
    fn calls_come_back(values in prop::collection::vec(".*", 0..4), compact: bool) {
        let arguments = serde_json::to_string(&json!({"list": values})).unwrap();
        let text = if compact {
            format!("<tool_call>{{\"name\":\"weather\",\"arguments\":{arguments}}}</tool_call>")
        } else {
            format!("<tool_call>\n{{\"name\": \"weather\", \"arguments\": {arguments}}}\n</tool_call>")
        };
        let parts = read(&calling(&HERMES), [text.as_str()].into_iter(), true);
        let name = "weather".to_owned();
        prop_assert_eq!(
            parts,
            [OutputPart::Call { call: 0, name }, OutputPart::Text(Channel::Call(0), arguments)]
        );
    }
}

//! Which family a chat template belongs to: seen from what it makes of a call, and from its marks.

use jiff::Timestamp;

use super::ChatTemplate;
use super::format::{
    DEEPSEEK_V3, DEEPSEEK_V31, Format, GLM, GRANITE, HERMES, KIMI_K2, LLAMA, MINIMAX, MISTRAL,
    MISTRAL_LIST, QWEN_CODER,
};
use super::reader::{Means, harmony_marks};
use crate::request::{Message, Role, ToolCall};

/// Marks of reasoning; those of gpt-oss are another matter.
const THINKING: [(&str, &str); 3] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
];
const PROBE: &str = "probe_tool";

#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) thinking: Option<(&'static str, &'static str)>,
    /// Whether it speaks in the messages of gpt-oss.
    pub(crate) harmony: bool,
    /// How it writes calls, if its template knows tools.
    pub(crate) format: Option<&'static Format>,
    /// Whether a conversation may have a system message.
    pub(crate) knows_system: bool,
}

impl Family {
    pub(crate) fn of(template: &ChatTemplate, source: &str) -> Self {
        let harmony = source.contains("<|channel|>") && source.contains("<|message|>");
        let thinking = THINKING
            .into_iter()
            .find(|(_, close)| source.contains(close));
        Family {
            thinking: thinking.filter(|_| !harmony),
            harmony,
            format: probe_calls(template, source).filter(|_| !harmony),
            knows_system: probe_system(template),
        }
    }

    /// How answers write calls.
    pub(crate) fn calls(&self) -> Option<&'static Format> {
        (!self.harmony).then(|| self.format.unwrap_or(&HERMES))
    }

    pub(crate) fn knows_tools(&self) -> bool {
        self.harmony || self.format.is_some()
    }

    /// Every mark that answers may have.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &'static str> {
        let thinking = self.thinking.into_iter().flat_map(<[_; 2]>::from);
        let format = self.calls().into_iter().flat_map(Format::marks);
        let harmony = self.harmony.then(harmony_marks).into_iter().flatten();
        thinking.chain(format).chain(harmony)
    }

    /// The marks that answers have which are read by these means.
    pub(crate) fn shown(&self, means: &Means) -> Vec<&'static str> {
        let calls = means.calls.as_ref().map(|calls| calls.format);
        let unread = self.calls().filter(|_| calls.is_none());
        let unread: Vec<_> = unread.into_iter().flat_map(Format::marks).collect();
        self.marks().filter(|mark| !unread.contains(mark)).collect()
    }
}

/// The format of a call in the history is that in which the model writes one. A template that says
/// nothing of the tools themselves is none that knows them: the model wouldn't learn what to call.
fn probe_calls(template: &ChatTemplate, source: &str) -> Option<&'static Format> {
    if !template.abilities().tools {
        return None;
    }
    let mut call = Message::new(Role::Assistant, "");
    call.tool_calls.push(ToolCall {
        // Mistral wants nine letters or digits.
        id: "weirprobe".to_owned(),
        name: PROBE.to_owned(),
        arguments: r#"{"key":"value"}"#.to_owned(),
    });
    let mut result = Message::new(Role::Tool, "result");
    result.tool_call_id = Some("weirprobe".to_owned());
    let messages = vec![Message::new(Role::User, "Hello"), call, result];
    let text = template.render(&messages.into(), Timestamp::UNIX_EPOCH);
    let text = text.unwrap_or_default();
    let found = by_text(&text);
    // Its template leaves calls of the history out.
    let granite = || source.contains("<|tool_call|>").then_some(&GRANITE);
    found.or_else(granite)
}

fn by_text(text: &str) -> Option<&'static Format> {
    let solid: String = text.split_whitespace().collect();
    let rows: [(&str, &'static Format); 12] = [
        ("<function=probe_tool><parameter=key>", &QWEN_CODER),
        ("<tool_call>probe_tool<arg_key>", &GLM),
        ("<minimax:tool_call><invokename=\"probe_tool\"", &MINIMAX),
        ("<｜tool▁sep｜>probe_tool", &DEEPSEEK_V3),
        ("<｜tool▁call▁begin｜>probe_tool", &DEEPSEEK_V31),
        ("<|tool_call_begin|>", &KIMI_K2),
        ("[TOOL_CALLS]probe_tool", &MISTRAL),
        ("[TOOL_CALLS][{", &MISTRAL_LIST),
        ("<tool_call>{\"name\":\"probe_tool\"", &HERMES),
        ("<tool_call>[{", &GRANITE),
        ("<|tool_call|>", &GRANITE),
        ("{\"name\":\"probe_tool\",\"parameters\":", &LLAMA),
    ];
    rows.into_iter()
        .find(|(sign, _)| solid.contains(sign))
        .map(|(_, format)| format)
}

fn probe_system(template: &ChatTemplate) -> bool {
    let messages = vec![
        Message::new(Role::System, PROBE),
        Message::new(Role::User, "Hello"),
    ];
    let text = template.render(&messages.into(), Timestamp::UNIX_EPOCH);
    text.is_ok_and(|text| text.contains(PROBE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Templates as they are shipped: `template: calls, reasoning`.
    #[test]
    fn families_of_real_templates() {
        let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
        let mut found: Vec<String> = std::fs::read_dir(home)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|name| name == "jinja"))
            .map(|path| {
                let source = std::fs::read_to_string(&path).unwrap();
                let template = ChatTemplate::parse(&source, "<s>", "</s>").unwrap();
                let family = Family::of(&template, &source);
                let calls = match family.format {
                    _ if family.harmony => "harmony",
                    Some(format) => format.name,
                    None => "-",
                };
                let thinking = family.thinking.map_or("-", |(open, _)| open);
                let system = if family.knows_system {
                    ""
                } else {
                    ", no system"
                };
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                format!("{name}: {calls}, {thinking}{system}")
            })
            .collect();
        found.sort();
        insta::assert_snapshot!(found.join("\n"), @r"
        deepseek-r1-distill: -, <think>
        deepseek-v3.1: -, <think>
        deepseek-v3: -, <think>
        glm-4.5: glm, <think>
        glm-4.6: glm, <think>
        gpt-oss: harmony, -
        granite-3.3: granite, <think>
        granite-4.0: hermes, -
        ministral-3-reasoning: mistral, [THINK]
        mistral-nemo: mistral-list, -
        mistral-small-3.2: mistral, -
        phi-3.5: -, -
        phi-4-reasoning: -, <think>
        qwen2.5: hermes, -
        qwen3-coder: qwen3-coder, -
        qwen3-instruct-2507: hermes, -
        qwen3.5: qwen3-coder, <think>
        qwen3: hermes, <think>
        smollm2: -, -
        smollm3: -, <think>
        ");
    }
}

//! Finds out which family a chat template belongs to, from how it renders a tool call and from its marks.

use jiff::Timestamp;
use weir_engine::request::{Message, Role, ToolCall};

use super::ChatTemplate;
use super::format::{
    DEEPSEEK_V3, DEEPSEEK_V31, Format, GLM, GRANITE, HERMES, KIMI_K2, LLAMA, MINIMAX, MISTRAL,
    MISTRAL_LIST, QWEN_CODER,
};
use super::output_parser::{ParseRules, harmony_marks};

/// Marks around reasoning. gpt-oss has messages instead.
const THINKING: [(&str, &str); 3] = [
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
];
const PROBE: &str = "probe_tool";

#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) thinking: Option<(&'static str, &'static str)>,
    /// Whether the model writes gpt-oss's Harmony messages.
    pub(crate) harmony: bool,
    /// The format of the model's tool calls, if its template supports tools.
    pub(crate) format: Option<&'static Format>,
    /// Whether an answer may have several calls: the template neither refuses nor drops the second call of a message.
    pub(crate) several: bool,
    pub(crate) systems: Systems,
    /// Whether a conversation may consist of system messages only.
    pub(crate) system_alone: bool,
}

/// Where a template renders system messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Systems {
    /// Everywhere, unless the template refuses the conversation.
    Anywhere,
    /// Only as the first message; others are dropped.
    First,
    Nowhere,
}

impl Family {
    pub(crate) fn of(template: &ChatTemplate, source: &str) -> Self {
        let harmony = source.contains("<|channel|>") && source.contains("<|message|>");
        let thinking = THINKING
            .into_iter()
            .find(|(_, close)| source.contains(close));
        let format = probe_calls(template, source).filter(|_| !harmony);
        Family {
            thinking: thinking.filter(|_| !harmony),
            harmony,
            several: format.is_some() && probe_several(template),
            format,
            systems: probe_systems(template),
            system_alone: probe_system_alone(template),
        }
    }

    /// The format of calls in answers: Hermes' if the template doesn't support tools, `None` for gpt-oss.
    pub(crate) fn calls(&self) -> Option<&'static Format> {
        (!self.harmony).then(|| self.format.unwrap_or(&HERMES))
    }

    pub(crate) fn knows_tools(&self) -> bool {
        self.harmony || self.format.is_some()
    }

    /// All marks that answers may have in them.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &'static str> {
        let thinking = self.thinking.into_iter().flat_map(<[_; 2]>::from);
        let format = self.calls().into_iter().flat_map(Format::marks);
        let harmony = self.harmony.then(harmony_marks).into_iter().flatten();
        thinking.chain(format).chain(harmony)
    }

    /// The marks that must be shown in the text of answers that are parsed by these rules.
    pub(crate) fn shown(&self, rules: &ParseRules) -> Vec<&'static str> {
        let calls = rules.calls.as_ref().map(|calls| calls.format);
        let unread = self.calls().filter(|_| calls.is_none());
        let unread: Vec<_> = unread.into_iter().flat_map(Format::marks).collect();
        self.marks().filter(|mark| !unread.contains(mark)).collect()
    }
}

/// The format in which the template renders a call of the history, which is how the model writes calls. `None` if the
/// template doesn't render the tools themselves: the model wouldn't know what to call.
fn probe_calls(template: &ChatTemplate, source: &str) -> Option<&'static Format> {
    if !template.abilities().tools {
        return None;
    }
    let found = by_text(&rendered(template, &[PROBE]).unwrap_or_default());
    // Granite's template leaves out the calls of the history.
    let granite = || source.contains("<|tool_call|>").then_some(&GRANITE);
    found.or_else(granite)
}

/// Whether a message may have several calls. Some templates refuse a message with two calls, others drop the second. A
/// template that drops both calls counts as one that allows several.
fn probe_several(template: &ChatTemplate) -> bool {
    const OTHER: &str = "probe_other";
    let text = rendered(template, &[PROBE, OTHER]);
    text.is_some_and(|text| text.contains(PROBE) == text.contains(OTHER))
}

/// Renders a conversation with calls of these functions and their results; `None` if the template refuses it.
fn rendered(template: &ChatTemplate, names: &[&str]) -> Option<String> {
    let mut called = Message::new(Role::Assistant, "");
    let mut messages = Vec::new();
    for (i, &name) in names.iter().enumerate() {
        // Mistral's templates demand ids of nine letters or digits.
        let id = format!("weirprob{i}");
        called.tool_calls.push(ToolCall {
            id: id.clone(),
            name: name.to_owned(),
            arguments: r#"{"key":"value"}"#.to_owned(),
        });
        let mut result = Message::new(Role::Tool, "result");
        result.tool_call_id = Some(id);
        messages.push(result);
    }
    messages.splice(0..0, [Message::new(Role::User, "Hello"), called]);
    template
        .render(&messages.into(), Timestamp::UNIX_EPOCH)
        .ok()
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

fn probe_systems(template: &ChatTemplate) -> Systems {
    const ANOTHER: &str = "probe_another";
    let said = |role, text: &str| Message::new(role, text);
    // Whether all system messages are in the prompt; `None` if the template refuses the conversation.
    let shows = |messages: Vec<Message>| {
        let words: Vec<String> = (messages.iter())
            .filter(|message| message.role == Role::System)
            .filter_map(|message| message.content.clone())
            .collect();
        let text = template.render(&messages.into(), Timestamp::UNIX_EPOCH);
        text.ok()
            .map(|text| words.iter().all(|word| text.contains(word)))
    };
    let hello = || said(Role::User, "Hello");
    let first = || said(Role::System, PROBE);
    if shows(vec![first(), hello()]) != Some(true) {
        return Systems::Nowhere;
    }
    let another = || said(Role::System, ANOTHER);
    let second = vec![first(), another(), hello()];
    let late = vec![hello(), said(Role::Assistant, "Hello."), another(), hello()];
    let both = [vec![first()], late.clone()].concat();
    if [second, late, both].map(shows).contains(&Some(false)) {
        return Systems::First;
    }
    Systems::Anywhere
}

/// Whether the template renders a conversation of system messages only, or at least refuses it instead of dropping its
/// text.
fn probe_system_alone(template: &ChatTemplate) -> bool {
    let alone = vec![Message::new(Role::System, PROBE)];
    let text = template.render(&alone.into(), Timestamp::UNIX_EPOCH);
    text.map_or(true, |text| text.contains(PROBE))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Real templates and the formats that are found: `template: calls, reasoning`.
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
                let system = match family.systems {
                    Systems::Anywhere => "",
                    Systems::First => ", system first",
                    Systems::Nowhere => ", no system",
                };
                let name = path.file_stem().unwrap().to_string_lossy().into_owned();
                let one = match family.format {
                    Some(_) if !family.several => ", one call",
                    _ => "",
                };
                format!("{name}: {calls}, {thinking}{one}{system}")
            })
            .collect();
        found.sort();
        insta::assert_snapshot!(found.join("\n"), @r"
        deepseek-r1-distill: -, <think>, system first
        deepseek-v3.1: -, <think>
        deepseek-v3: -, <think>
        glm-4.5: glm, <think>
        glm-4.6: glm, <think>
        gpt-oss: harmony, -, system first
        granite-3.3: granite, <think>
        granite-4.0: hermes, -
        ministral-3-reasoning: mistral, [THINK]
        mistral-nemo: mistral-list, -
        mistral-small-3.2: mistral, -
        phi-3.5: -, -
        phi-4-reasoning: -, <think>, system first
        qwen2.5: hermes, -
        qwen3-coder: qwen3-coder, -
        qwen3-instruct-2507: hermes, -
        qwen3.5: qwen3-coder, <think>
        qwen3: hermes, <think>
        smollm2: -, -
        smollm3: -, <think>, system first
        ");
    }

    #[test]
    fn a_template_tells_how_many_calls_a_message_has() {
        let check = |each: &str, several: bool| {
            let call = "<tool_call>{\"name\": \"{{ call.function.name }}\"}</tool_call>";
            let source = format!(
                "{{% for tool in tools or [] %}}{{{{ tool }}}}{{% endfor %}}{{% for message in messages %}}{{{{ \
                 message.content }}}}{{% set calls = message.tool_calls or [] %}}{each}{call}{{% endfor %}}\
                 {{% endfor %}}"
            );
            let template = ChatTemplate::parse(&source, "<s>", "</s>").unwrap();
            let family = Family::of(&template, &source);
            assert_eq!(family.format.map(|format| format.name), Some("hermes"));
            assert_eq!(family.several, several, "{source}");
        };
        check("{% for call in calls %}", true);
        check("{% for call in calls[:1] %}", false);
        let refuses = "{% if calls | length > 1 %}{{ raise_exception('one call') }}{% endif %}";
        check(&format!("{refuses}{{% for call in calls %}}"), false);
    }
}

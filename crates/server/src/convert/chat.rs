//! Chat completions.

pub(super) mod messages;

use std::collections::BTreeMap;

use serde_json::Value;
use weir_api::chat;
use weir_api::json::Kwargs;
use weir_api::{Integer, List};
use weir_engine::request::{
    Conversation, Ending, Input, Invalid, Logprobs, Message, OutputLimit, Overflow, Role,
};
use weir_engine::{Feature, Request};
use weir_gateway::Offer;

use self::messages::messages;
use super::extensions::extend;
use super::foreign;
use super::format::format;
use super::tools::{refuse_functions, tools};
use super::{
    ChatJob, Needs, choices, delivery, max_tokens, refuse_upstreams, sampling, scores, spelling,
    stop,
};
use crate::answer::ResponseShape;
use crate::error::{ApiError, ParamNames};

/// The values of OpenAI's `reasoning_effort`.
const EFFORTS: [&str; 6] = ["none", "minimal", "low", "medium", "high", "xhigh"];

pub(crate) fn chat(offer: &Offer, body: chat::Request) -> Result<ChatJob<ResponseShape>, ApiError> {
    let mut needs = Needs::default();
    refuse_upstreams(body.api_base, body.base_url)?;
    refuse_functions(body.functions, body.function_call)?;
    foreign::refuse_in_chat(&body.others)?;
    let foreign = foreign(&body);
    let logprobs = logprobs(body.logprobs, body.top_logprobs)?;
    let (max_tokens, output_tokens) = max_tokens(body.max_tokens, body.max_completion_tokens, 1)?;
    let given = body.tools.map(|List(tools)| tools).unwrap_or_default();
    let tools = tools(
        given,
        body.tool_choice,
        body.parallel_tool_calls,
        &mut needs,
    )?;
    let format = format(body.formats, &mut needs)?;
    let template_kwargs = template_kwargs(
        body.chat_template_kwargs,
        body.enable_thinking,
        body.reasoning_effort,
        offer,
        &mut needs,
    )?;
    let (delivery, stream_usage) = delivery(body.stream, body.stream_options.as_ref())?;
    let hides_reasoning = body.include_reasoning == Some(false);
    let thinking_tokens = thinking_tokens(body.thinking_token_budget, &mut needs)?;
    let continues = body.continue_final_message == Some(true);
    let (messages, is_prefix) = messages(&offer.id, body.messages)?;
    let request = Request {
        sampling: sampling(body.sampling)?,
        stop: stop(body.stop)?,
        choices: choices(body.n)?,
        output: OutputLimit {
            tokens: max_tokens,
            overflow: Overflow::Lower,
        },
        logprobs,
        format,
        thinking_tokens,
        ..Request::new(Input::Chat(Conversation {
            ending: ending(
                continues || is_prefix,
                body.add_generation_prompt,
                &messages,
            )?,
            messages,
            tools,
            template_kwargs,
            // Reasoning that is to be hidden has to be separated from the content.
            separate_reasoning: hides_reasoning || body.separate_reasoning == Some(true),
        }))
    };
    let names = ParamNames::new("messages", output_tokens);
    let request = extend(request, body.extensions, delivery, names)?;
    let job = ChatJob {
        delivery,
        names,
        shape: ResponseShape {
            logprobs: logprobs.map(|_| spelling(body.return_tokens_as_token_ids)),
            hides_reasoning,
            ..ResponseShape::new(&request, stream_usage)
        },
        request,
    };
    needs.check(offer)?;
    scores::check(&job, offer)?;
    foreign.map_or(Ok(job), |(param, feature)| {
        Err(ApiError::unsupported(&offer.id, feature, param))
    })
}

/// Where the prompt ends: by default at the start of a new answer, otherwise after the last message or within it.
pub(super) fn ending(
    continues: bool,
    add_generation_prompt: Option<bool>,
    messages: &[Message],
) -> Result<Ending, Invalid> {
    const NAME: &str = "continue_final_message";
    let refused = |what: &str| Err(Invalid::new(NAME, format!("{NAME} {what}")));
    if !continues {
        return Ok(match add_generation_prompt {
            Some(false) => Ending::Messages,
            Some(true) | None => Ending::Answer,
        });
    }
    if add_generation_prompt == Some(true) {
        return refused("and add_generation_prompt exclude each other");
    }
    match messages.last() {
        Some(Message {
            role: Role::Assistant,
            content: Some(_),
            tool_calls,
            ..
        }) if tool_calls.is_empty() => Ok(Ending::Continuation),
        _ => refused("needs a last message of role assistant that has content and no tool_calls"),
    }
}

/// `thinking_token_budget`; −1 means no limit.
fn thinking_tokens(budget: Option<Integer>, needs: &mut Needs) -> Result<Option<u32>, Invalid> {
    const BUDGET: &str = "thinking_token_budget";
    match budget {
        None | Some(Integer(-1)) => Ok(None),
        Some(Integer(tokens @ 0..)) => {
            needs.feature(BUDGET, Feature::Reasoning);
            Ok(Some(u32::try_from(tokens).unwrap_or(u32::MAX)))
        }
        Some(Integer(tokens)) => {
            let message = format!("{BUDGET} must be -1 or at least 0, got {tokens}");
            Err(Invalid::new(BUDGET, message))
        }
    }
}

/// The arguments of the chat template. Models without reasoning refuse every `reasoning_effort` except `none`, and
/// ignore `enable_thinking`.
fn template_kwargs(
    kwargs: Option<Kwargs>,
    thinking: Option<bool>,
    effort: Option<String>,
    offer: &Offer,
    needs: &mut Needs,
) -> Result<BTreeMap<String, Value>, Invalid> {
    const THINKING: &str = "enable_thinking";
    const EFFORT: &str = "reasoning_effort";
    let Kwargs(mut kwargs) = kwargs.unwrap_or_default();
    let thinks = offer
        .facts()
        .is_some_and(|facts| facts.features.contains(&Feature::Reasoning));
    let mut add = |name: &str, value: Value| match kwargs.insert(name.to_owned(), value.clone()) {
        Some(other) if other != value => Err(Invalid::new(
            name,
            format!("{name} and chat_template_kwargs.{name} differ; give one of them"),
        )),
        _ => Ok(()),
    };
    if let Some(thinking) = thinking
        && thinks
    {
        add(THINKING, thinking.into())?;
    }
    if let Some(effort) = effort {
        if !EFFORTS.contains(&effort.as_str()) {
            let all = EFFORTS.join(", ");
            return Err(Invalid::new(
                EFFORT,
                format!("{EFFORT} must be one of {all}"),
            ));
        }
        if effort != "none" {
            needs.feature(EFFORT, Feature::Reasoning);
        }
        if thinks {
            add(EFFORT, effort.into())?;
        }
    }
    Ok(kwargs)
}

fn logprobs(wanted: Option<bool>, top: Option<Integer>) -> Result<Option<Logprobs>, Invalid> {
    let logprobs = Logprobs::new("top_logprobs", top.map_or(0, |Integer(top)| top))?;
    match wanted {
        Some(true) => Ok(Some(logprobs)),
        Some(false) | None if logprobs.top() > 0 => Err(Invalid::new(
            "top_logprobs",
            "top_logprobs is only allowed with logprobs",
        )),
        Some(false) | None => Ok(None),
    }
}

/// The first field that asks for a kind of output that no model here has, and the feature that it needs.
fn foreign(body: &chat::Request) -> Option<(&'static str, &'static str)> {
    let speaks = body
        .modalities
        .as_ref()
        .is_some_and(|List(kinds)| kinds.iter().any(|kind| kind != "text"));
    let fields = [
        (speaks, "modalities", "audio-output"),
        (body.audio.is_some(), "audio", "audio-output"),
        (
            body.web_search_options.is_some(),
            "web_search_options",
            "web-search",
        ),
    ];
    let first = fields.into_iter().find(|&(asked, ..)| asked);
    first.map(|(_, param, feature)| (param, feature))
}

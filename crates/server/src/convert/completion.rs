//! Plain completions.

use weir_api::Integer;
use weir_api::completion::{self, Prompts};
use weir_engine::Request;
use weir_engine::request::{Choices, Input, Invalid, Logprobs, OutputLimit, Overflow, Prompt};
use weir_gateway::{Delivery, Offer};

use super::extensions::extend;
use super::foreign;
use super::format::format;
use super::{
    ChatJob, Needs, choices, delivery, max_tokens, missing, refuse_upstreams, sampling, scores,
    spelling, stop, tokenizing, within,
};
use crate::answer::ResponseShape;
use crate::answer::text_offsets::TextOffsets;
use crate::error::{ApiError, ParamNames};

/// OpenAI's default for `max_tokens`.
const MAX_TOKENS_DEFAULT: u32 = 16;
const BEST_OF_MAX: i64 = 20;
const LOGPROBS_MAX: i64 = 5;
/// Most choices of a request: prompts times `n`, or times `best_of`.
const ANSWERS_MAX: usize = 2048;

pub(crate) fn completion(
    offer: &Offer,
    body: completion::Request,
) -> Result<ChatJob<ResponseShape>, ApiError> {
    refuse_upstreams(body.api_base, body.base_url)?;
    foreign::refuse_in_completion(&body.others)?;
    let (delivery, stream_usage) = delivery(body.stream, body.stream_options.as_ref())?;
    let n = choices(body.n)?;
    let best_of = best_of(body.best_of, n, delivery)?;
    let (max_tokens, output_tokens) = max_tokens(body.max_tokens, body.max_completion_tokens, 0)?;
    let logprobs = logprobs(body.logprobs)?;
    let mut needs = Needs::default();
    let format = format(body.formats, &mut needs)?;
    let echo = body.echo == Some(true);
    let sampling = sampling(body.sampling)?;
    let stop = stop(body.stop)?;
    let choices = best_of.unwrap_or(n);
    let prompts = prompts(body.prompt.ok_or_else(|| missing("prompt"))?, choices)?;
    if body.suffix.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::unsupported(&offer.id, "infill", "suffix"));
    }
    needs.check(offer)?;
    let text_offsets = match logprobs {
        Some(_) if !echo => text_offsets(&prompts, offer),
        Some(_) | None => TextOffsets::Zero,
    };
    let request = Request {
        sampling,
        stop,
        choices,
        output: OutputLimit {
            tokens: Some(max_tokens.unwrap_or(MAX_TOKENS_DEFAULT)),
            overflow: Overflow::Refuse,
        },
        // Choosing the best choices needs the log-probabilities of their tokens.
        logprobs: logprobs.or(best_of.map(|_| Logprobs::CHOSEN)),
        tokenizing: tokenizing(body.add_special_tokens, body.parse_special),
        echo,
        format,
        ..Request::new(Input::Prompts(prompts))
    };
    let names = ParamNames::new("prompt", output_tokens);
    let request = extend(request, body.extensions, delivery, names)?;
    let job = ChatJob {
        delivery,
        names,
        shape: ResponseShape {
            best: best_of.map(|_| n.get()),
            logprobs: logprobs.map(|_| spelling(body.return_tokens_as_token_ids)),
            text_offsets,
            ..ResponseShape::new(&request, stream_usage)
        },
        request,
    };
    scores::check(&job, offer)?;
    Ok(job)
}

/// The prompts are either all texts or all tokens.
fn text_offsets(prompts: &[Prompt], offer: &Offer) -> TextOffsets {
    let mut characters = Vec::new();
    let mut tokens = Vec::new();
    for prompt in prompts {
        match prompt {
            Prompt::Text(text) => characters.push(text.chars().count()),
            Prompt::Tokens(prompt) => tokens.push(prompt.clone()),
        }
    }
    if tokens.is_empty() {
        TextOffsets::Characters(characters)
    } else {
        TextOffsets::After(tokens, offer.tokenizer())
    }
}

fn logprobs(top: Option<Integer>) -> Result<Option<Logprobs>, Invalid> {
    let top = within("logprobs", top, 0, LOGPROBS_MAX)?;
    top.map(|top| Logprobs::new("logprobs", top)).transpose()
}

fn prompts(prompts: Prompts, choices: Choices) -> Result<Vec<Prompt>, Invalid> {
    let prompts: Vec<Prompt> = match prompts {
        Prompts::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
        Prompts::Tokens(tokens) => tokens.into_iter().map(Prompt::Tokens).collect(),
    };
    if prompts.is_empty() || prompts.contains(&Prompt::Tokens(Vec::new())) {
        return Err(Invalid::new("prompt", "prompt must not be empty"));
    }
    if prompts.len() * choices.get() as usize > ANSWERS_MAX {
        let message = format!("prompts times n (or best_of) must be at most {ANSWERS_MAX}");
        return Err(Invalid::new("n", message));
    }
    Ok(prompts)
}

/// `best_of` is at least `n` and at most 20, and not allowed with `stream`. `None` if every generated choice is shown.
fn best_of(
    best_of: Option<Integer>,
    n: Choices,
    delivery: Delivery,
) -> Result<Option<Choices>, Invalid> {
    let Some(Integer(best_of)) = best_of else {
        return Ok(None);
    };
    if delivery != Delivery::Whole {
        return Err(Invalid::new(
            "best_of",
            "best_of is not allowed with stream",
        ));
    }
    let least = i64::from(n.get());
    if !(least..=BEST_OF_MAX).contains(&best_of) {
        return Err(Invalid::new(
            "best_of",
            format!("best_of must be between n ({least}) and {BEST_OF_MAX}, got {best_of}"),
        ));
    }
    let best_of = Choices::new(best_of)?;
    Ok((best_of != n).then_some(best_of))
}

//! Plain completions.

use weir_api::Integer;
use weir_api::completion::{self, Prompts};
use weir_engine::Request;
use weir_engine::request::{Choices, Input, Invalid, OutputLimit, Overflow, Prompt};

use super::{
    Asked, Reply, choices, max_tokens, missing, refuse_upstreams, reply, sampling, stop, within,
};
use crate::error::ApiError;

/// What OpenAI generates when nothing else is said.
const MAX_TOKENS_DEFAULT: u32 = 16;
const BEST_OF_MAX: i64 = 20;
const LOGPROBS_MAX: i64 = 5;
/// Prompts times `n`.
const ANSWERS_MAX: usize = 2048;

pub(crate) fn completion(model: &str, body: completion::Request) -> Result<Asked, ApiError> {
    let reply = reply(body.stream, body.stream_options.as_ref())?;
    let choices = choices(body.n)?;
    let unsupported = unsupported(&body, choices, reply)?;
    let (max_tokens, limit) = max_tokens(body.max_tokens, body.max_completion_tokens, 0)?;
    let asked = Asked {
        limit,
        reply,
        request: Request {
            sampling: sampling!(body)?,
            stop: stop(body.stop)?,
            choices,
            output: OutputLimit {
                tokens: Some(max_tokens.unwrap_or(MAX_TOKENS_DEFAULT)),
                overflow: Overflow::Refuse,
            },
            ..Request::new(Input::Prompts(prompts(
                body.prompt.ok_or_else(|| missing("prompt"))?,
                choices,
            )?))
        },
    };
    match unsupported {
        None => Ok(asked),
        Some((param, feature)) => Err(ApiError::unsupported(model, feature, param)),
    }
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
        let message = format!("prompts times n must be at most {ANSWERS_MAX}");
        return Err(Invalid::new("n", message));
    }
    Ok(prompts)
}

/// The first field that would change the answer, but can't be honoured, and the feature it needs.
/// All of them are checked for their ranges first.
fn unsupported(
    body: &completion::Request,
    choices: Choices,
    reply: Reply,
) -> Result<Option<(&'static str, &'static str)>, Invalid> {
    refuse_upstreams(body.api_base, body.base_url)?;
    let logprobs = within("logprobs", body.logprobs, 0, LOGPROBS_MAX)?;
    let n = i64::from(choices.get());
    let best_of = best_of(body.best_of, n, reply)?;
    let fields = [
        (best_of > n, "best_of", "best-of"),
        (logprobs.is_some(), "logprobs", "logprobs"),
        (body.echo == Some(true), "echo", "echo"),
        (
            body.suffix
                .as_ref()
                .is_some_and(|suffix| !suffix.is_empty()),
            "suffix",
            "infill",
        ),
    ];
    Ok(fields
        .into_iter()
        .find(|&(asked, ..)| asked)
        .map(|(_, param, feature)| (param, feature)))
}

/// `n` to 20, and not with `stream`; absent it is `n`.
fn best_of(best_of: Option<Integer>, n: i64, reply: Reply) -> Result<i64, Invalid> {
    match best_of {
        None => Ok(n),
        Some(_) if reply != Reply::Whole => Err(Invalid::new(
            "best_of",
            "best_of is not allowed with stream",
        )),
        Some(Integer(best_of)) if !(n..=BEST_OF_MAX).contains(&best_of) => Err(Invalid::new(
            "best_of",
            format!("best_of must be between n ({n}) and {BEST_OF_MAX}, got {best_of}"),
        )),
        Some(Integer(best_of)) => Ok(best_of),
    }
}

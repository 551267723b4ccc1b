//! Parameters that vLLM adds to OpenAI's, supported here under vLLM's names.

use weir_api::sampling::Extensions;
use weir_api::{Integer, List};
use weir_engine::request::{
    Invalid, Keep, Logprobs, PromptLimit, Request, TokenFilter, Truncation,
};
use weir_gateway::Delivery;

use crate::error::ParamNames;

/// Checks the fields and adds them to the request.
pub(super) fn extend(
    request: Request,
    fields: Extensions,
    delivery: Delivery,
    names: ParamNames,
) -> Result<Request, Invalid> {
    let tokens = fields.stop_token_ids.map(|List(tokens)| tokens);
    let words = fields.bad_words.map(|List(words)| words);
    let mut stop = request.stop.with_tokens(tokens.unwrap_or_default())?;
    stop.min_tokens = min_tokens(fields.min_tokens, request.output.tokens, names)?;
    stop.ignores_model = fields.ignore_eos == Some(true);
    stop.is_shown = fields.include_stop_str_in_output == Some(true);
    Ok(Request {
        stop,
        filter: TokenFilter::new(fields.allowed_token_ids, words.unwrap_or_default())?,
        truncation: truncation(fields.truncate_prompt_tokens, fields.truncation_side)?,
        prompt_logprobs: prompt_logprobs(fields.prompt_logprobs, delivery)?,
        token_ids: fields.return_token_ids == Some(true),
        names_specials: fields.skip_special_tokens == Some(false),
        ..request
    })
}

fn min_tokens(min: Option<Integer>, max: Option<u32>, names: ParamNames) -> Result<u32, Invalid> {
    let limit = names.output_tokens;
    let refused = |message| Err(Invalid::new("min_tokens", message));
    let Integer(min) = min.unwrap_or(Integer(0));
    match (u32::try_from(min), max) {
        (Ok(min), Some(max)) if min > max => refused(format!(
            "min_tokens must be at most {limit} ({max}), got {min}"
        )),
        (Ok(min), _) => Ok(min),
        (Err(_), _) => refused(format!(
            "min_tokens must be between 0 and {}, got {min}",
            u32::MAX
        )),
    }
}

/// `truncate_prompt_tokens`: −1 means as many tokens as fit the context.
fn truncation(to: Option<Integer>, side: Option<String>) -> Result<Option<Truncation>, Invalid> {
    const SIDE: &str = "truncation_side";
    let keep = match side.as_deref() {
        None | Some("left") => Keep::Last,
        Some("right") => Keep::First,
        Some(_) => return Err(Invalid::new(SIDE, format!("{SIDE} must be left or right"))),
    };
    let to = match to {
        None => return Ok(None),
        Some(Integer(-1)) => PromptLimit::Context,
        Some(Integer(tokens @ 1..)) => {
            PromptLimit::Tokens(u32::try_from(tokens).unwrap_or(u32::MAX))
        }
        Some(Integer(tokens)) => {
            let message = format!("truncate_prompt_tokens must be -1 or at least 1, got {tokens}");
            return Err(Invalid::new("truncate_prompt_tokens", message));
        }
    };
    Ok(Some(Truncation { to, keep }))
}

fn prompt_logprobs(top: Option<Integer>, delivery: Delivery) -> Result<Option<Logprobs>, Invalid> {
    const NAME: &str = "prompt_logprobs";
    let Some(Integer(top)) = top else {
        return Ok(None);
    };
    if delivery != Delivery::Whole {
        return Err(Invalid::new(
            NAME,
            format!("{NAME} is not allowed with stream"),
        ));
    }
    Logprobs::new(NAME, top).map(Some)
}

//! Parameters that vLLM adds to OpenAI's, supported here under vLLM's names.

use weir_api::{Integer, List};
use weir_engine::request::{
    Invalid, Keep, Logprobs, PromptLimit, Request, TokenFilter, Truncation,
};
use weir_gateway::Delivery;

/// The fields of a chat or a plain completion, not checked yet.
#[derive(Debug, Default)]
pub(super) struct Extensions<const STOPS: usize, const WORDS: usize> {
    pub(super) ignore_eos: Option<bool>,
    pub(super) min_tokens: Option<Integer>,
    pub(super) stop_token_ids: Option<List<u32, STOPS>>,
    pub(super) include_stop_str_in_output: Option<bool>,
    pub(super) skip_special_tokens: Option<bool>,
    pub(super) allowed_token_ids: Option<Vec<u32>>,
    pub(super) bad_words: Option<List<String, WORDS>>,
    pub(super) truncate_prompt_tokens: Option<Integer>,
    pub(super) truncation_side: Option<String>,
    pub(super) prompt_logprobs: Option<Integer>,
    pub(super) return_token_ids: Option<bool>,
}

/// Takes the fields out of a body.
macro_rules! extensions {
    ($body:ident) => {
        crate::convert::extensions::Extensions {
            ignore_eos: $body.ignore_eos,
            min_tokens: $body.min_tokens,
            stop_token_ids: $body.stop_token_ids,
            include_stop_str_in_output: $body.include_stop_str_in_output,
            skip_special_tokens: $body.skip_special_tokens,
            allowed_token_ids: $body.allowed_token_ids,
            bad_words: $body.bad_words,
            truncate_prompt_tokens: $body.truncate_prompt_tokens,
            truncation_side: $body.truncation_side,
            prompt_logprobs: $body.prompt_logprobs,
            return_token_ids: $body.return_token_ids,
        }
    };
}
pub(super) use extensions;

impl<const STOPS: usize, const WORDS: usize> Extensions<STOPS, WORDS> {
    /// Checks the fields and adds them to the request.
    pub(super) fn apply(self, request: Request, delivery: Delivery) -> Result<Request, Invalid> {
        let tokens = self.stop_token_ids.map(|List(tokens)| tokens);
        let words = self.bad_words.map(|List(words)| words);
        let mut stop = request.stop.with_tokens(tokens.unwrap_or_default())?;
        stop.min_tokens = min_tokens(self.min_tokens, request.output.tokens)?;
        stop.ignores_model = self.ignore_eos == Some(true);
        stop.is_shown = self.include_stop_str_in_output == Some(true);
        Ok(Request {
            stop,
            filter: TokenFilter::new(self.allowed_token_ids, words.unwrap_or_default())?,
            truncation: truncation(self.truncate_prompt_tokens, self.truncation_side)?,
            prompt_logprobs: prompt_logprobs(self.prompt_logprobs, delivery)?,
            token_ids: self.return_token_ids == Some(true),
            names_specials: self.skip_special_tokens == Some(false),
            ..request
        })
    }
}

fn min_tokens(min: Option<Integer>, max: Option<u32>) -> Result<u32, Invalid> {
    let refused = |message| Err(Invalid::new("min_tokens", message));
    let Integer(min) = min.unwrap_or(Integer(0));
    match (u32::try_from(min), max) {
        (Ok(min), Some(max)) if min > max => refused(format!(
            "min_tokens must be at most max_tokens ({max}), got {min}"
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

//! From a request to tokens: everything that only the model's tokenizer and template can judge.

mod limits;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use weir_engine::request::{
    Invalid, Keep, Logprobs, OutputLimit, Overflow, Prompt, PromptLimit, Tokenizing, Truncation,
};
use weir_engine::{EngineError, Input, PromptSize, Request, Token};

use crate::chat_format::{self, ChatFormat, PromptText, ReasoningMarks, SharedParseRules};
use crate::constraint::{Cancel, CompileError, Compiled, Constraints, Grammar};
use crate::local::prepare::limits::token_limits;
use crate::model::{Bos, Encoded, Tokenizer};
use crate::prepared::PreparedRequest;
use crate::prepared::{ShownTokens, ThinkingLimit};
use crate::specials::Names;

/// The most log-probabilities of prompt tokens in one answer, alternatives included.
pub const ECHOED_LOGPROBS_MAX: usize = 1 << 18;

/// When to retry a grammar whose compilation was cancelled.
const CANCELLED_RETRY: Duration = Duration::from_secs(1);

/// The model's tokenizer, chat format and grammars. Used from any thread.
pub(crate) struct Preparer {
    pub(crate) tokenizer: Arc<dyn Tokenizer>,
    pub(crate) chat_format: Option<ChatFormat>,
    pub(crate) constraints: Constraints,
    pub(crate) context_tokens: u32,
    /// All EOS tokens, once they were needed.
    pub(crate) ends: OnceLock<Arc<[Token]>>,
    pub(crate) now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for Preparer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preparer")
            .field("context_tokens", &self.context_tokens)
            .finish_non_exhaustive()
    }
}

/// A tokenized request, and the grammar of its answer, not compiled yet.
#[derive(Debug)]
pub(crate) struct RenderedRequest {
    pub(crate) prepared: PreparedRequest,
    pub(crate) grammar: Option<Grammar>,
}

/// The request with its compiled grammar.
pub(crate) fn kept_to(prepared: PreparedRequest, compiled: Option<Compiled>) -> PreparedRequest {
    match compiled {
        None => prepared,
        Some(Compiled {
            constraint,
            relaxed,
        }) => PreparedRequest {
            constraint: Some(constraint),
            relaxed,
            ..prepared
        },
    }
}

impl Preparer {
    /// Prepares everything but the grammar, which may take much longer.
    pub(crate) fn render(&self, request: Arc<Request>) -> Result<RenderedRequest, EngineError> {
        self.check_tokens(&request)?;
        let (mut parse_rules, mut shown) = (SharedParseRules::PLAIN, ShownTokens::default());
        let mut reasoning = None;
        let grammar;
        let (prompts, param) = match &request.input {
            Input::Chat(conversation) => {
                let chat_format = self.chat_format()?;
                let rendered =
                    chat_format.render_prompt(conversation, &request.format, (self.now)())?;
                (parse_rules, shown) = (rendered.parse_rules, rendered.shown);
                reasoning = rendered.reasoning;
                grammar = rendered.grammar;
                (vec![self.encode_rendered(&rendered.prompt)], "messages")
            }
            Input::Prompts(prompts) => {
                grammar = chat_format::text_grammar(&request.format);
                let encode = |prompt| self.encode(prompt, request.tokenizing);
                let prompts = prompts.iter().map(encode);
                (prompts.collect::<Result<Vec<_>, _>>()?, "prompt")
            }
        };
        if request.names_specials {
            shown = ShownTokens::All;
        }
        let prompts = self.truncated(prompts, &request)?;
        let longest = longest(&prompts, param)?;
        let prompts = prompts.into_iter().map(|prompt| prompt.tokens.into());
        let prompts: Vec<Arc<[Token]>> = prompts.collect();
        let output_max = self.output_max(longest, request.output)?;
        check_scores(&request, &prompts)?;
        let thinking = self.thinking(request.thinking_tokens, reasoning)?;
        let ends = || Arc::clone(self.ends.get_or_init(|| ends(&*self.tokenizer)));
        Ok(RenderedRequest {
            prepared: PreparedRequest {
                parse_rules,
                shown,
                limits: token_limits(&request, &*self.tokenizer, ends),
                thinking,
                ..PreparedRequest::new(request, prompts, output_max)
            },
            grammar,
        })
    }

    pub(crate) fn compile(
        &self,
        grammar: &Grammar,
        cancel: &Cancel,
    ) -> Result<Compiled, EngineError> {
        self.constraints
            .compile(grammar, cancel)
            .map_err(|error| match error {
                CompileError::Invalid(invalid) => invalid.into(),
                CompileError::Cancelled => EngineError::Busy {
                    retry_after: CANCELLED_RETRY,
                },
            })
    }

    /// Prepares everything, with the grammar.
    #[cfg(test)]
    pub(crate) fn prepare(&self, request: Request) -> Result<PreparedRequest, EngineError> {
        let RenderedRequest { prepared, grammar } = self.render(request.into())?;
        let compiled = grammar
            .map(|grammar| self.compile(&grammar, &Cancel::default()))
            .transpose()?;
        Ok(kept_to(prepared, compiled))
    }

    /// Fails if a token id in the request is beyond the vocabulary.
    fn check_tokens(&self, request: &Request) -> Result<(), EngineError> {
        let check = |param, tokens: &[Token]| {
            let mut tokens = tokens.iter();
            tokens.try_for_each(|&token| self.check_token(param, token))
        };
        for &(token, _) in request.sampling.logit_bias() {
            self.check_token("logit_bias", token)?;
        }
        check("stop_token_ids", request.stop.tokens())?;
        check(
            "allowed_token_ids",
            request.filter.allowed().unwrap_or_default(),
        )
    }

    /// Cuts prompts that are too long, as the request's `truncation` says.
    fn truncated(
        &self,
        mut prompts: Vec<Encoded>,
        request: &Request,
    ) -> Result<Vec<Encoded>, EngineError> {
        let Some(Truncation { to, keep }) = request.truncation else {
            return Ok(prompts);
        };
        let length = match to {
            PromptLimit::Tokens(tokens) => tokens,
            PromptLimit::Context => {
                let answer = request.output.tokens.unwrap_or(1).max(1);
                self.context_tokens.saturating_sub(answer)
            }
        };
        for prompt in &mut prompts {
            // If a text wasn't read to its end, its last tokens aren't known.
            if prompt.tokens.len() > length as usize && (prompt.complete || keep == Keep::First) {
                prompt.tokens = part(&prompt.tokens, length as usize, keep, self.begins(request));
                prompt.complete = true;
            }
        }
        Ok(prompts)
    }

    /// The BOS token that is put in front of this request's texts, if any.
    fn begins(&self, request: &Request) -> Option<Token> {
        let is_text = matches!(&request.input, Input::Prompts(prompts) if matches!(prompts.first(), Some(Prompt::Text(_))));
        if !is_text || request.tokenizing.bos == Bos::Omit {
            return None;
        }
        let with = self.tokenizer.encode("", Names::All, Bos::Add);
        with.tokens.first().copied()
    }

    fn thinking(
        &self,
        tokens: Option<u32>,
        marks: Option<ReasoningMarks>,
    ) -> Result<Option<ThinkingLimit>, EngineError> {
        let Some(tokens) = tokens else {
            return Ok(None);
        };
        let Some(ReasoningMarks {
            open,
            close,
            is_open,
        }) = marks
        else {
            let message = "thinking_token_budget: the reasoning of this model has no marks with which it could be closed";
            return Err(Invalid::new("thinking_token_budget", message).into());
        };
        let closing = self.tokenizer.encode(close, Names::All, Bos::Omit).tokens;
        Ok(Some(ThinkingLimit {
            tokens,
            open,
            close,
            closing: closing.into(),
            is_open,
        }))
    }

    fn chat_format(&self) -> Result<&ChatFormat, EngineError> {
        self.chat_format
            .as_ref()
            .ok_or(EngineError::Unsupported { feature: "chat" })
    }

    /// Checks a prepared request again: its fields are public, so that the caller may have changed them.
    pub(crate) fn check(&self, prepared: &PreparedRequest) -> Result<(), EngineError> {
        if prepared.prompts.is_empty() || prepared.prompts.iter().any(|prompt| prompt.is_empty()) {
            return Err(
                Invalid::new("prompt", "prompt must not be empty: it has no tokens").into(),
            );
        }
        let limit = OutputLimit {
            tokens: Some(prepared.output_max),
            overflow: Overflow::Refuse,
        };
        let longest = prepared
            .prompts
            .iter()
            .map(|prompt| prompt.len() as u64)
            .max();
        let longest = PromptSize::from(longest.unwrap_or(0));
        self.output_max(longest, limit).map(|_| ())
    }

    fn encode_rendered(&self, prompt: &PromptText) -> Encoded {
        let names = match &prompt.verbatim {
            Some(bytes) => Names::AllBut(bytes),
            None => Names::All,
        };
        // The template writes the BOS token itself.
        self.tokenizer.encode(&prompt.text, names, Bos::Omit)
    }

    fn encode(&self, prompt: &Prompt, tokenizing: Tokenizing) -> Result<Encoded, EngineError> {
        match prompt {
            Prompt::Text(text) => {
                let Tokenizing { bos, .. } = tokenizing;
                Ok(self.tokenizer.encode(text, tokenizing.into(), bos))
            }
            Prompt::Tokens(tokens) => {
                tokens
                    .iter()
                    .try_for_each(|&token| self.check_token("prompt", token))?;
                Ok(Encoded {
                    tokens: tokens.clone(),
                    complete: true,
                })
            }
        }
    }

    fn check_token(&self, param: &str, token: Token) -> Result<(), EngineError> {
        let vocabulary = self.tokenizer.vocabulary();
        if token < vocabulary {
            return Ok(());
        }
        let message = format!(
            "{param} has token {token}, but the model's vocabulary ends at {}",
            vocabulary - 1
        );
        Err(Invalid::new(param, message).into())
    }

    /// The most tokens that each choice may have, so that it fits the context beside the longest prompt.
    fn output_max(&self, prompt: PromptSize, limit: OutputLimit) -> Result<u32, EngineError> {
        let context = self.context_tokens;
        let too_long = EngineError::TooLong {
            context,
            prompt,
            // A limit that would be lowered anyway isn't in the way.
            requested: limit.tokens.filter(|_| limit.overflow == Overflow::Refuse),
        };
        let room = u64::from(context)
            .checked_sub(prompt.tokens)
            .and_then(|room| u32::try_from(room).ok());
        match (room, limit.tokens, limit.overflow) {
            (None, ..) => Err(too_long),
            (Some(_), Some(0), _) => Ok(0),
            // A prompt that fills the context leaves no room for an answer.
            (Some(0), ..) => Err(too_long),
            (Some(room), None, _) => Ok(room),
            (Some(room), Some(tokens), Overflow::Lower) => Ok(tokens.min(room)),
            (Some(room), Some(tokens), Overflow::Refuse) if tokens <= room => Ok(tokens),
            (Some(_), Some(_), Overflow::Refuse) => Err(too_long),
        }
    }
}

/// All EOS tokens of the vocabulary.
fn ends(tokenizer: &dyn Tokenizer) -> Arc<[Token]> {
    let all = 0..tokenizer.vocabulary();
    all.filter(|&token| tokenizer.is_end(token)).collect()
}

/// The first or last `length` tokens of a prompt. The last ones have the prompt's first token in front if it is `begin`
/// (BOS).
fn part(tokens: &[Token], length: usize, keep: Keep, begin: Option<Token>) -> Vec<Token> {
    if keep == Keep::First {
        return tokens[..length].to_vec();
    }
    let begin = begin.filter(|begin| length > 0 && tokens.first() == Some(begin));
    let last = length - usize::from(begin.is_some());
    let last = &tokens[tokens.len() - last..];
    begin.into_iter().chain(last.iter().copied()).collect()
}

/// The size of the longest prompt. Fails if a prompt is empty.
fn longest(prompts: &[Encoded], param: &str) -> Result<PromptSize, EngineError> {
    if prompts
        .iter()
        .any(|prompt| !prompt.complete && prompt.tokens.is_empty())
    {
        return Err(EngineError::Fault(
            "a text could not be tokenized".to_owned(),
        ));
    }
    let size = |prompt: &Encoded| PromptSize {
        tokens: prompt.tokens.len() as u64,
        exact: prompt.complete,
    };
    let longest = prompts.iter().map(size).max_by_key(|size| size.tokens);
    match longest {
        Some(longest) if prompts.iter().all(|prompt| !prompt.tokens.is_empty()) => Ok(longest),
        _ => {
            let message = format!("{param} must not be empty: it has no tokens");
            Err(Invalid::new(param, message).into())
        }
    }
}

/// Limits the log-probabilities of prompts: an echoed answer has those of its whole prompt, so a few bytes could ask
/// for gigabytes.
fn check_scores(request: &Request, prompts: &[Arc<[Token]>]) -> Result<(), Invalid> {
    let tokens: usize = prompts.iter().map(|prompt| prompt.len()).sum();
    let entries = |logprobs: Option<Logprobs>, times: u32| {
        let of_each = logprobs.map_or(0, |logprobs| 1 + logprobs.top());
        (tokens * of_each).saturating_mul(times as usize)
    };
    let echoed = entries(
        request.logprobs.filter(|_| request.echo),
        request.choices.get(),
    );
    let apart = entries(request.prompt_logprobs, 1);
    for (entries, param, what) in [
        (echoed, "echo", "echo with logprobs"),
        (apart, "prompt_logprobs", "prompt_logprobs"),
    ] {
        if entries > ECHOED_LOGPROBS_MAX {
            let message = format!(
                "{what} would answer {entries} log-probabilities of prompt tokens; at most \
                 {ECHOED_LOGPROBS_MAX} are allowed: use fewer prompts, choices or alternatives"
            );
            return Err(Invalid::new(param, message));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat_format::ChatTemplate;
    use crate::sim::SimTokenizer;
    use weir_engine::request::{Message, Role};

    #[test]
    fn the_first_token_is_there_once_if_the_template_writes_it() {
        let check = |source: &str, expected: Vec<Token>| {
            let template = ChatTemplate::parse(source, "<|bos|>", "<|end|>").unwrap();
            let preparer = Preparer {
                tokenizer: Arc::new(SimTokenizer),
                chat_format: Some(ChatFormat::new(template, source, &SimTokenizer)),
                constraints: Constraints::new(Arc::new(SimTokenizer)),
                context_tokens: 100,
                ends: OnceLock::new(),
                now: Arc::new(|| Timestamp::UNIX_EPOCH),
            };
            let hello = vec![Message::new(Role::User, "Hello")];
            let prepared = preparer.prepare(Request::new(Input::Chat(hello.into())));
            assert_eq!(prepared.unwrap().prompts, [expected.into()]);
        };
        let says = "{{ messages[0].content }}";
        check(says, SimTokenizer.tokenize("Hello", Bos::Omit));
        let begins = format!("{{{{ bos_token }}}}{says}");
        check(&begins, SimTokenizer.tokenize("Hello", Bos::Add));
    }
}

//! From a request to tokens: everything that only the model's tokenizer and template can judge.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::constraint::{Cancel, CompileError, Compiled, Constraints, Grammar};
use crate::dialect::{self, Dialect, Reading};
use crate::model::{Bos, Tokenizer};
use crate::request::{Invalid, OutputLimit, Overflow, Prompt};
use crate::{EngineError, Input, Prepared, Request, Token};

/// Log-probabilities of echoed prompts in one answer, alternatives included.
pub const ECHOED_LOGPROBS_MAX: usize = 1 << 18;

/// When to come back with a grammar that was given up.
const CANCELLED_RETRY: Duration = Duration::from_secs(1);

/// Knows what a model knows about text. Used from any thread.
pub(crate) struct Preparer {
    pub(crate) tokenizer: Arc<dyn Tokenizer>,
    pub(crate) dialect: Option<Dialect>,
    pub(crate) constraints: Constraints,
    pub(crate) context_tokens: u32,
    pub(crate) now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl fmt::Debug for Preparer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preparer")
            .field("context_tokens", &self.context_tokens)
            .finish_non_exhaustive()
    }
}

/// A request as tokens, and what its answer must look like.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) prepared: Prepared,
    pub(crate) grammar: Option<Grammar>,
}

/// The request, kept to what its grammar became.
pub(crate) fn kept_to(prepared: Prepared, compiled: Option<Compiled>) -> Prepared {
    match compiled {
        None => prepared,
        Some(Compiled {
            constraint,
            relaxed,
        }) => Prepared {
            constraint: Some(constraint),
            relaxed,
            ..prepared
        },
    }
}

impl Preparer {
    /// Everything but the grammar, which may take much longer.
    pub(crate) fn render(&self, request: Request) -> Result<Rendered, EngineError> {
        for &(token, _) in request.sampling.logit_bias() {
            self.check_token("logit_bias", token)?;
        }
        let (mut reading, mut shown) = (Reading::PLAIN, Vec::new());
        let grammar;
        let (prompts, param) = match &request.input {
            Input::Chat(conversation) => {
                let dialect = self.dialect()?;
                let spoken = dialect.speak(conversation, &request.format, (self.now)())?;
                (reading, shown) = (spoken.reading, spoken.shown);
                grammar = spoken.grammar;
                // The template writes the first token itself.
                let prompt = self.tokenizer.tokenize(&spoken.prompt, Bos::Omit);
                (vec![prompt.into()], "messages")
            }
            Input::Prompts(prompts) => {
                grammar = dialect::text_grammar(&request.format);
                let prompts = prompts.iter().map(|prompt| self.tokens(prompt));
                (prompts.collect::<Result<Vec<_>, _>>()?, "prompt")
            }
        };
        if prompts.iter().any(|prompt| prompt.is_empty()) || prompts.is_empty() {
            return Err(Invalid::new(
                param,
                format!("{param} must not be empty: it has no tokens"),
            )
            .into());
        }
        let output_max = self.output_max(&prompts, request.output)?;
        check_scores(&request, &prompts)?;
        Ok(Rendered {
            prepared: Prepared {
                reading,
                shown,
                ..Prepared::new(request, prompts, output_max)
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

    /// All of it at once.
    #[cfg(test)]
    pub(crate) fn prepare(&self, request: Request) -> Result<Prepared, EngineError> {
        let Rendered { prepared, grammar } = self.render(request)?;
        let compiled = grammar
            .map(|grammar| self.compile(&grammar, &Cancel::default()))
            .transpose()?;
        Ok(kept_to(prepared, compiled))
    }

    fn dialect(&self) -> Result<&Dialect, EngineError> {
        self.dialect
            .as_ref()
            .ok_or(EngineError::Unsupported { feature: "chat" })
    }

    /// Whoever carries a prepared request to the engine may have changed it.
    pub(crate) fn check(&self, prepared: &Prepared) -> Result<(), EngineError> {
        if prepared.prompts.is_empty() || prepared.prompts.iter().any(|prompt| prompt.is_empty()) {
            return Err(
                Invalid::new("prompt", "prompt must not be empty: it has no tokens").into(),
            );
        }
        let limit = OutputLimit {
            tokens: Some(prepared.output_max),
            overflow: Overflow::Refuse,
        };
        self.output_max(&prepared.prompts, limit).map(|_| ())
    }

    fn tokens(&self, prompt: &Prompt) -> Result<Arc<[Token]>, EngineError> {
        match prompt {
            Prompt::Text(text) => Ok(self.tokenizer.tokenize(text, Bos::Add).into()),
            Prompt::Tokens(tokens) => {
                tokens
                    .iter()
                    .try_for_each(|&token| self.check_token("prompt", token))?;
                Ok(tokens.as_slice().into())
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

    /// Tokens that each choice may have, so that it fits the context beside the longest prompt.
    fn output_max(&self, prompts: &[Arc<[Token]>], limit: OutputLimit) -> Result<u32, EngineError> {
        let context = self.context_tokens;
        let prompt = prompts
            .iter()
            .map(|prompt| prompt.len() as u64)
            .max()
            .unwrap_or(0);
        let too_long = EngineError::TooLong {
            context,
            prompt,
            // A limit that would be lowered anyway isn't in the way.
            requested: limit.tokens.filter(|_| limit.overflow == Overflow::Refuse),
        };
        let room = u64::from(context)
            .checked_sub(prompt)
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

/// Each answer has the log-probabilities of its whole prompt, so a few bytes could ask for gigabytes.
fn check_scores(request: &Request, prompts: &[Arc<[Token]>]) -> Result<(), Invalid> {
    let Some(logprobs) = request.logprobs.filter(|_| request.echo) else {
        return Ok(());
    };
    let tokens: usize = prompts.iter().map(|prompt| prompt.len()).sum();
    let entries = (tokens * (1 + logprobs.top())).saturating_mul(request.choices.get() as usize);
    if entries > ECHOED_LOGPROBS_MAX {
        let message = format!(
            "echo with logprobs would answer {entries} log-probabilities of prompt tokens; at most \
             {ECHOED_LOGPROBS_MAX} are allowed: use fewer prompts, choices or alternatives"
        );
        return Err(Invalid::new("echo", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::ChatTemplate;
    use crate::request::{Message, Role};
    use crate::sim::SimTokenizer;

    #[test]
    fn the_first_token_is_there_once_if_the_template_writes_it() {
        let check = |source: &str, expected: Vec<Token>| {
            let template = ChatTemplate::parse(source, "<|bos|>", "<|end|>").unwrap();
            let preparer = Preparer {
                tokenizer: Arc::new(SimTokenizer),
                dialect: Some(Dialect::new(template, source, &SimTokenizer)),
                constraints: Constraints::new(Arc::new(SimTokenizer)),
                context_tokens: 100,
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

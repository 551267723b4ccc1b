//! Log-probabilities of tokens, in the form that events have them.

use weir_engine::event::{TokenLogprob, TopLogprob};
use weir_engine::request::{Logprobs, Prompt};
use weir_engine::{Input, Token};

use crate::model::Tokenizer;
use crate::prepared::PreparedRequest;
use crate::sampler::{self, Scratch};

/// The log-probability of a token by the logits before it, with as many alternatives as are wanted.
pub(crate) fn token(
    token: Token,
    logits: &[f32],
    wanted: Logprobs,
    scratch: &mut Scratch,
    tokenizer: &dyn Tokenizer,
) -> TokenLogprob {
    let score = sampler::score(logits, token, wanted.top(), scratch);
    let top = score.top.into_iter().map(|(token, logprob)| TopLogprob {
        token,
        bytes: piece(tokenizer, token),
        logprob,
    });
    TokenLogprob {
        token,
        bytes: piece(tokenizer, token),
        logprob: Some(score.logprob),
        rank: None,
        top: top.collect(),
    }
}

/// The entry of a prompt's first token: it has no log-probability, since nothing comes before it.
pub(crate) fn first(tokens: &[Token], tokenizer: &dyn Tokenizer) -> TokenLogprob {
    TokenLogprob {
        token: tokens[0],
        bytes: piece(tokenizer, tokens[0]),
        logprob: None,
        rank: None,
        top: Vec::new(),
    }
}

/// The scores of a prompt's tokens after the first, with as many alternatives as are wanted.
pub(crate) fn cut(scores: &[TokenLogprob], wanted: Logprobs) -> Vec<TokenLogprob> {
    let cut = |score: &TokenLogprob| TokenLogprob {
        top: score.top.iter().take(wanted.top()).cloned().collect(),
        ..score.clone()
    };
    scores.iter().map(cut).collect()
}

/// The echoed prompt at the beginning of an answer.
#[derive(Debug, Default)]
pub(crate) struct Echo {
    pub(crate) text: String,
    /// The log-probabilities of the prompt's tokens; empty unless asked for.
    pub(crate) logprobs: Vec<TokenLogprob>,
}

impl Echo {
    /// `scores` are those of the prompt's tokens after the first.
    pub(crate) fn new(
        prepared: &PreparedRequest,
        prompt: usize,
        scores: &[TokenLogprob],
        tokenizer: &dyn Tokenizer,
    ) -> Self {
        let request = &prepared.request;
        if !request.echo {
            return Echo::default();
        }
        let tokens = &prepared.prompts[prompt];
        let text = match &request.input {
            Input::Prompts(prompts) => match &prompts[prompt] {
                Prompt::Text(text) => text.clone(),
                Prompt::Tokens(tokens) => text_of(tokens, tokenizer),
            },
            Input::Chat(_) => text_of(tokens, tokenizer),
        };
        let logprobs = request.logprobs.map_or_else(Vec::new, |wanted| {
            let mut logprobs = vec![first(tokens, tokenizer)];
            logprobs.extend(cut(scores, wanted));
            logprobs
        });
        Echo { text, logprobs }
    }
}

fn text_of(tokens: &[Token], tokenizer: &dyn Tokenizer) -> String {
    let mut bytes = Vec::new();
    for &token in tokens {
        tokenizer.token_bytes(token, &mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn piece(tokenizer: &dyn Tokenizer, token: Token) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokenizer.token_bytes(token, &mut bytes);
    bytes
}

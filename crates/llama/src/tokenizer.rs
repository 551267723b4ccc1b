//! Text to tokens and back, from any thread.

use std::ffi::{CStr, c_char};
use std::io;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use weir_engine::Token;
use weir_engine::model::{Bos, Tokenizer};

use crate::shim::{self, Weights, guarded};
use crate::tokenizer::long::{CUT_TOKENS, Cuts, PART_BYTES, SHORT_BYTES, anywhere, with_stack};

mod long;

/// Shares the weights with the model, whichever is dropped last.
#[derive(Debug)]
pub(crate) struct LlamaTokenizer {
    weights: Arc<Weights>,
    vocabulary: u32,
    /// The token that the model wants in front of a text, if it wants one.
    first: Option<Token>,
    cuts: Cuts,
    context_tokens: usize,
}

impl LlamaTokenizer {
    /// `context_tokens`: more tokens than that are of no use to anybody.
    pub(crate) fn new(weights: Arc<Weights>, vocabulary: u32, context_tokens: u32) -> Self {
        let vocab = weights.vocab();
        // SAFETY: `weights` keeps the vocabulary alive.
        let wants_first = unsafe { sys::llama_vocab_get_add_bos(vocab) };
        // SAFETY: as above.
        let bos = unsafe { sys::llama_vocab_bos(vocab) };
        LlamaTokenizer {
            vocabulary,
            first: Token::try_from(bos).ok().filter(|_| wants_first),
            cuts: Cuts::new(&weights, vocabulary),
            context_tokens: context_tokens as usize,
            weights,
        }
    }

    /// The texts of the tokens that begin and end a sequence; empty if the model has none.
    pub(crate) fn special_texts(&self) -> (String, String) {
        let vocab = self.weights.vocab();
        // SAFETY: `weights` keeps the vocabulary alive.
        let bos = unsafe { sys::llama_vocab_bos(vocab) };
        // SAFETY: as above.
        let eos = unsafe { sys::llama_vocab_eos(vocab) };
        (self.text(bos), self.text(eos))
    }

    fn text(&self, token: sys::llama_token) -> String {
        if !Token::try_from(token).is_ok_and(|token| self.contains(token)) {
            return String::new();
        }
        // SAFETY: `weights` keeps the vocabulary alive, and the token is one of its.
        let text = unsafe { sys::llama_vocab_get_text(self.weights.vocab(), token) };
        // SAFETY: the text belongs to the vocabulary, ends with NUL and doesn't change.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    }

    fn contains(&self, token: Token) -> bool {
        token < self.vocabulary
    }

    /// The text's tokens. Of a text that can't fit the context they are nearly the right ones, up to twice as many
    /// as fit.
    fn tokens(&self, text: &str) -> Result<Vec<Token>, Failure> {
        if text.len() <= SHORT_BYTES {
            return self.tokens_of(text);
        }
        let parts = self.cuts.parts(text);
        if text.len() > PART_BYTES {
            let smaller: Vec<&str> = parts.iter().copied().flat_map(anywhere).collect();
            let fit = self.context_tokens + smaller.len() * CUT_TOKENS;
            let nearly = self.tokens_of_parts(&smaller, 2 * fit)?;
            if nearly.len() > fit {
                return Ok(nearly);
            }
        }
        self.tokens_of_parts(&parts, usize::MAX)
    }

    /// Tokens of the parts, one after the other, until there are more than `enough`.
    fn tokens_of_parts(&self, parts: &[&str], enough: usize) -> Result<Vec<Token>, Failure> {
        let longest = parts.iter().map(|part| part.len()).max().unwrap_or(0);
        with_stack(longest, || {
            let mut tokens = Vec::new();
            for part in parts {
                tokens.extend(self.tokens_of(part)?);
                if tokens.len() > enough {
                    break;
                }
            }
            Ok(tokens)
        })?
    }

    fn tokens_of(&self, text: &str) -> Result<Vec<Token>, Failure> {
        // Tokens are rarely more than bytes; if they are, the first call says how many there are.
        let mut tokens: Vec<sys::llama_token> = vec![0; text.len() + 16];
        let mut count = self.tokenize_into(text, &mut tokens)?;
        if count < 0 {
            tokens.resize(count.unsigned_abs() as usize, 0);
            count = self.tokenize_into(text, &mut tokens)?;
        }
        tokens.truncate(usize::try_from(count).unwrap_or(0));
        Ok(tokens.into_iter().map(i32::cast_unsigned).collect())
    }

    /// The number of tokens, negative when they don't fit.
    fn tokenize_into(&self, text: &str, tokens: &mut [sys::llama_token]) -> Result<i32, Failure> {
        let mut count = 0;
        let text_size = i32::try_from(text.len()).map_err(|_| Failure::TooLong)?;
        let tokens_size = i32::try_from(tokens.len()).unwrap_or(i32::MAX);
        let (text, tokens) = (text.as_ptr().cast::<c_char>(), tokens.as_mut_ptr());
        guarded(|what, size| {
            // SAFETY: the vocabulary is alive, both slices are as long as said, and the tokenizer is thread-safe.
            unsafe {
                let vocab = self.weights.vocab();
                shim::weir_tokenize(
                    vocab,
                    text,
                    text_size,
                    tokens,
                    tokens_size,
                    &raw mut count,
                    what,
                    size,
                )
            }
        })?;
        Ok(count)
    }

    /// The number of bytes, negative when they don't fit.
    fn piece_into(&self, token: Token, bytes: &mut [u8]) -> Result<i32, shim::Threw> {
        let mut count = 0;
        let bytes_size = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        let bytes = bytes.as_mut_ptr().cast::<c_char>();
        guarded(|what, size| {
            // SAFETY: the vocabulary is alive, the token one of its, and the slice as long as said.
            unsafe {
                let vocab = self.weights.vocab();
                shim::weir_piece(
                    vocab,
                    token.cast_signed(),
                    bytes,
                    bytes_size,
                    &raw mut count,
                    what,
                    size,
                )
            }
        })?;
        Ok(count)
    }
}

impl Tokenizer for LlamaTokenizer {
    fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    fn tokenize(&self, text: &str, bos: Bos) -> Vec<Token> {
        let mut tokens = self.tokens(text).unwrap_or_else(|error| {
            tracing::error!(%error, bytes = text.len(), "a text could not be tokenized");
            Vec::new()
        });
        if let (Bos::Add, Some(first)) = (bos, self.first)
            && tokens.first() != Some(&first)
        {
            tokens.insert(0, first);
        }
        tokens
    }

    fn piece(&self, token: Token, bytes: &mut Vec<u8>) {
        if !self.contains(token) || self.is_end(token) {
            return;
        }
        let mut piece = [0u8; 128];
        match self.piece_into(token, &mut piece) {
            Ok(count @ 0..) => bytes.extend_from_slice(&piece[..count.unsigned_abs() as usize]),
            Ok(count) => {
                let mut piece = vec![0; count.unsigned_abs() as usize];
                if let Ok(count @ 0..) = self.piece_into(token, &mut piece) {
                    bytes.extend_from_slice(&piece[..count.unsigned_abs() as usize]);
                }
            }
            Err(error) => tracing::error!(%error, token, "a token has no text"),
        }
    }

    fn is_end(&self, token: Token) -> bool {
        // SAFETY: `weights` keeps the vocabulary alive, and the token is one of its.
        self.contains(token)
            && unsafe { sys::llama_vocab_is_eog(self.weights.vocab(), token.cast_signed()) }
    }
}

/// Why a text has no tokens: most often there is no memory.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Threw(#[from] shim::Threw),
    #[error("no thread to tokenize on: {0}")]
    Thread(#[from] io::Error),
    #[error("it has more bytes than llama.cpp can count")]
    TooLong,
}

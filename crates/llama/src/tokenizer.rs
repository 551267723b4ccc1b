//! Converts texts to tokens and back, from any thread.

use std::ffi::{CStr, c_char};
use std::io;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use weir_engine::Token;
use weir_inference::model::{Bos, Encoded, Tokenizer};
use weir_inference::specials::{Fragment, Names, Special, SpecialKind, Specials};

use crate::shim::{self, Weights, guarded};
use crate::tokenizer::long::{COUNTED_BYTES, CUT_TOKENS, PART_BYTES, with_stack};

mod long;
#[cfg(test)]
mod tests;

/// Put before a text that continues another one, since some tokenizers add a space in front of each text they are given.
const LEAD: &str = "\n";

/// The tokenizer of a model, whose weights it keeps alive.
#[derive(Debug)]
pub(crate) struct LlamaTokenizer {
    weights: Arc<Weights>,
    vocabulary: u32,
    /// The token that the model expects before a text, if any.
    first: Option<Token>,
    specials: Specials,
    /// The tokens of [`LEAD`].
    lead: Vec<Token>,
    context_tokens: usize,
}

/// Whether a text is the beginning, or continues another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    Text,
    Rest,
}

/// The fragments of a text with their tokens, up to where counting stopped.
#[derive(Debug)]
struct Counted {
    fragments: Vec<(Fragment, Vec<Token>)>,
    tokens: usize,
    bytes: usize,
    /// Bytes of the largest fragment.
    bytes_max: usize,
    complete: bool,
}

impl Counted {
    fn push(&mut self, fragment: Fragment, tokens: Vec<Token>) {
        let bytes = match &fragment {
            Fragment::Special(_) => 0,
            Fragment::Text(range) | Fragment::Rest(range) => range.len(),
        };
        self.bytes += bytes;
        self.bytes_max = self.bytes_max.max(bytes);
        self.tokens += tokens.len();
        self.fragments.push((fragment, tokens));
    }
}

impl From<Counted> for Encoded {
    fn from(counted: Counted) -> Self {
        let tokens = counted.fragments.into_iter().flat_map(|(_, tokens)| tokens);
        Encoded {
            tokens: tokens.collect(),
            complete: counted.complete,
        }
    }
}

impl LlamaTokenizer {
    /// `context_tokens` is the model's context: texts beyond it may be counted in parts.
    pub(crate) fn new(weights: Arc<Weights>, vocabulary: u32, context_tokens: u32) -> Self {
        let vocab = weights.vocab();
        // SAFETY: `weights` keeps the vocabulary alive.
        let wants_first = unsafe { sys::llama_vocab_get_add_bos(vocab) };
        // SAFETY: as above.
        let bos = unsafe { sys::llama_vocab_bos(vocab) };
        let mut tokenizer = LlamaTokenizer {
            vocabulary,
            first: Token::try_from(bos).ok().filter(|_| wants_first),
            specials: specials(&weights, vocabulary),
            lead: Vec::new(),
            context_tokens: context_tokens as usize,
            weights,
        };
        tokenizer.lead = tokenizer.tokens_of_text(LEAD).unwrap_or_default();
        tokenizer
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The texts of the model's begin and end tokens; empty if it has none.
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

    /// All tokens of the text, or only the first ones if the text doesn't fit the context and counting the rest would take too long.
    fn encoded(&self, text: &str, names: Names<'_>) -> Result<Encoded, Failure> {
        let fragments = self.specials.fragments(text, names);
        let longest = fragments.iter().map(|fragment| match fragment {
            Fragment::Special(_) => 0,
            Fragment::Text(range) | Fragment::Rest(range) => range.len().min(2 * PART_BYTES),
        });
        let longest = longest.max().unwrap_or(0);
        let counted = with_stack(longest, || self.count(text, fragments))??;
        if counted.tokens > self.context_tokens || counted.bytes_max <= PART_BYTES {
            return Ok(counted.into());
        }
        // A text that fits gets exactly the tokens that llama.cpp gives to it as a whole.
        with_stack(counted.bytes_max, || self.whole(text, counted))?
    }

    /// The tokens of each fragment. Long texts are tokenized in parts, cut at seams.
    fn count(&self, text: &str, fragments: Vec<Fragment>) -> Result<Counted, Failure> {
        let mut counted = Counted {
            fragments: Vec::with_capacity(fragments.len()),
            tokens: 0,
            bytes: 0,
            bytes_max: 0,
            complete: true,
        };
        let all = fragments.len();
        for fragment in fragments {
            let tokens = match &fragment {
                Fragment::Special(token) => vec![*token],
                Fragment::Text(range) if range.len() > PART_BYTES => {
                    self.count_long(&text[range.clone()], Begin::Text, &mut counted)?
                }
                Fragment::Rest(range) if range.len() > PART_BYTES => {
                    self.count_long(&text[range.clone()], Begin::Rest, &mut counted)?
                }
                Fragment::Text(range) => self.tokens_of(&text[range.clone()], Begin::Text)?,
                Fragment::Rest(range) => self.tokens_of(&text[range.clone()], Begin::Rest)?,
            };
            counted.push(fragment, tokens);
            if counted.bytes > COUNTED_BYTES && counted.tokens > self.context_tokens {
                counted.complete &= counted.fragments.len() == all;
                break;
            }
        }
        Ok(counted)
    }

    /// The tokens of a long text. `counted.complete` becomes false, and tokens may be missing at the end, if the text was cut
    /// where there is no seam, or wasn't read to its end.
    fn count_long(
        &self,
        text: &str,
        begin: Begin,
        counted: &mut Counted,
    ) -> Result<Vec<Token>, Failure> {
        let is_seam = |window: &str, place: usize| {
            let (left, right) = window.split_at(place);
            let mut halves = self.tokens_of(left, Begin::Text)?;
            halves.extend(self.tokens_of(right, Begin::Rest)?);
            Ok(self.tokens_of(window, Begin::Text)? == halves)
        };
        let (mut tokens, mut bytes, mut cuts) = (Vec::new(), 0, 0);
        long::parts(text, is_seam, |part| {
            let begin = if part.range.start == 0 {
                begin
            } else {
                Begin::Rest
            };
            bytes += part.range.len();
            cuts += usize::from(!part.at_seam);
            tokens.extend(self.tokens_of(&text[part.range], begin)?);
            let fits = counted.tokens + tokens.len() <= self.context_tokens;
            Ok::<_, Failure>(fits || counted.bytes + bytes <= COUNTED_BYTES)
        })?;
        if bytes < text.len() || cuts > 0 {
            counted.complete = false;
            tokens.truncate(tokens.len().saturating_sub(cuts * CUT_TOKENS));
        }
        Ok(tokens)
    }

    /// The tokens of all fragments, with long texts tokenized as a whole.
    fn whole(&self, text: &str, counted: Counted) -> Result<Encoded, Failure> {
        let mut tokens = Vec::with_capacity(counted.tokens);
        for (fragment, counted) in counted.fragments {
            match fragment {
                Fragment::Text(range) if range.len() > PART_BYTES => {
                    tokens.extend(self.tokens_of(&text[range], Begin::Text)?);
                }
                Fragment::Rest(range) if range.len() > PART_BYTES => {
                    tokens.extend(self.tokens_of(&text[range], Begin::Rest)?);
                }
                Fragment::Special(_) | Fragment::Text(_) | Fragment::Rest(_) => {
                    tokens.extend(counted);
                }
            }
        }
        Ok(Encoded {
            tokens,
            complete: true,
        })
    }

    fn tokens_of(&self, text: &str, begin: Begin) -> Result<Vec<Token>, Failure> {
        if begin == Begin::Text {
            return self.tokens_of_text(text);
        }
        let mut tokens = self.tokens_of_text(&format!("{LEAD}{text}"))?;
        if tokens.starts_with(&self.lead) {
            return Ok(tokens.split_off(self.lead.len()));
        }
        self.tokens_of_text(text)
    }

    /// Tokens of a text in which control tokens aren't looked for by name. llama.cpp always looks for user-defined tokens; where
    /// their names are to be text, `Specials::fragments` has cut the text inside the name.
    fn tokens_of_text(&self, text: &str) -> Result<Vec<Token>, Failure> {
        self.tokens_by(text, false)
    }

    /// llama.cpp's own tokens of a text; with `parse_special` it finds control tokens by name.
    fn tokens_by(&self, text: &str, parse_special: bool) -> Result<Vec<Token>, Failure> {
        // A text rarely has more tokens than bytes; if it has, the first call returns their number.
        let mut tokens: Vec<sys::llama_token> = vec![0; text.len() + 16];
        let mut count = self.tokenize_into(text, parse_special, &mut tokens)?;
        if count < 0 {
            tokens.resize(count.unsigned_abs() as usize, 0);
            count = self.tokenize_into(text, parse_special, &mut tokens)?;
        }
        tokens.truncate(usize::try_from(count).unwrap_or(0));
        Ok(tokens.into_iter().map(i32::cast_unsigned).collect())
    }

    /// Returns the number of tokens, negated if they don't fit.
    fn tokenize_into(
        &self,
        text: &str,
        parse_special: bool,
        tokens: &mut [sys::llama_token],
    ) -> Result<i32, Failure> {
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
                    parse_special,
                    &raw mut count,
                    what,
                    size,
                )
            }
        })?;
        Ok(count)
    }

    /// Returns the number of bytes, negated if they don't fit.
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

    fn specials(&self) -> &Specials {
        &self.specials
    }

    fn encode(&self, text: &str, names: Names<'_>, bos: Bos) -> Encoded {
        let mut encoded = self.encoded(text, names).unwrap_or_else(|error| {
            tracing::error!(%error, bytes = text.len(), "a text could not be tokenized");
            Encoded::default()
        });
        if let (Bos::Add, Some(first)) = (bos, self.first)
            && encoded.tokens.first() != Some(&first)
        {
            encoded.tokens.insert(0, first);
        }
        encoded
    }

    fn token_bytes(&self, token: Token, bytes: &mut Vec<u8>) {
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

/// The tokens that llama.cpp finds in texts by their names.
fn specials(weights: &Weights, vocabulary: u32) -> Specials {
    const CONTROL: sys::llama_token_attr =
        sys::LLAMA_TOKEN_ATTR_CONTROL | sys::LLAMA_TOKEN_ATTR_UNKNOWN;
    let vocab = weights.vocab();
    let special = |token: Token| {
        // SAFETY: `weights` keeps the vocabulary alive, and the token is one of its.
        let attributes = unsafe { sys::llama_vocab_get_attr(vocab, token.cast_signed()) };
        let has = |attribute| attributes & attribute != 0;
        let kind = if has(CONTROL) {
            SpecialKind::Control
        } else if has(sys::LLAMA_TOKEN_ATTR_USER_DEFINED) {
            SpecialKind::Word
        } else {
            return None;
        };
        // SAFETY: as above.
        let name = unsafe { sys::llama_vocab_get_text(vocab, token.cast_signed()) };
        // SAFETY: the text belongs to the vocabulary, ends with NUL and doesn't change.
        let name = unsafe { CStr::from_ptr(name) };
        Some(Special {
            token,
            name: name.to_str().ok()?.to_owned(),
            kind,
            strips_left: has(sys::LLAMA_TOKEN_ATTR_LSTRIP),
            strips_right: has(sys::LLAMA_TOKEN_ATTR_RSTRIP),
        })
    };
    Specials::new((0..vocabulary).filter_map(special))
}

/// Why a text couldn't be tokenized, most often for lack of memory.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Threw(#[from] shim::Threw),
    #[error("no thread to tokenize on: {0}")]
    Thread(#[from] io::Error),
    #[error("it has more bytes than llama.cpp can count")]
    TooLong,
}

//! Does everything once that a served model does: each part may reach data in the file that loading didn't read.

use std::sync::Arc;

use weir_engine::Token;
use weir_inference::model::{BatchToken, Bos, DecodeError, Embedder, Model, SequenceId, Tokenizer};

use crate::load::Served;

/// Several scripts, characters of one to four bytes, numbers, code, white space, control characters, names of special tokens.
const TEXT: &str = "The weir holds 1,234.5 litres; it's “fine”.\n\tfn f(x: &[u8]) -> bool { x[0] != 0x7f }\r\n\
    Größe straße ÿ Ωμέγα жук שלום مرحبا नमस्ते สวัสดี 你好，世界 こんにちは 한국어 👩‍👩‍👧 🇩🇪 \u{0}\u{4}\u{1b}\u{fffd}\u{10ffff} <|im_start|> </s>";
/// The length of the computed prompt, in tokens.
const PROMPT_TOKENS: usize = 8;

pub(super) fn exercise(served: Served) -> Result<(), String> {
    let Served { embedder, model } = served;
    if let Some(embedder) = embedder {
        embed(embedder)?;
    }
    model.map_or(Ok(()), generate)
}

fn generate(mut model: impl Model) -> Result<(), String> {
    let tokenizer = model.tokenizer();
    let tokens = tokens(&*tokenizer)?;
    // Some vocabularies have no token for any of the text: then token 0 is computed.
    let prompt: Vec<Token> = tokens.into_iter().chain([0]).take(PROMPT_TOKENS).collect();
    let capacity = model.capacity();
    let chunk = capacity.rows.min(model.facts().context_tokens) as usize;
    let row = |(position, &token): (u32, &Token)| BatchToken {
        token,
        position,
        sequence: SequenceId(0),
        output: position as usize + 1 == prompt.len(),
    };
    let rows: Vec<BatchToken> = (0..).zip(&prompt).map(row).collect();
    for step in rows.chunks(chunk.max(1)) {
        model.decode(step).map_err(said)?;
    }
    let last = rows
        .chunks(chunk.max(1))
        .last()
        .map_or(0, <[BatchToken]>::len);
    let logits = model.logits(last - 1);
    if logits.iter().any(|logit| logit.is_nan()) {
        return Err("what it computes is not a number: its weights are damaged".to_owned());
    }
    model.forget(SequenceId(0));
    Ok(())
}

fn embed(mut embedder: impl Embedder) -> Result<(), String> {
    let tokens = tokens(&*embedder.tokenizer())?;
    let most = embedder.facts().input_tokens_max as usize;
    let input: Arc<[Token]> = tokens
        .into_iter()
        .chain([0])
        .take(PROMPT_TOKENS.min(most))
        .collect();
    let vectors = embedder.embed(&[input]).map_err(said)?;
    if vectors.iter().flatten().any(|number| number.is_nan()) {
        return Err("its vectors are not numbers: its weights are damaged".to_owned());
    }
    Ok(())
}

/// Converts all tokens to bytes, and returns the tokens of [`TEXT`].
fn tokens(tokenizer: &dyn Tokenizer) -> Result<Vec<Token>, String> {
    let vocabulary = tokenizer.vocabulary();
    let mut bytes = Vec::new();
    for token in 0..vocabulary {
        bytes.clear();
        tokenizer.token_bytes(token, &mut bytes);
        tokenizer.is_end(token);
    }
    let tokens = tokenizer.tokenize(TEXT, Bos::Add);
    match tokens.iter().find(|&&token| token >= vocabulary) {
        Some(token) => Err(format!(
            "its tokenizer gives token {token}, and its vocabulary has {vocabulary}"
        )),
        None => Ok(tokens),
    }
}

fn said(error: DecodeError) -> String {
    error.to_string()
}

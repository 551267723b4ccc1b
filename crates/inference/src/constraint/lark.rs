//! Callers' grammars in llguidance's variant of Lark, with limits that bound the recursion of its compiler.

/// Limit on the bytes of a caller's grammar.
pub const LARK_BYTES_MAX: usize = 32 * 1024;
/// Limit on the rules plus brackets of a grammar. llguidance's compiler recurses at most as deep.
const LARK_DEPTH_MAX: usize = 600;
/// llguidance's extensions of Lark that callers may not use: tokens by id, nested grammars, options of the engine.
const RESERVED: [&str; 6] = ["%json", "%lark", "%regex", "%llguidance", "%if", "::"];

/// Returns the grammar if it may be passed to llguidance; the error is a message for callers.
pub(super) fn checked(text: &str) -> Result<String, &'static str> {
    if text.len() > LARK_BYTES_MAX {
        return Err("a grammar may have at most 32768 bytes");
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    let mut quote = None;
    // Strings, regular expressions and comments are skipped: a reserved word in them is only text.
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(_), '\\') => drop(chars.next()),
            (Some(open), c) if c == open => quote = None,
            (Some(_), '\n') => quote = None,
            (Some(_), _) => {}
            (None, '"' | '/') if c == '"' || chars.peek() != Some(&'/') => quote = Some(c),
            (None, '/') => while chars.next_if(|&c| c != '\n').is_some() {},
            (None, '#') => while chars.next_if(|&c| c != '\n').is_some() {},
            (None, c) => plain.push(c),
        }
    }
    if RESERVED.iter().any(|word| plain.contains(word)) || plain.contains(['<', '@', '&']) {
        return Err(
            "it uses an extension of Lark that isn't available: tokens, nested grammars, parameters or options",
        );
    }
    let rules = plain.matches(':').count();
    let brackets = plain.matches(['(', '[']).count();
    if rules + brackets > LARK_DEPTH_MAX {
        return Err("it has too many rules and brackets");
    }
    // Attributes of rules, such as `name[lazy]:` and `name[max_tokens=3]:`, stand before a colon.
    let has_attributes = plain
        .split(':')
        .any(|before| before.trim_end().ends_with(']') && before.contains('['));
    if has_attributes {
        return Err("attributes of rules aren't available");
    }
    Ok(text.to_owned())
}

/// Turns llguidance's error into a message for callers. The error's own text is used only if it is about the grammar's
/// text.
pub(super) fn reason(line: &str) -> String {
    let is_about_text = !line.starts_with("panic") && !line.contains("fuel");
    match is_about_text {
        true => format!(
            "it is no grammar in Lark's notation: {}",
            line.split("\n").next().unwrap_or_default()
        ),
        false => "it is too complex to be enforced".to_owned(),
    }
}

//! Explains common slips in TOML: the parser says what it expected, an operator wants to know what to write.

use std::ops::Range;

/// An explanation of the parser's error at `span`.
pub(super) fn explain(text: &str, span: &Range<usize>, message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    if message == "duplicate key" {
        let name = text.get(span.clone()).unwrap_or_default();
        return format!("`{name}` is written a second time");
    }
    match hint(line_at(text, span.start)) {
        Some(hint) => format!("{hint} ({message})"),
        None => message,
    }
}

/// The line that contains the byte at `offset`, without its comment and the spaces around it.
fn line_at(text: &str, offset: usize) -> &str {
    let start = text[..offset.min(text.len())]
        .rfind('\n')
        .map_or(0, |end| end + 1);
    text[start..].lines().next().unwrap_or_default().trim()
}

fn hint(line: &str) -> Option<&'static str> {
    if line.starts_with("//") || line.starts_with(';') || line.starts_with("--") {
        return Some("a comment begins with #");
    }
    if line.starts_with('{') {
        return Some("the config is TOML, not JSON: write key = value, each on a line of its own");
    }
    if line.starts_with('[') {
        return None;
    }
    let (key, value) = match line.split_once('=') {
        Some((key, value)) => (key.trim(), value.trim()),
        None if line.contains(':') => ("", ""),
        None => return Some("a key and its value are written with =: key = value"),
    };
    if key.starts_with("export ") {
        return Some("write key = value, without export");
    }
    if key.is_empty() || key.contains(':') {
        return Some("a key and its value are written with =, not with :");
    }
    value_hint(value)
}

fn value_hint(value: &str) -> Option<&'static str> {
    let word = value.trim_end_matches(',').to_ascii_lowercase();
    if value.is_empty() {
        return Some("the value is missing");
    }
    if value.starts_with(['“', '”', '„', '‘', '’']) {
        return Some("quotes are straight in TOML: \" or '");
    }
    if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let closing = value[1..].rfind(quote).map(|at| &value[at + 2..]);
        return match closing {
            None => Some("the closing quote is missing"),
            Some(",") => Some("a line doesn't end with a comma"),
            Some(_) if quote == '"' && value.contains('\\') => {
                Some("a backslash in \"…\" begins an escape: write '…', or \\\\")
            }
            Some(_) => None,
        };
    }
    if matches!(&*word, "true" | "false" | "yes" | "no" | "on" | "off") {
        return Some("write true or false, in lower case and without quotes");
    }
    if matches!(&*word, "null" | "nil" | "none") {
        return Some("there is no null: leave the key out");
    }
    if value.starts_with(['[', '{']) {
        return None;
    }
    let digits = word.replace([',', '_', '.', '\''], "");
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && value.matches('.').count() < 2 {
        return Some("write a number as 10000 or 10_000, without commas and leading zeros");
    }
    Some("text is written in quotes: key = \"value\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_explained() {
        let check = |line: &str, said: &str| {
            let text = format!("# A comment\n{line}\n");
            let error = toml::de::DeTable::parse(&text).unwrap_err();
            let explained = explain(&text, &error.span().unwrap(), error.message());
            assert!(explained.contains(said), "{line}: {explained}");
        };
        check("listen = 127.0.0.1:8080", "text is written in quotes");
        check("data = /var/lib/weir", "text is written in quotes");
        check("data = $HOME", "text is written in quotes");
        check("listen: \"127.0.0.1:8080\"", "with =, not with :");
        check("url: \"https://a/?b=c\"", "with =, not with :");
        check("data \"d\"", "key = value");
        check("data", "key = value");
        check("data =", "the value is missing");
        check("data = \"d", "the closing quote is missing");
        check("data = 'd\"", "the closing quote is missing");
        check("data = \"d\",", "doesn't end with a comma");
        check("data = \"C:\\models\"", "begins an escape");
        check("data = “d”", "quotes are straight");
        check("demo = True", "true or false");
        check("demo = yes", "true or false");
        check("data = null", "leave the key out");
        check("number = 10,000", "10_000");
        check("number = 007", "leading zeros");
        check("// a comment", "begins with #");
        check("; a comment", "begins with #");
        check("export data=\"d\"", "without export");
        check("{\"data\": \"d\"}", "not JSON");
        check("[limits", "unclosed table");
        check("[[models]", "unclosed array table");
        check(
            "data = \"a\"\ndata = \"b\"",
            "`data` is written a second time",
        );
        check("[a]\n[a]", "is written a second time");
    }
}

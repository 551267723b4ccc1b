//! CSV (RFC 4180) whose fields spreadsheets always take for data, never for formulas.

use serde_json::Value;

/// The line of column names.
pub(super) fn head(names: &[String]) -> String {
    let mut text = String::new();
    line(&mut text, names.iter().map(|name| field(name)));
    text
}

/// A line for each object.
pub(super) fn lines(objects: &[Value]) -> String {
    let mut text = String::new();
    for object in objects.iter().filter_map(Value::as_object) {
        let values = object.values().map(|value| match value {
            Value::String(text) => field(text),
            Value::Null => String::new(),
            value => value.to_string(),
        });
        line(&mut text, values);
    }
    text
}

fn line(text: &mut String, fields: impl Iterator<Item = String>) {
    for (nth, field) in fields.enumerate() {
        if nth > 0 {
            text.push(',');
        }
        text.push_str(&field);
    }
    text.push_str("\r\n");
}

/// A field with a formula's first character gets an apostrophe in front, and one with a special character gets quotes.
fn field(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let text = if formula {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if !text.contains(['"', ',', '\r', '\n', '\t']) {
        return text;
    }
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_data() {
        let check = |text: &str, written: &str| assert_eq!(field(text), written, "{text:?}");
        check("org/model", "org/model");
        check("", "");
        check("=1+1", "'=1+1");
        check("@SUM(A1)", "'@SUM(A1)");
        check("+1", "'+1");
        check("-1", "'-1");
        check("\t=1", "\"'\t=1\"");
        check("\r=1", "\"'\r=1\"");
        check("\n=1", "\"'\n=1\"");
        check(
            "=HYPERLINK(\"x\",\"y\")",
            "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"",
        );
        check("a,b", "\"a,b\"");
        check("a\"b", "\"a\"\"b\"");
        check("a-b=c", "a-b=c");
    }

    #[test]
    fn lines_have_as_many_fields_as_the_head() {
        assert_eq!(head(&["".to_owned(), "a".to_owned()]), ",a\r\n");
        let objects = [json!({"": "", "a": 1}), json!({"": null, "a": "x"})];
        assert_eq!(lines(&objects), ",1\r\n,x\r\n");
        assert_eq!(lines(&[]), "");
    }
}

//! Callers' regular expressions, choices and grammars.

use super::*;

#[test]
fn expressions_choices_and_grammars() {
    let check = |part: Part, inside: &[&str], outside: &[&str]| {
        let compiled = compile(&Grammar(part));
        for text in inside {
            assert!(
                matches!(&*walk(&compiled, text), "ends" | "may end"),
                "{text}"
            );
        }
        for text in outside {
            assert!(
                !matches!(&*walk(&compiled, text), "ends" | "may end"),
                "{text}"
            );
        }
    };
    let param = "structured_outputs.grammar";
    check(
        Part::Pattern(r"\d{3}-[a-z]+".into(), param),
        &["123-ab"],
        &["12-ab", "123-", "x123-a"],
    );
    check(
        Part::OneOf(vec![Part::literal("yes"), Part::literal("no way")]),
        &["yes", "no way"],
        &["no", "maybe"],
    );
    let ebnf = r#"
        # A sum of numbers.
        root ::= sum
        sum ::= number (" + " number)*
          | "nothing"
        number ::= [1-9] [0-9]{0,2} | "0" # no more than three digits
    "#;
    check(
        Part::Grammar(ebnf.into(), param),
        &["1 + 20 + 300", "0", "nothing"],
        &["01", "1+2", "1000", ""],
    );
    let json = r#"root ::= "{" ("\"" [^"\n]+ "\":" ("true" | "null"))? "}""#;
    check(
        Part::Grammar(json.into(), param),
        &["{}", r#"{"a":true}"#],
        &[r#"{"":true}"#],
    );
    let lark = "start: \"a\" NUMBER | \"b\"\nNUMBER: /[0-9]+/\n";
    check(
        Part::Grammar(lark.into(), param),
        &["a12", "b"],
        &["a", "12"],
    );
    let refused = |part: Part, expected: &str| {
        let error = constraints()
            .compile(&Grammar(part), &Cancel::default())
            .unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().len() < 2 * compile::REASON_CHARS_MAX);
    };
    for malformed in ["(", "a)", "[a", "*", "a{2,1}", "a\\"] {
        refused(
            Part::Pattern(malformed.into(), param),
            "no regular expression",
        );
    }
    refused(Part::Pattern(r"a[^\s\S]".into(), param), "no text matches");
    refused(Part::Pattern(r"(a)\1".into(), param), "can't be enforced");
    refused(Part::Grammar("root ::= other".into(), param), "not defined");
    refused(
        Part::Grammar("a ::= \"x\"".into(), param),
        "no rule named root",
    );
    refused(
        Part::Grammar("root ::= root \"x\"".into(), param),
        "nothing satisfies it",
    );
    refused(
        Part::Grammar("root ::= (\"x\"".into(), param),
        "isn't closed",
    );
    refused(
        Part::Grammar("root ::= \"x\" \n root ::= \"y\"".into(), param),
        "defined twice",
    );
    refused(
        Part::Grammar(("root ::= ".to_owned() + &"(".repeat(200)).into(), param),
        "too many brackets",
    );
    refused(
        Part::Grammar(
            ("root ::= \"".to_owned() + &"x".repeat(EBNF_BYTES_MAX)).into(),
            param,
        ),
        "bytes",
    );
    refused(
        Part::Grammar("start: <[3]>".into(), param),
        "extension of Lark",
    );
    refused(
        Part::Grammar("start: %json {}".into(), param),
        "extension of Lark",
    );
    refused(Part::Grammar("start: (".into(), param), "no grammar");
    let brackets = format!("start: {}\"a\"{}", "(".repeat(2_000), ")".repeat(2_000));
    refused(Part::Grammar(brackets.into(), param), "too many rules");
    let chain: String = (0..2_000).map(|i| format!("a{i}: a{}\n", i + 1)).collect();
    refused(
        Part::Grammar(format!("start: a0\n{chain}a2000: \"x\"\n").into(), param),
        "too many rules",
    );
}

use std::collections::BTreeSet;

use super::*;

const DOCS: &str = include_str!("../../../../../docs/api.md");
const BEGIN: &str = "<!-- refused parameters: a test of weir-server prints them -->\n";
const END: &str = "<!-- end of refused parameters -->\n";

/// The tables in the form of docs/api.md: the parameter to send instead, and the refused ones with their values without
/// effect.
fn listed() -> String {
    let rows = |endpoint: &str, tables: &[&[Foreign]]| {
        let mut by_instead: Vec<(&str, Vec<String>)> = Vec::new();
        for row in tables.iter().copied().flatten() {
            let place = by_instead
                .iter()
                .position(|(instead, _)| *instead == row.instead);
            let place = place.unwrap_or_else(|| {
                by_instead.push((row.instead, Vec::new()));
                by_instead.len() - 1
            });
            by_instead[place].1.push(shown(row));
        }
        let line = |(instead, names): (&str, Vec<String>)| {
            format!("| {endpoint} | {} | {instead} |\n", names.join(", "))
        };
        by_instead.into_iter().map(line).collect::<String>()
    };
    format!(
        "{BEGIN}\n| endpoint | parameter (changes nothing) | instead |\n|---|---|---|\n{}{}{}\n{END}",
        rows("both", &[EVERYWHERE, structured::EVERYWHERE]),
        rows("chat", &[CHAT]),
        rows("completions", &[COMPLETIONS])
    )
}

fn shown(row: &Foreign) -> String {
    let neutral = row.neutral.iter().map(|plain| match plain {
        Plain::Bool(value) => value.to_string(),
        Plain::Number(value) => value.to_string(),
        Plain::Text("") => "\"\"".to_owned(),
        Plain::Text(text) => format!("\"{text}\""),
        Plain::Empty => "[]".to_owned(),
    });
    let neutral: Vec<String> = neutral.collect();
    format!("`{}` ({})", row.name, neutral.join(", "))
}

#[test]
fn the_docs_list_what_is_refused() {
    let begin = DOCS.find(BEGIN).expect("the list has a beginning");
    let end = DOCS.find(END).expect("the list has an end") + END.len();
    let listed = listed();
    let is_listed = DOCS[begin..end] == listed;
    assert!(is_listed, "docs/api.md has to have this list:\n{listed}");
}

#[test]
fn each_is_listed_once() {
    let mut names = BTreeSet::new();
    for row in [EVERYWHERE, structured::EVERYWHERE, CHAT, COMPLETIONS].concat() {
        assert!(names.insert(row.name), "{}", row.name);
    }
}

#[test]
fn values_that_change_nothing_pass() {
    for row in [EVERYWHERE, structured::EVERYWHERE, CHAT, COMPLETIONS].concat() {
        assert!(!row.changes(&Outline::Null), "{}", row.name);
        assert!(row.changes(&Outline::Filled), "{}", row.name);
        assert!(row.changes(&Outline::Number(7.5)), "{}", row.name);
        assert!(row.changes(&Outline::Text(None)), "{}", row.name);
        for plain in row.neutral {
            let value = match *plain {
                Plain::Bool(value) => Outline::Bool(value),
                Plain::Number(value) => Outline::Number(value),
                Plain::Text(text) => Outline::Text(Some(text.to_owned())),
                Plain::Empty => Outline::Empty,
            };
            assert!(!row.changes(&value), "{}", row.name);
        }
    }
}

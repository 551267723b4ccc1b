//! Log-probabilities in both formats, echoed prompts, and `best_of`.

use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_engine::{
    Channel, Event, FinishReason, Token, TokenLogprob, Usage, event::TopLogprob, request::Logprobs,
};
use weir_testkit::{Scripted, TestApp};

use crate::{chat, completion};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A token, with a less likely one as its alternative.
fn token(token: Token, bytes: &[u8], logprob: f32) -> TokenLogprob {
    let top = |token, bytes: &[u8], logprob| TopLogprob {
        token,
        bytes: bytes.to_vec(),
        logprob,
    };
    TokenLogprob {
        token,
        bytes: bytes.to_vec(),
        logprob: Some(logprob),
        rank: None,
        top: vec![top(token, bytes, logprob), top(99, b"?", -4.5)],
    }
}

fn text(choice: u32, text: &str, logprobs: Vec<TokenLogprob>) -> Event {
    Event::Text {
        choice,
        channel: Channel::Content,
        text: text.to_owned(),
        tokens: u32::try_from(logprobs.len()).unwrap(),
        logprobs,
        ids: Vec::new(),
    }
}

/// An echoed prompt: text and tokens that weren't generated.
fn prompt(choice: u32) -> Event {
    let first = TokenLogprob {
        logprob: None,
        top: Vec::new(),
        ..token(3, b"A", 0.0)
    };
    Event::Text {
        choice,
        channel: Channel::Content,
        text: "A ü".to_owned(),
        tokens: 0,
        logprobs: vec![first, token(4, b" \xc3", -9.0), token(5, b"\xbc", -0.125)],
        ids: Vec::new(),
    }
}

fn finish(choice: u32) -> Event {
    Event::Finished {
        choice,
        reason: FinishReason::Stop,
    }
}

fn done(completion: u64) -> Event {
    Event::Done(Usage {
        prompt: 3,
        completion,
        ..Usage::default()
    })
}

/// "a€b" in three tokens, the second of which ends inside the character €.
fn script() -> Vec<Event> {
    vec![
        text(0, "a", vec![token(5, b"a", -0.5)]),
        text(
            0,
            "€b",
            vec![
                token(6, b"\xe2\x82", -1.0),
                token(7, b"\xacb", f32::NEG_INFINITY),
            ],
        ),
        finish(0),
        done(3),
    ]
}

async fn choices(script: Vec<Event>, path: &str, body: String) -> Value {
    let app = TestApp::scripted(&Scripted::new(script)).await;
    let answer = app.post(path, body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["choices"].take()
}

/// The `choices` of each chunk, one chunk a line.
async fn chunks(script: Vec<Event>, path: &str, body: String) -> String {
    let app = TestApp::scripted(&Scripted::new(script)).await;
    let frames = app.post(path, body).await.frames();
    frames
        .iter()
        .filter_map(|frame| frame.get("choices"))
        .map(|choices| format!("{choices}\n"))
        .collect()
}

#[tokio::test]
async fn of_a_chat() {
    let body = json!({"logprobs": true, "top_logprobs": 2});
    let shown = choices(script(), CHAT, chat(body)).await;
    assert_snapshot!(shown, @r#"[{"index":0,"message":{"role":"assistant","content":"a€b","refusal":null},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]},{"token":"?","logprob":-4.5,"bytes":[63]}]},{"token":"�","logprob":-1.0,"bytes":[226,130],"top_logprobs":[{"token":"�","logprob":-1.0,"bytes":[226,130]},{"token":"?","logprob":-4.5,"bytes":[63]}]},{"token":"�b","logprob":-9999.0,"bytes":[172,98],"top_logprobs":[{"token":"�b","logprob":-9999.0,"bytes":[172,98]},{"token":"?","logprob":-4.5,"bytes":[63]}]}],"refusal":null},"finish_reason":"stop"}]"#);
    let body = json!({"logprobs": true, "top_logprobs": 2, "return_tokens_as_token_ids": true});
    let shown = choices(script(), CHAT, chat(body)).await;
    let first = &shown[0]["logprobs"]["content"][0];
    assert_eq!(first["token"], "token_id:5");
    assert_eq!(first["bytes"], json!([97]));
    assert_eq!(first["top_logprobs"][1]["token"], "token_id:99");
    let shown = choices(script(), CHAT, chat(json!({}))).await;
    assert_eq!(shown[0]["logprobs"], Value::Null, "nobody asked");
}

#[tokio::test]
async fn of_a_chat_that_is_streamed() {
    let body = json!({"logprobs": true, "stream": true});
    let script = vec![
        text(
            0,
            "a",
            vec![TokenLogprob {
                top: Vec::new(),
                ..token(5, b"a", -0.5)
            }],
        ),
        finish(0),
        done(1),
    ];
    assert_snapshot!(chunks(script, CHAT, chat(body)).await, @r#"
    [{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]
    [{"index":0,"delta":{"content":"a"},"logprobs":{"content":[{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[]}],"refusal":null},"finish_reason":null}]
    [{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]
    "#);
}

/// Without `echo`, the first token's offset is the length of the prompt.
#[tokio::test]
async fn of_a_completion() {
    let body = json!({"logprobs": 2, "prompt": "héllo"});
    let shown = choices(script(), COMPLETIONS, completion(body)).await;
    assert_snapshot!(shown, @r#"[{"text":"a€b","index":0,"logprobs":{"tokens":["a","bytes:\\xe2\\x82","bytes:\\xacb"],"token_logprobs":[-0.5,-1.0,-9999.0],"top_logprobs":[{"a":-0.5,"?":-4.5},{"bytes:\\xe2\\x82":-1.0,"?":-4.5},{"bytes:\\xacb":-9999.0,"?":-4.5}],"text_offset":[5,6,6]},"finish_reason":"stop"}]"#);
    // Without a tokenizer the length of a prompt's text isn't known: offsets count from the answer.
    let body =
        json!({"logprobs": 0, "prompt": [0, 67, 197, 190], "return_tokens_as_token_ids": true});
    let shown = choices(script(), COMPLETIONS, completion(body)).await;
    assert_eq!(shown[0]["logprobs"]["text_offset"], json!([0, 1, 1]));
    assert_eq!(
        shown[0]["logprobs"]["tokens"],
        json!(["token_id:5", "token_id:6", "token_id:7"])
    );
    assert_eq!(
        shown[0]["logprobs"]["top_logprobs"][0],
        json!({"token_id:5": -0.5, "token_id:99": -4.5})
    );
}

#[tokio::test]
async fn offsets_follow_the_text_of_a_prompt_of_tokens() {
    let app = TestApp::new().await;
    // 67 and 197 are `A` and the first byte of `ü`, 190 the second; 0 is the BOS token.
    let body = json!({"logprobs": 0, "prompt": [0, 67, 197, 190]});
    let answer = app.post(COMPLETIONS, completion(body)).await.json();
    let offset = answer.pointer("/choices/0/logprobs/text_offset/0");
    assert_eq!(offset, Some(&json!(2)), "{answer}");
}

#[tokio::test]
async fn of_an_echoed_prompt() {
    let mut script = script();
    script.insert(0, prompt(0));
    let body = json!({"logprobs": 2, "echo": true});
    let shown = choices(script.clone(), COMPLETIONS, completion(body)).await;
    assert_snapshot!(shown, @r#"[{"text":"A üa€b","index":0,"logprobs":{"tokens":["A","bytes: \\xc3","bytes:\\xbc","a","bytes:\\xe2\\x82","bytes:\\xacb"],"token_logprobs":[null,-9.0,-0.125,-0.5,-1.0,-9999.0],"top_logprobs":[null,{"bytes: \\xc3":-9.0,"?":-4.5},{"bytes:\\xbc":-0.125,"?":-4.5},{"a":-0.5,"?":-4.5},{"bytes:\\xe2\\x82":-1.0,"?":-4.5},{"bytes:\\xacb":-9999.0,"?":-4.5}],"text_offset":[0,1,2,3,4,4]},"finish_reason":"stop"}]"#);
    // In a stream, the lists of all chunks add up to those of the whole answer.
    let body = json!({"logprobs": 2, "echo": true, "stream": true});
    let app = TestApp::scripted(&Scripted::new(script)).await;
    let frames = app.post(COMPLETIONS, completion(body)).await.frames();
    for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        let streamed: Vec<_> = frames
            .iter()
            .filter_map(|frame| frame.pointer(&format!("/choices/0/logprobs/{list}")))
            .flat_map(|list| list.as_array().unwrap().clone())
            .collect();
        assert_eq!(json!(streamed), shown[0]["logprobs"][list], "{list}");
    }
}

/// Choices are ordered by their mean log-probability, without the echoed prompt. The best comes first, with new
/// indices.
#[tokio::test]
async fn the_best_of_several() {
    let choice = |choice, word: &str, logprobs: &[f32]| {
        let tokens = logprobs.iter().map(|&logprob| token(5, b"x", logprob));
        [
            prompt(choice),
            text(choice, word, tokens.collect()),
            finish(choice),
        ]
    };
    let silent = [prompt(3), finish(3)];
    let of_first = [
        choice(0, "poor", &[-3.0]),
        choice(1, "good", &[-0.5, -0.5, -0.5, -0.5, -0.5]),
        choice(2, "fair", &[-1.0]),
    ];
    let of_second = [
        choice(4, "fair", &[-1.0]),
        choice(5, "poor", &[-2.0]),
        choice(6, "poor", &[-2.0]),
        choice(7, "good", &[-0.25, -0.25]),
    ];
    let script: Vec<_> = of_first
        .into_iter()
        .flatten()
        .chain(silent)
        .chain(of_second.into_iter().flatten())
        .chain([done(12)])
        .collect();
    let engine = Scripted::new(script);
    let app = TestApp::scripted(&engine).await;
    let fields = json!({"prompt": ["A ü", "A ü"], "n": 2, "best_of": 4, "echo": true});
    let answer = app.post(COMPLETIONS, completion(fields)).await.json();
    let shown: Vec<_> = answer["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| json!([choice["index"], choice["text"], choice["logprobs"]]))
        .collect();
    assert_snapshot!(json!(shown), @r#"[[0,"A ügood",null],[1,"A üfair",null],[2,"A ügood",null],[3,"A üfair",null]]"#);
    assert_eq!(answer["usage"]["completion_tokens"], 12, "all are counted");
    let [asked] = engine.asked().try_into().unwrap();
    assert_eq!(
        (asked.choices.get(), asked.logprobs),
        (4, Some(Logprobs::CHOSEN))
    );
}

/// The engine gets the requested log-probabilities, `echo` and `best_of`.
#[tokio::test]
async fn what_is_asked_for() {
    let engine = Scripted::new(script());
    let app = TestApp::scripted(&engine).await;
    let top = |top| Some(Logprobs::new("logprobs", top).unwrap());
    let rows = [
        (CHAT, chat(json!({})), (None, false, 1)),
        (CHAT, chat(json!({"logprobs": true})), (top(0), false, 1)),
        (
            CHAT,
            chat(json!({"logprobs": true, "top_logprobs": 20})),
            (top(20), false, 1),
        ),
        (
            COMPLETIONS,
            completion(json!({"logprobs": 5})),
            (top(5), false, 1),
        ),
        (
            COMPLETIONS,
            completion(json!({"echo": true})),
            (None, true, 1),
        ),
        (
            COMPLETIONS,
            completion(json!({"best_of": 3})),
            (top(0), false, 3),
        ),
        (
            COMPLETIONS,
            completion(json!({"best_of": 3, "logprobs": 2})),
            (top(2), false, 3),
        ),
        (
            COMPLETIONS,
            completion(json!({"best_of": 1})),
            (None, false, 1),
        ),
    ];
    for (path, body, expected) in rows {
        app.post(path, body.clone()).await;
        let asked = engine.asked().pop().unwrap();
        assert_eq!(
            (asked.logprobs, asked.echo, asked.choices.get()),
            expected,
            "{body}"
        );
    }
}

/// `count` refuses the same requests, and generates nothing.
#[tokio::test]
async fn an_answer_that_could_become_too_large_is_refused() {
    let app = TestApp::new().await;
    let check = async |body: String, is_refused: bool| {
        let answer = app.post("/count", body.clone()).await;
        let json = answer.json();
        let refused = (answer.status.as_u16(), json["error"]["param"].as_str());
        match is_refused {
            true => assert_eq!(refused, (400, Some("logprobs")), "{body}"),
            false => assert_eq!(refused, (200, None), "{body}: {json}"),
        }
    };
    // 128 texts of up to 1,024 tokens, each with 7 alternatives: exactly the limit.
    let fields = |top: u8, more: Value| {
        let fields = json!({"n": 128, "logprobs": true, "top_logprobs": top, "max_tokens": null});
        chat(serde_json::from_str(&crate::with(fields, more)).unwrap())
    };
    check(fields(7, json!({})), false).await;
    check(fields(8, json!({})), true).await;
    check(fields(8, json!({"max_tokens": 910})), false).await;
    check(fields(8, json!({"max_tokens": 911})), true).await;
    check(fields(8, json!({"stream": true})), false).await;
    let legacy = |prompts: usize| {
        let fields =
            json!({"prompt": vec!["a"; prompts], "n": 128, "logprobs": 3, "max_tokens": 512});
        completion(fields)
    };
    check(legacy(4), false).await;
    check(legacy(5), true).await;
    let best = json!({"prompt": vec!["a"; 52], "best_of": 20, "max_tokens": 1009});
    check(completion(best), true).await;
}

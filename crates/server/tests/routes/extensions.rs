//! Other servers' parameters: either supported, or refused with an error that names them.

use insta::assert_snapshot;
use serde_json::{Value, json};
use weir_engine::{Channel, Event, FinishReason, TokenLogprob, Usage};
use weir_testkit::{Scripted, TestApp};

use crate::parameters::Endpoint::{Chat, Completions};
use crate::parameters::{BOTH, OK, bad, check_in};
use crate::{chat, completion, without_id};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn ranges() {
    let app = TestApp::new().await;
    let words = |count: usize| json!({"bad_words": vec!["weir"; count]});
    let rows = [
        (json!({"ignore_eos": true}), OK),
        (json!({"ignore_eos": 1}), bad("ignore_eos")),
        (json!({"min_tokens": 0}), OK),
        (json!({"min_tokens": 8}), OK),
        (json!({"min_tokens": 9}), bad("min_tokens")),
        (json!({"min_tokens": -1}), bad("min_tokens")),
        (json!({"min_tokens": 1.5}), bad("min_tokens")),
        (json!({"stop_token_ids": []}), OK),
        (json!({"stop_token_ids": vec![7; 128]}), OK),
        (
            json!({"stop_token_ids": vec![7; 129]}),
            bad("stop_token_ids"),
        ),
        (
            json!({"stop_token_ids": vec![7; 5_000]}),
            bad("stop_token_ids"),
        ),
        (json!({"stop_token_ids": [999_999]}), bad("stop_token_ids")),
        (json!({"stop_token_ids": [-1]}), bad("stop_token_ids.0")),
        (json!({"stop_token_ids": 7}), bad("stop_token_ids")),
        (json!({"include_stop_str_in_output": true}), OK),
        (
            json!({"include_stop_str_in_output": "yes"}),
            bad("include_stop_str_in_output"),
        ),
        (json!({"skip_special_tokens": false}), OK),
        (
            json!({"skip_special_tokens": 0}),
            bad("skip_special_tokens"),
        ),
        (json!({"spaces_between_special_tokens": false}), OK),
        (json!({"allowed_token_ids": [258, 259]}), OK),
        (json!({"allowed_token_ids": []}), bad("allowed_token_ids")),
        (
            json!({"allowed_token_ids": [999_999]}),
            bad("allowed_token_ids"),
        ),
        (
            json!({"allowed_token_ids": ["a"]}),
            bad("allowed_token_ids.0"),
        ),
        (json!({"bad_words": []}), OK),
        (words(128), OK),
        (words(129), bad("bad_words")),
        (words(2_000), bad("bad_words")),
        (json!({"bad_words": [""]}), bad("bad_words")),
        (json!({"bad_words": ["  "]}), bad("bad_words")),
        (json!({"bad_words": ["é".repeat(1_024)]}), OK),
        (json!({"bad_words": ["é".repeat(1_025)]}), bad("bad_words")),
        (json!({"bad_words": "weir"}), bad("bad_words")),
        (json!({"truncate_prompt_tokens": 3}), OK),
        (json!({"truncate_prompt_tokens": -1}), OK),
        (json!({"truncate_prompt_tokens": i64::MAX}), OK),
        (
            json!({"truncate_prompt_tokens": 0}),
            bad("truncate_prompt_tokens"),
        ),
        (
            json!({"truncate_prompt_tokens": -2}),
            bad("truncate_prompt_tokens"),
        ),
        (json!({"truncation_side": "right"}), OK),
        (json!({"truncation_side": "middle"}), bad("truncation_side")),
        (json!({"prompt_logprobs": 0}), OK),
        (json!({"prompt_logprobs": 20}), OK),
        (json!({"prompt_logprobs": 21}), bad("prompt_logprobs")),
        (json!({"prompt_logprobs": -1}), bad("prompt_logprobs")),
        (
            json!({"prompt_logprobs": 1, "stream": true}),
            bad("prompt_logprobs"),
        ),
        (json!({"prompt_logprobs": true}), bad("prompt_logprobs")),
        (json!({"return_token_ids": true}), OK),
        (json!({"return_token_ids": true, "stream": true}), OK),
        (json!({"return_token_ids": "yes"}), bad("return_token_ids")),
        (
            json!({"stream": true, "stream_options": {"continuous_usage_stats": false, "include_obfuscation": true}}),
            OK,
        ),
        (
            json!({"stream": true, "stream_options": {"continuous_usage_stats": true}}),
            bad("stream_options.continuous_usage_stats"),
        ),
    ];
    check_in(&app, BOTH, &rows).await;
    let completions = [
        (
            json!({"add_special_tokens": false, "parse_special": false}),
            OK,
        ),
        (json!({"add_special_tokens": 1}), bad("add_special_tokens")),
        (json!({"parse_special": "no"}), bad("parse_special")),
        (json!({"thinking_token_budget": -1}), OK),
        (
            json!({"thinking_token_budget": 5}),
            bad("thinking_token_budget"),
        ),
        (json!({"continue_final_message": false}), OK),
        (
            json!({"continue_final_message": true}),
            bad("continue_final_message"),
        ),
    ];
    check_in(&app, &[Completions], &completions).await;
}

/// Values that other clients send by default are accepted. A value that would change the answer is refused by name.
#[tokio::test]
async fn what_is_not_honoured() {
    let app = TestApp::new().await;
    let defaults = json!({
        "use_beam_search": false, "length_penalty": 1.0, "early_stopping": false, "logits_processors": null,
        "guided_json": null, "guided_regex": null, "structured_outputs": null, "watermark": false,
        "lora_path": null, "custom_logit_processor": "", "return_hidden_states": false, "no_stop_trim": false,
        "typical_p": 1, "mirostat": 0, "dry_multiplier": 0.0, "xtc_probability": 0, "repeat_penalty": 1.0,
        "repeat_last_n": 64, "n_predict": -1, "samplers": [], "grammar": "", "options": {}, "verbosity": "medium",
        "priority": 3, "cache_salt": "x", "request_id": "y", "mm_processor_kwargs": {"a": 1}, "stream_interval": 2,
    });
    let more = json!({
        "num_beams": 1, "num_return_sequences": 1, "topK": -1, "max_output_tokens": null, "stop_sequences": [], "text": {},
        "response_mime_type": "text/plain", "extra_body": {}, "safe_prompt": false, "suppress_tokens": [], "num_ctx": null,
        "prompt_truncation": "OFF", "seed": null, "random_seed": -1, "instructions": "", "keep_alive": "5m", "pad_token_id": 0,
    });
    check_in(&app, BOTH, &[(defaults, OK), (more, OK)]).await;
    let names = [
        ("use_beam_search", json!(true)),
        ("length_penalty", json!(1.1)),
        ("logits_processors", json!(["x"])),
        ("grammar", json!("root ::= \"a\"")),
        ("regex", json!("a+")),
        ("ebnf", json!("x".repeat(100))),
        ("json_schema", json!("{}")),
        ("format", json!("json")),
        ("lora_path", json!("a")),
        ("mirostat", json!(2)),
        ("max_new_tokens", json!(5)),
        ("stop_regex", json!("a")),
        ("repeat_penalty", json!(1.1)),
        ("do_sample", json!(false)),
        ("prompt_embeds", json!("AAAA")),
        ("verbosity", json!("low")),
        ("return_hidden_states", json!("last")),
        ("chat_template", json!("{{ x }}")),
        ("stop_sequences", json!(["a"])),
        ("stop_strings", json!("a")),
        ("max_output_tokens", json!(5)),
        ("maxTokens", json!(5)),
        ("random_seed", json!(5)),
        ("safe_prompt", json!(true)),
        ("response_schema", json!({"type": "object"})),
        ("response_mime_type", json!("application/json")),
        ("generation_config", json!({"temperature": 0})),
        ("text", json!({"format": {"type": "json_object"}})),
        ("instructions", json!("Be brief.")),
        ("guided_decoding", json!({"regex": "a"})),
        ("guided_options_request", json!({"guided_regex": "a"})),
        ("suppress_tokens", json!([5])),
        ("bad_words_ids", json!([[5]])),
        ("eos_token_id", json!(5)),
        ("num_beams", json!(2)),
        ("num_return_sequences", json!(2)),
        ("topK", json!(5)),
        ("topP", json!(0.5)),
        ("num_ctx", json!(512)),
        ("system_prompt", json!("Be brief.")),
        ("prefill", json!("{")),
        ("sampling_params", json!({"temperature": 0})),
        ("extra_body", json!({"top_k": 5})),
    ];
    let rows: Vec<_> = names
        .into_iter()
        .map(|(name, value)| (json!({name: value}), bad(name)))
        .collect();
    check_in(&app, BOTH, &rows).await;
    let chats = [
        (
            json!({"echo": false, "best_of": 1, "documents": [], "reasoning": null}),
            OK,
        ),
        (json!({"echo": true}), bad("echo")),
        (json!({"documents": [{"text": "a"}]}), bad("documents")),
        (json!({"reasoning": {"effort": "low"}}), bad("reasoning")),
        (json!({"thinking": {"type": "disabled"}}), bad("thinking")),
        (
            json!({"max_thinking_tokens": 5}),
            bad("max_thinking_tokens"),
        ),
        (
            json!({"add_special_tokens": true}),
            bad("add_special_tokens"),
        ),
    ];
    check_in(&app, &[Chat], &chats).await;
    // The message says what to send instead, and the last value of a repeated field counts.
    let answer = app.post(CHAT, chat(json!({"max_new_tokens": 5}))).await;
    assert_eq!(
        answer.json()["message"],
        "max_new_tokens is not supported; send max_tokens instead"
    );
    let twice = chat(json!({})).replacen('{', "{\"mirostat\": 2, \"mirostat\": 0, ", 1);
    assert_eq!(app.post(CHAT, twice).await.status, 200);
}

#[tokio::test]
async fn where_an_answer_begins() {
    let app = TestApp::new().await;
    let user = json!({"role": "user", "content": "a"});
    let said = |message: Value| json!([user, message]);
    let plain = || json!({"role": "assistant", "content": "b"});
    let called = json!({"role": "assistant", "content": "b", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]});
    let rows = [
        (
            json!({"messages": said(plain()), "continue_final_message": true}),
            OK,
        ),
        (
            json!({"messages": said(plain()), "continue_final_message": true, "add_generation_prompt": false}),
            OK,
        ),
        (
            json!({"messages": said(plain()), "add_generation_prompt": false}),
            OK,
        ),
        (
            json!({"messages": said(json!({"role": "assistant", "content": "b", "prefix": true}))}),
            OK,
        ),
        (
            json!({"messages": said(json!({"role": "assistant", "content": "b", "partial": true}))}),
            OK,
        ),
        (
            json!({"messages": said(json!({"role": "user", "content": "b", "prefix": false}))}),
            OK,
        ),
        (
            json!({"messages": said(plain()), "continue_final_message": true, "add_generation_prompt": true}),
            bad("continue_final_message"),
        ),
        (
            json!({"continue_final_message": true}),
            bad("continue_final_message"),
        ),
        (
            json!({"messages": said(called), "continue_final_message": true}),
            bad("continue_final_message"),
        ),
        (
            json!({"messages": said(json!({"role": "user", "content": "b", "prefix": true}))}),
            bad("continue_final_message"),
        ),
        (
            json!({"continue_final_message": "yes"}),
            bad("continue_final_message"),
        ),
        (
            json!({"add_generation_prompt": 0}),
            bad("add_generation_prompt"),
        ),
    ];
    check_in(&app, &[Chat], &rows).await;
    // The prompt ends where the last message does, and the answer continues there.
    let prompt = async |fields: Value| {
        let body = crate::with(json!({"model": "sim/chat"}), fields);
        let tokens = app.post("/tokenize", body).await.json()["tokens"].clone();
        let body = json!({"model": "sim/chat", "tokens": tokens}).to_string();
        app.post("/detokenize", body).await.json()["prompt"].clone()
    };
    let continued = json!({"messages": said(json!({"role": "assistant", "content": "b "})), "continue_final_message": true});
    assert_eq!(prompt(continued.clone()).await, "<|user|>a<|assistant|>b ");
    assert_eq!(
        prompt(json!({"messages": said(plain())})).await,
        "<|user|>a<|assistant|>b<|assistant|>"
    );
    let begun = json!({"messages": [{"role": "assistant", "content": "x<|end|>"}], "continue_final_message": true});
    assert_eq!(prompt(begun).await, "<|assistant|>x<|end|>");
    let answer = app.post(CHAT, chat(continued)).await.json();
    // Each character is a token, and so is the end of the user's message.
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        "<|user|>a".len() + 1 + "<|assistant|>b ".len()
    );
}

fn scored(token: u32, bytes: &[u8], logprob: Option<f32>) -> TokenLogprob {
    TokenLogprob {
        token,
        bytes: bytes.to_vec(),
        logprob,
        rank: logprob.map(|_| 3),
        top: logprob.map_or_else(Vec::new, |_| {
            vec![
                weir_engine::event::TopLogprob {
                    token: 9,
                    bytes: b"best".to_vec(),
                    logprob: -0.5,
                },
                weir_engine::event::TopLogprob {
                    token,
                    bytes: bytes.to_vec(),
                    logprob: -2.0,
                },
            ]
        }),
    }
}

fn text(choice: u32, channel: Channel, text: &str, ids: &[u32]) -> Event {
    Event::Text {
        choice,
        channel,
        text: text.to_owned(),
        tokens: u32::try_from(ids.len()).unwrap(),
        logprobs: Vec::new(),
        ids: ids.to_vec(),
    }
}

/// A prompt with its tokens, an answer whose first part is in this channel and whose second is content, and a token
/// that ends it.
fn script(first: Channel) -> Vec<Event> {
    vec![
        Event::Prompt {
            prompt: 0,
            tokens: [3, 4].into(),
            logprobs: vec![scored(3, b"A", None), scored(4, b"b\xe2", Some(-2.0))],
        },
        text(0, first, "hm", &[5, 6]),
        text(0, Channel::Content, "so", &[7]),
        text(0, Channel::Content, "", &[1]),
        Event::Finished {
            choice: 0,
            reason: FinishReason::Stop,
        },
        Event::Done(Usage {
            prompt: 2,
            completion: 4,
            reasoning: 2,
            ..Usage::default()
        }),
    ]
}

#[tokio::test]
async fn tokens_and_prompts_in_whole_answers() {
    let app = TestApp::scripted(&Scripted::new(script(Channel::Reasoning))).await;
    let shown =
        async |path: &str, body: String| without_id(app.post(path, body).await.json()).to_string();
    let asked = json!({"return_token_ids": true, "prompt_logprobs": 2, "separate_reasoning": true});
    assert_snapshot!(shown(CHAT, chat(asked.clone())).await, @r#"{"id":"chatcmpl-…","object":"chat.completion","created":1795348800,"model":"sim/chat","choices":[{"index":0,"message":{"role":"assistant","content":"so","refusal":null,"reasoning_content":"hm"},"logprobs":null,"finish_reason":"stop","token_ids":[5,6,7,1]}],"usage":{"prompt_tokens":2,"completion_tokens":4,"total_tokens":6,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":2}},"system_fingerprint":"fp_…","prompt_logprobs":[null,{"4":{"logprob":-2.0,"rank":3,"decoded_token":"b�"},"9":{"logprob":-0.5,"rank":1,"decoded_token":"best"}}],"prompt_token_ids":[3,4]}"#);
    let raw = TestApp::scripted(&Scripted::new(script(Channel::Content))).await;
    let plain = raw.post("/v1/completions", completion(asked)).await.json()["choices"].to_string();
    assert_snapshot!(plain, @r#"[{"text":"hmso","index":0,"logprobs":null,"finish_reason":"stop","prompt_logprobs":[null,{"4":{"logprob":-2.0,"rank":3,"decoded_token":"b�"},"9":{"logprob":-0.5,"rank":1,"decoded_token":"best"}}],"prompt_token_ids":[3,4],"token_ids":[5,6,7,1]}]"#);
    // Without the parameters, the answer has none of these fields.
    let plain = shown(CHAT, chat(json!({}))).await;
    assert!(
        !plain.contains("token_ids") && !plain.contains("prompt_logprobs"),
        "{plain}"
    );
    let hidden = shown(CHAT, chat(json!({"include_reasoning": false}))).await;
    assert!(
        !hidden.contains("hm") && hidden.contains("\"reasoning_tokens\":2"),
        "{hidden}"
    );
    let engine = Scripted::new(script(Channel::Reasoning));
    let app = TestApp::scripted(&engine).await;
    app.post(CHAT, chat(json!({"include_reasoning": false})))
        .await;
    assert!(format!("{:?}", engine.asked()[0]).contains("separate_reasoning: true"));
}

#[tokio::test]
async fn tokens_and_prompts_in_streams() {
    let app = TestApp::scripted(&Scripted::new(script(Channel::Reasoning))).await;
    let raw = TestApp::scripted(&Scripted::new(script(Channel::Content))).await;
    let shown = async |path: &str, body: String| {
        let app = if path == CHAT { &app } else { &raw };
        let frames = app.post(path, body).await.frames();
        let short =
            |frame: &Value| json!([frame["prompt_token_ids"], frame["choices"]]).to_string() + "\n";
        frames
            .iter()
            .filter(|frame| !frame.is_null())
            .map(short)
            .collect::<String>()
    };
    let asked = json!({"return_token_ids": true, "separate_reasoning": true, "stream": true});
    assert_snapshot!(shown(CHAT, chat(asked.clone())).await, @r#"
    [[3,4],[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]]
    [null,[{"index":0,"delta":{"reasoning_content":"hm"},"logprobs":null,"finish_reason":null,"token_ids":[5,6]}]]
    [null,[{"index":0,"delta":{"content":"so"},"logprobs":null,"finish_reason":null,"token_ids":[7]}]]
    [null,[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":null,"token_ids":[1]}]]
    [null,[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]]
    "#);
    assert_snapshot!(shown("/v1/completions", completion(asked)).await, @r#"
    [null,[{"text":"hm","index":0,"logprobs":null,"finish_reason":null,"prompt_token_ids":[3,4],"token_ids":[5,6]}]]
    [null,[{"text":"so","index":0,"logprobs":null,"finish_reason":null,"token_ids":[7]}]]
    [null,[{"text":"","index":0,"logprobs":null,"finish_reason":null,"token_ids":[1]}]]
    [null,[{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}]]
    "#);
    let hidden = json!({"include_reasoning": false, "stream": true});
    assert_snapshot!(shown(CHAT, chat(hidden)).await, @r#"
    [null,[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]]
    [null,[{"index":0,"delta":{"content":"so"},"logprobs":null,"finish_reason":null}]]
    [null,[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":null}]]
    [null,[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]]
    "#);
    let both = json!({"include_reasoning": false, "return_token_ids": true, "stream": true});
    assert!(!shown(CHAT, chat(both)).await.contains("hm"));
}

/// With a simulated engine, a stream and a whole answer have the same tokens.
#[tokio::test]
async fn tokens_of_a_stream_are_those_of_the_whole() {
    let app = TestApp::new().await;
    for (path, body) in [
        (CHAT, chat as fn(Value) -> String),
        ("/v1/completions", completion),
    ] {
        let whole = app
            .post(path, body(json!({"return_token_ids": true, "n": 2})))
            .await
            .json();
        let frames = app
            .post(
                path,
                body(json!({"return_token_ids": true, "n": 2, "stream": true})),
            )
            .await
            .frames();
        let mut told = 0;
        for index in 0..2 {
            let choice = whole["choices"]
                .as_array()
                .unwrap()
                .iter()
                .find(|choice| choice["index"] == index)
                .unwrap();
            let parts = frames
                .iter()
                .filter_map(|frame| frame["choices"].as_array()?.first());
            let parts = parts.filter(|choice| choice["index"] == index);
            let ids: Vec<Value> = parts
                .flat_map(|choice| choice["token_ids"].as_array().cloned().unwrap_or_default())
                .collect();
            assert_eq!(json!(ids), choice["token_ids"], "{path}");
            told += ids.len();
        }
        assert_eq!(json!(told), whole["usage"]["completion_tokens"], "{path}");
        let first = &frames[0];
        let of_stream = [
            &first["prompt_token_ids"],
            &first["choices"][0]["prompt_token_ids"],
        ];
        let of_whole = [
            &whole["prompt_token_ids"],
            &whole["choices"][0]["prompt_token_ids"],
        ];
        assert_eq!(of_stream, of_whole, "{path}");
        assert!(of_whole.iter().any(|ids| ids.is_array()), "{path}");
    }
}

/// A request with a seed gets the same answer again, and no draft tokens.
#[tokio::test]
async fn a_request_with_a_seed_is_repeatable() {
    let check = async |fields: Value, expected: bool| {
        let engine = Scripted::new(vec![Event::Done(Usage::default())]);
        let app = TestApp::scripted(&engine).await;
        app.post("/v1/completions", completion(fields.clone()))
            .await;
        let [asked] = engine.asked().try_into().unwrap();
        assert_eq!(asked.repeatable, expected, "{fields}");
        assert!(asked.sampling.seed().is_some(), "{fields}");
    };
    check(json!({"seed": null}), false).await;
    check(json!({"seed": null, "temperature": 0}), false).await;
    check(json!({"seed": 7}), true).await;
    check(json!({"seed": 7, "temperature": 0}), true).await;
    check(json!({"seed": -1, "temperature": 1}), true).await;
}

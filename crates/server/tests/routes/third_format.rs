//! Another API beside the two: what adding one costs is this format and one row in the table of routes.
//!
//! The format has what OpenAI's Responses and Anthropic's Messages need: events with names and sequence numbers, items
//! with ids, prompt tokens at the start, usage at the end, its own errors, and no `[DONE]`.

use insta::assert_snapshot;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weir_engine::request::{Conversation, Input, Invalid, Message, OutputLimit, Overflow, Role};
use weir_engine::{Channel, EngineError, Event, FinishReason, Request, Usage};
use weir_gateway::{Delivery, Offer};
use weir_server::{
    AnswerFormat, ApiError, ChatJob, Envelope, Folded, Frames, GenerationApi, ParamNames, Route,
    TextPart, Under,
};
use weir_testkit::{Scripted, Setup, TestApp, offer_of};

static ROUTES: [Route; 1] = [Route::generation::<Items>(Under::Root, "/items")];

struct Items;

#[derive(Deserialize)]
struct Body {
    model: Option<String>,
    input: String,
    #[serde(default)]
    stream: bool,
    limit: Option<u32>,
}

impl GenerationApi for Items {
    type Body = Body;
    type Shape = ();
    type Answer = ItemsAnswer;

    fn model(body: &Body) -> Option<&str> {
        body.model.as_deref()
    }

    fn job(_offer: &Offer, body: Body) -> Result<ChatJob<()>, ApiError> {
        if body.input.is_empty() {
            return Err(Invalid::new("input", "input must not be empty").into());
        }
        let messages = vec![Message::new(Role::User, body.input)];
        let conversation = Conversation {
            separate_reasoning: true,
            ..messages.into()
        };
        Ok(ChatJob {
            request: Request {
                output: OutputLimit {
                    tokens: body.limit,
                    overflow: Overflow::Lower,
                },
                ..Request::new(Input::Chat(conversation))
            },
            delivery: match body.stream {
                true => Delivery::Stream,
                false => Delivery::Whole,
            },
            names: ParamNames::new("input", "limit"),
            shape: (),
        })
    }

    fn answer(envelope: Envelope, (): ()) -> ItemsAnswer {
        ItemsAnswer {
            envelope,
            sequence: 0,
            items: 0,
            open: None,
        }
    }
}

struct ItemsAnswer {
    envelope: Envelope,
    sequence: u32,
    items: u32,
    open: Option<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Reasoning,
    Call(u32),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Reasoning => "reasoning",
            Kind::Call(_) => "call",
        }
    }
}

impl ItemsAnswer {
    fn event(&mut self, frames: &mut Frames, name: &str, mut fields: Value) {
        fields["sequence"] = self.sequence.into();
        self.sequence += 1;
        frames.event(name, &fields);
    }

    fn item_id(&self) -> String {
        format!("item_{}_{}", self.envelope.request_id, self.items)
    }

    /// Begins an item, unless one of the kind is open.
    fn open(&mut self, frames: &mut Frames, kind: Kind, name: Option<&str>) {
        if self.open == Some(kind) {
            return;
        }
        self.close(frames);
        self.open = Some(kind);
        let item = json!({"item": self.item_id(), "kind": kind.name(), "name": name});
        self.event(frames, "item.added", item);
    }

    fn close(&mut self, frames: &mut Frames) {
        if self.open.take().is_some() {
            let item = json!({"item": self.item_id()});
            self.event(frames, "item.done", item);
            self.items += 1;
        }
    }

    fn delta(&mut self, frames: &mut Frames, kind: Kind, text: TextPart<'_>) {
        self.open(frames, kind, None);
        let delta = json!({"item": self.item_id(), "delta": text.text});
        self.event(frames, "item.delta", delta);
    }
}

impl AnswerFormat for ItemsAnswer {
    fn start(&mut self, frames: &mut Frames) {
        let prompt_tokens = self.envelope.prompt_tokens;
        let start = json!({"model": self.envelope.model, "prompt_tokens": prompt_tokens});
        self.event(frames, "start", start);
    }

    fn text(&mut self, frames: &mut Frames, _choice: u32, text: TextPart<'_>) {
        self.delta(frames, Kind::Text, text);
    }

    fn reasoning(&mut self, frames: &mut Frames, _choice: u32, text: TextPart<'_>) {
        self.delta(frames, Kind::Reasoning, text);
    }

    fn call(&mut self, frames: &mut Frames, _choice: u32, call: u32, name: &str) {
        self.open(frames, Kind::Call(call), Some(name));
    }

    fn arguments(&mut self, frames: &mut Frames, _choice: u32, call: u32, text: TextPart<'_>) {
        self.delta(frames, Kind::Call(call), text);
    }

    fn finish(&mut self, frames: &mut Frames, _choice: u32, _reason: FinishReason) {
        self.close(frames);
    }

    fn end(&mut self, frames: &mut Frames, usage: Usage) {
        self.event(
            frames,
            "end",
            json!({"prompt": usage.prompt, "completion": usage.completion}),
        );
    }

    fn error(&mut self, frames: &mut Frames, error: &ApiError) {
        let body = error.frame();
        self.event(
            frames,
            "error",
            json!({"status": body.code, "message": body.message}),
        );
    }

    fn whole(self, folded: Folded) -> impl Serialize {
        let [choice] = folded.choices.as_slice() else {
            panic!("one choice was asked for")
        };
        let calls = choice.calls.iter();
        json!({
            "text": choice.content,
            "reasoning": choice.reasoning,
            "calls": calls.map(|call| json!([call.name, call.arguments])).collect::<Vec<_>>(),
            "completion": folded.usage.completion,
        })
    }
}

fn text(channel: Channel, text: &str) -> Event {
    Event::Text {
        choice: 0,
        channel,
        text: text.to_owned(),
        tokens: 1,
        logprobs: Vec::new(),
        ids: Vec::new(),
    }
}

async fn app(last: Event) -> TestApp {
    let script = vec![
        text(Channel::Reasoning, "hm"),
        text(Channel::Content, "Look"),
        text(Channel::Content, ":\u{2028}"),
        Event::Call {
            choice: 0,
            call: 0,
            name: "f".to_owned(),
        },
        text(Channel::Call(0), "{}"),
        Event::Finished {
            choice: 0,
            reason: FinishReason::ToolCalls,
        },
        last,
    ];
    let engine = std::sync::Arc::new(Scripted::new(script));
    TestApp::start(Setup {
        offers: vec![offer_of("sim/chat", Some(engine))],
        routes: &ROUTES,
        ..Setup::default()
    })
    .await
}

fn done() -> Event {
    Event::Done(Usage {
        prompt: 1,
        completion: 4,
        reasoning: 1,
        ..Usage::default()
    })
}

fn body(fields: Value) -> String {
    crate::with(json!({"model": "sim/chat", "input": "hello"}), fields)
}

/// The stream without the random part of ids.
fn shown(stream: &str) -> String {
    let mut parts = stream.split("item_");
    let mut shown = parts.next().unwrap().to_owned();
    for part in parts {
        shown += "item_…";
        shown += &part[32..];
    }
    shown
}

#[tokio::test]
async fn a_stream_has_the_frames_of_its_format_alone() {
    let answer = app(done())
        .await
        .post("/items", body(json!({"stream": true})))
        .await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_snapshot!(shown(answer.text()), @r#"
    event: start
    data: {"model":"sim/chat","prompt_tokens":1,"sequence":0}

    event: item.added
    data: {"item":"item_…_0","kind":"reasoning","name":null,"sequence":1}

    event: item.delta
    data: {"item":"item_…_0","delta":"hm","sequence":2}

    event: item.done
    data: {"item":"item_…_0","sequence":3}

    event: item.added
    data: {"item":"item_…_1","kind":"text","name":null,"sequence":4}

    event: item.delta
    data: {"item":"item_…_1","delta":"Look","sequence":5}

    event: item.delta
    data: {"item":"item_…_1","delta":":\u2028","sequence":6}

    event: item.done
    data: {"item":"item_…_1","sequence":7}

    event: item.added
    data: {"item":"item_…_2","kind":"call","name":"f","sequence":8}

    event: item.delta
    data: {"item":"item_…_2","delta":"{}","sequence":9}

    event: item.done
    data: {"item":"item_…_2","sequence":10}

    event: end
    data: {"prompt":1,"completion":4,"sequence":11}
    "#);
}

#[tokio::test]
async fn a_whole_answer_is_the_fold_in_its_own_form() {
    let app = app(done()).await;
    let answer = app.post("/items", body(json!({}))).await;
    assert_eq!(answer.header("content-type"), "application/json");
    let whole = json!({"text": "Look:\u{2028}", "reasoning": "hm", "calls": [["f", "{}"]], "completion": 4});
    assert_eq!(answer.json(), whole);
    let charged = app.accounts.account("test").await.unwrap();
    // One token of the prompt, four of the answer.
    assert_eq!(
        5_000_000_000 - charged.posted.get(),
        200 / 10 + 4 * 400 / 10
    );
}

#[tokio::test]
async fn a_failure_ends_the_stream_with_the_error_of_the_format() {
    let failed = Event::Failed(EngineError::Fault("a test".to_owned()));
    let answer = app(failed)
        .await
        .post("/items", body(json!({"stream": true})))
        .await;
    let last = answer.text().rsplit("\n\n").nth(1).unwrap();
    assert_snapshot!(last, @r#"
    event: error
    data: {"status":500,"message":"an internal error; the request's id is in the header x-request-id","sequence":11}
    "#);
}

#[tokio::test]
async fn refusals_name_the_parameters_of_the_format() {
    let app = app(done()).await;
    let rows = [
        (json!({"model": null}), Some("model")),
        (json!({"model": "another"}), Some("model")),
        (json!({"input": ""}), Some("input")),
        (json!({"limit": 1025}), Some("limit")),
        (json!({"limit": 1024}), None),
    ];
    for (fields, param) in rows {
        let answer = app.post("/items", body(fields.clone())).await;
        assert_eq!(
            (
                answer.status == 200,
                answer.json()["error"]["param"].as_str()
            ),
            (param.is_none(), param),
            "{fields}"
        );
    }
    let mut keyless = app.request(http::Method::POST, "/items", body(json!({})));
    keyless.headers_mut().remove("authorization");
    assert_eq!(app.send(keyless).await.status, 401);
}

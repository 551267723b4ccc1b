//! The load generator, against the service in process and against a server that misbehaves.

#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weir_inference::model::{Batching, Capacity, Forks};
use weir_inference::sim::{END, SimModel, SimOptions};
use weir_server::Stop;
use weir_testkit::load::{Closed, Ending, LongPrompt, Prompts, Target};
use weir_testkit::{Setup, TestApp, offer};

/// Runs `load` against the service with a simulated model, on a real socket.
async fn against_the_service(load: impl AsyncFnOnce(&Target) -> Value) -> Value {
    let model = SimModel::new(SimOptions {
        capacity: Capacity {
            cells: 65_536,
            sequences: 8,
            rows: 256,
            outputs: 64,
            batching: Batching::Together,
            forks: Forks::Anywhere,
        },
        context_tokens: 16_384,
        end_probability: 0.0,
        ..SimOptions::default()
    });
    let app = TestApp::start(Setup {
        offers: vec![offer("sim/plain", Some(model))],
        ..Setup::default()
    })
    .await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let target = Target::new(&url, &app.key, "sim/plain", &[END]).unwrap();
    let stop = Stop::default();
    let serving = weir_server::serve(listener, app.app.clone(), stop.clone());
    let loading = async {
        let figures = load(&target).await;
        stop.hard.cancel();
        figures
    };
    tokio::join!(serving, loading).1
}

const LOAD: Closed = Closed {
    prompts: Prompts::Distinct { words: 20 },
    output_tokens: 8,
    clients: 4,
    requests: 10,
    ending: Ending::Answered,
    seed: 1,
};

#[tokio::test]
async fn a_closed_loop_counts_what_was_answered() {
    let check = async |load: Closed| {
        let figures = against_the_service(async |target| load.run(target).await.unwrap()).await;
        let requests = figures["requests"].as_u64().unwrap();
        let tokens = figures["output_tokens"].as_u64().unwrap();
        let asked = requests * u64::from(load.output_tokens);
        match load.ending {
            Ending::Answered => assert_eq!((requests, tokens), (load.requests, asked), "{figures}"),
            // Requests that were under way at the end may count too.
            Ending::HungUp => assert!(requests >= load.requests && tokens >= asked, "{figures}"),
        }
        assert_eq!(figures["ttft_ms"]["count"], requests, "{figures}");
        assert!(
            figures["gap_ms"]["count"].as_u64() > Some(requests),
            "{figures}"
        );
        assert!(
            figures["prompt_tokens"].as_u64() > Some(20 * requests),
            "{figures}"
        );
        assert!(
            figures["tokens_per_second"].as_f64() > Some(0.0),
            "{figures}"
        );
        assert_eq!(figures["refusal_ms"]["count"], 0, "{figures}");
    };
    check(LOAD).await;
    let shared = Prompts::Shared {
        prefix: 30,
        tail: 5,
    };
    check(Closed {
        prompts: shared,
        ..LOAD
    })
    .await;
    let clients = 16;
    check(Closed {
        clients,
        ending: Ending::HungUp,
        ..LOAD
    })
    .await;
}

#[tokio::test]
async fn gaps_beside_a_long_prompt_are_measured() {
    let load = LongPrompt {
        streams: 4,
        stream_words: 20,
        stream_tokens: 1000,
        long_words: 500,
        long_tokens: 4,
        seed: 1,
    };
    let figures = against_the_service(async |target| load.run(target).await.unwrap()).await;
    assert!(figures["long_ttft_ms"].as_f64() > Some(0.0), "{figures}");
    assert!(figures["gap_ms"]["count"].as_u64() >= Some(4), "{figures}");
    assert!(
        figures["gap_before_ms"]["count"].as_u64() >= Some(15),
        "{figures}"
    );
    assert!(figures["prompt_tokens"].as_u64() > Some(500), "{figures}");
}

/// Reads a request, with its body.
async fn read_request(stream: &mut TcpStream) {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let mut lines = head.lines();
        let length = lines.find_map(|line| line.strip_prefix("content-length: "));
        if body.len() >= length.unwrap().parse().unwrap() {
            return;
        }
    }
}

const REFUSED: &str = "503 Busy\r\nretry-after: 0\r\n\r\n{}";
const PIECES: &str = "200 OK\r\n\r\ndata: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n";

#[tokio::test]
async fn refusals_are_counted_and_what_is_no_full_answer_is_an_error() {
    let check = async |answers: &[String], expected: Result<u64, &str>| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let target = Target::new(&url, "key", "model", &[]).unwrap();
        let serving = async {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_request(&mut stream).await;
                let answer = format!(
                    "HTTP/1.1 {}",
                    answer.replacen("\r\n", "\r\nconnection: close\r\n", 1)
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let load = Closed {
            output_tokens: 2,
            clients: 1,
            requests: 1,
            ..LOAD
        };
        let (figures, ()) = tokio::join!(load.run(&target), serving);
        match (figures, expected) {
            (Ok(figures), Ok(refused)) => {
                assert_eq!(figures["output_tokens"], 2);
                assert_eq!(figures["refusal_ms"]["count"], refused);
                assert_eq!(figures["retries"], refused);
                assert_eq!(figures["retries_taken"], 1);
            }
            (Err(error), Err(text)) => assert!(format!("{error:#}").contains(text), "{error:#}"),
            (figures, expected) => panic!("{figures:?}, expected {expected:?}"),
        }
    };
    let usage = |tokens: u32| {
        format!(
            "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":{tokens}}}}}\n\n"
        )
    };
    let done = "data: [DONE]\n\n";
    let whole = format!("{PIECES}{}{done}", usage(2));
    check(
        &[REFUSED.to_owned(), REFUSED.to_owned(), whole.clone()],
        Ok(2),
    )
    .await;
    check(
        &[format!("{PIECES}{}{done}", usage(1))],
        Err("1 tokens came"),
    )
    .await;
    check(&[format!("{PIECES}{}", usage(2))], Err("cut off")).await;
    check(&[format!("{PIECES}{done}")], Err("no usage")).await;
    check(
        &[format!("{PIECES}data: {{\"error\":{{}}}}\n\n")],
        Err("an error in the stream"),
    )
    .await;
    check(
        &["500 Wrong\r\n\r\nit fell over".to_owned()],
        Err("it fell over"),
    )
    .await;
}

mod isolation;

use futures::future::join_all;
use weir_engine::embed::Embeddings;

use super::*;
use crate::sim::{self, SimEmbedder};

fn engine(embedder: SimEmbedder) -> EmbeddingEngine {
    EmbeddingEngine::spawn(embedder, Shortening::Any, 8, None).unwrap()
}

fn texts(texts: &[&str]) -> EmbedRequest {
    let inputs = texts.iter().map(|&text| Prompt::Text(text.to_owned()));
    EmbedRequest {
        inputs: inputs.collect(),
        dimensions: None,
        account: Arc::default(),
    }
}

fn tokens(inputs: Vec<Vec<Token>>) -> EmbedRequest {
    EmbedRequest {
        inputs: inputs.into_iter().map(Prompt::Tokens).collect(),
        dimensions: None,
        account: Arc::default(),
    }
}

async fn ask(engine: &EmbeddingEngine, request: EmbedRequest) -> Result<Embedded, EngineError> {
    let prepared = engine.prepare_embed(request).await?;
    prepared.run().await
}

/// Many requests at once, with inputs of all lengths: each gets its own vectors, in its order.
#[tokio::test]
async fn every_input_has_its_vector() {
    let model = SimEmbedder::default();
    let engine = engine(model.clone());
    let lists: Vec<Vec<Vec<Token>>> = (1..8)
        .map(|n: u32| {
            (0..n * 5)
                .map(|i| vec![70 + (n + i) % 9; 1 + (i * 13 % 64) as usize])
                .collect()
        })
        .collect();
    let answers = join_all(lists.iter().map(|list| ask(&engine, tokens(list.clone())))).await;
    for (list, answer) in lists.iter().zip(answers) {
        let answer = answer.unwrap();
        let expected: Vec<_> = list
            .iter()
            .map(|input| unit(model.vector(input), 8))
            .collect();
        assert_eq!(answer.vectors, expected);
        assert_eq!(
            answer.tokens,
            list.iter().map(|input| input.len() as u64).sum::<u64>()
        );
        for vector in answer.vectors {
            let square: f32 = vector.iter().map(|number| number * number).sum();
            assert!((square - 1.0).abs() < 1e-5, "{vector:?}");
        }
    }
}

#[tokio::test]
async fn texts_are_tokenized_and_shortened() {
    let mut model = SimEmbedder::default();
    model.facts.last = Some(72);
    let engine = engine(model.clone());
    let request = EmbedRequest {
        dimensions: Some(3),
        ..texts(&["hello"])
    };
    let inputs = engine.embeddings.tokenized(&request).unwrap();
    assert_eq!(inputs.tokens[0].last(), Some(&72));
    let expected = unit(model.vector(&inputs.tokens[0]), 3);
    let answer = ask(&engine, request).await.unwrap();
    assert_eq!(answer.vectors, [expected]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let check = async |request, expected: &str| {
        let refused = ask(&engine(SimEmbedder::default()), request).await;
        assert_eq!(refused.unwrap_err().to_string(), expected);
    };
    check(tokens(vec![]), "input must have 1 to 2048 entries, got 0").await;
    check(
        tokens(vec![vec![70]; 2_049]),
        "input must have 1 to 2048 entries, got 2049",
    )
    .await;
    check(
        tokens(vec![vec![70], vec![]]),
        "input must not be empty: it has no tokens",
    )
    .await;
    check(
        tokens(vec![vec![70; 65]]),
        "prompt of 65 tokens is too long for a context of 64",
    )
    .await;
    let vocabulary = sim::engine(0).tokenizer().unwrap().vocabulary();
    check(
        tokens(vec![vec![9_999]]),
        &format!(
            "input has token 9999, but the model's vocabulary ends at {}",
            vocabulary - 1
        ),
    )
    .await;
    let mut wide = SimEmbedder::default();
    wide.facts.input_tokens_max = 1_000;
    let refused = ask(&engine(wide), tokens(vec![vec![70; 1_000]; 301])).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "input may have at most 300000 tokens in all"
    );
    let text = Request::new(weir_engine::Input::Prompts(vec![Prompt::Text(
        "hello".to_owned(),
    )]));
    let refused = engine(SimEmbedder::default()).prepare(&text.into()).await;
    assert_eq!(refused.map(|_| ()), Err(NO_COMPLETIONS));
}

#[tokio::test]
async fn a_fault_is_the_error_of_those_in_the_step() {
    let engine = engine(SimEmbedder {
        fault: Some(71),
        ..SimEmbedder::default()
    });
    let refused = ask(&engine, tokens(vec![vec![70, 71]])).await;
    assert_eq!(
        refused,
        Err(EngineError::Fault("this step was to fail".to_owned()))
    );
    assert!(ask(&engine, tokens(vec![vec![70]])).await.is_ok());
    assert_eq!(engine.health(), Health::Ready);
}

#[test]
fn an_account_that_fills_the_queue_does_not_shut_others_out() {
    let queue = Queue::new(32);
    let mut waiting = Vec::new();
    let mut push = |account: &str| {
        let (answer, answered) = oneshot::channel();
        waiting.push(answered);
        queue.push(Job {
            account: account.into(),
            inputs: vec![[70].into()],
            vectors: Vec::new(),
            answer,
        })
    };
    assert!((0..32).all(|_| push("one").is_ok()));
    assert_eq!(push("one"), Err(Refused::Full));
    assert_eq!(
        [push("two"), push("two"), push("two")],
        [Ok(()), Ok(()), Err(Refused::Full)]
    );
    // The other account's job comes after one of the first account's at most.
    let accounts = (0..4).map(|_| queue.take(false, |_| true).unwrap().unwrap().account);
    let accounts: Vec<_> = accounts.collect();
    let accounts: Vec<&str> = accounts.iter().map(|account| &**account).collect();
    assert_eq!(accounts, ["one", "two", "one", "two"]);
    // Callers that have left leave room.
    waiting.clear();
    let (answer, _answered) = oneshot::channel();
    let job = Job {
        account: "one".into(),
        inputs: Vec::new(),
        vectors: Vec::new(),
        answer,
    };
    assert_eq!(queue.push(job), Ok(()));
    queue.close();
    assert!(queue.is_closed() && matches!(queue.take(false, |_| true), Some(None)));
}

#[tokio::test]
async fn damaged_weights_take_embeddings_down() {
    let engine = engine(SimEmbedder {
        damage: Some(71),
        ..SimEmbedder::default()
    });
    assert!(ask(&engine, tokens(vec![vec![70]])).await.is_ok());
    let gone = EngineError::Unavailable("the file was to be cut".to_owned());
    assert_eq!(ask(&engine, tokens(vec![vec![70, 71]])).await, Err(gone));
    assert!(matches!(engine.health(), Health::Down(_)));
    let refused = ask(&engine, tokens(vec![vec![70]])).await;
    assert!(
        matches!(refused, Err(EngineError::Unavailable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn beside_an_engine_that_generates_both_are_offered() {
    let generator = Arc::new(sim::engine(1));
    let engine = EmbeddingEngine::spawn(
        SimEmbedder::default(),
        Shortening::Never,
        8,
        Some(generator),
    )
    .unwrap();
    let facts = engine.facts();
    assert!(facts.generates && facts.chat);
    assert_eq!(
        facts.embedding.map(|embedding| embedding.dimensions),
        Some(8)
    );
    let text = Request::new(weir_engine::Input::Prompts(vec![Prompt::Text(
        "hello".to_owned(),
    )]));
    assert!(engine.prepare(&text.into()).await.is_ok());
    assert!(ask(&engine, texts(&["hello"])).await.is_ok());
}

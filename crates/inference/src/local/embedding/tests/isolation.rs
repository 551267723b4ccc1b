//! Isolation of accounts: while one account sends as many inputs as it can, of any kind, another account's single
//! inputs wait for two steps at most.

use futures::FutureExt;

use super::*;

/// The number of the other account's inputs, sent one after the other.
const PROBES: u32 = 200;
/// The steps that such an input may take beyond the one in which it is computed.
const STEPS_MORE: u64 = 2;

/// The load of one account.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    /// Requests that wait or run at any time.
    requests: usize,
    inputs: usize,
    input_tokens: usize,
    /// Steps after which a caller leaves.
    patience: u64,
}

const SHORT: Load = Load {
    name: "short inputs",
    requests: 300,
    inputs: 1,
    input_tokens: 5,
    patience: u64::MAX,
};

const LOADS: &[Load] = &[
    SHORT,
    Load {
        name: "inputs that fill a step",
        input_tokens: 64,
        ..SHORT
    },
    Load {
        name: "lists of inputs",
        inputs: 64,
        ..SHORT
    },
    Load {
        name: "the longest lists of inputs that fill a step",
        inputs: INPUTS_MAX,
        input_tokens: 64,
        ..SHORT
    },
    Load {
        name: "one list of inputs that fill a step",
        requests: 1,
        inputs: INPUTS_MAX,
        input_tokens: 64,
        ..SHORT
    },
    Load {
        name: "callers that leave",
        inputs: 64,
        input_tokens: 40,
        patience: 3,
        ..SHORT
    },
];

#[test]
fn nobody_waits_for_another_accounts_embeddings() {
    let idle = steps_max(None);
    assert_eq!(idle, 1);
    let late: Vec<_> = LOADS
        .iter()
        .map(|load| (load.name, steps_max(Some(*load))))
        .filter(|(_, steps)| *steps > idle + STEPS_MORE)
        .collect();
    assert!(late.is_empty(), "{late:?}");
}

type Vectors = oneshot::Receiver<Result<Vec<Vec<f32>>, EngineError>>;

/// Steps that the slowest probe took.
fn steps_max(load: Option<Load>) -> u64 {
    let (queue, mut jobs) = (Queue::new(512), VecDeque::new());
    let mut embedder = SimEmbedder::default();
    let push = |account: &str, inputs: usize, input_tokens: usize| {
        let (answer, vectors) = oneshot::channel();
        let pushed = queue.push(Job {
            account: account.into(),
            inputs: vec![vec![70; input_tokens].into(); inputs],
            vectors: Vec::new(),
            answer,
        });
        assert_eq!(pushed, Ok(()), "the queue has room for {account}");
        vectors
    };
    let mut running: Vec<(Vectors, u64)> = Vec::new();
    let mut now = 0;
    let mut advance = || {
        if let Some(load) = load {
            running.retain_mut(|(vectors, since)| {
                now - *since < load.patience && vectors.now_or_never().is_none()
            });
            while running.len() < load.requests {
                running.push((push("one", load.inputs, load.input_tokens), now));
            }
        }
        now += 1;
        if let Some(next) = queue.take(false, |account| may_have_more(&jobs, account)) {
            jobs.extend(next);
        }
        step(&mut embedder, &mut jobs);
    };
    (0..PROBES)
        .map(|number| {
            (0..number % 7).for_each(|_| advance());
            let mut vectors = push("two", 1, 1 + number as usize % 32);
            let mut steps = 0;
            while (&mut vectors).now_or_never().is_none() {
                advance();
                steps += 1;
                assert!(steps < 1_000, "a probe waits for ever");
            }
            steps
        })
        .max()
        .unwrap()
}

mod nodes;
mod same;
mod valkey;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::valkey::Valkey;
use super::memory::SUBJECTS_SWEEP;
use super::store::Time;
use super::*;

fn subject(name: &str, quotas: Quotas) -> Subject {
    Subject {
        name: name.into(),
        quotas,
    }
}

fn requests(limit: u32) -> Quotas {
    Quotas {
        requests_per_minute: Some(limit),
        ..Quotas::default()
    }
}

fn tokens(limit: u64) -> Quotas {
    Quotas {
        tokens_per_minute: Some(limit),
        ..Quotas::default()
    }
}

fn concurrent(limit: u32) -> Quotas {
    Quotas {
        concurrent_requests: Some(limit),
        ..Quotas::default()
    }
}

fn options(url: String) -> StoreOptions {
    static NODES: AtomicU64 = AtomicU64::new(1);
    StoreOptions {
        url,
        timeout: Duration::from_secs(10),
        on_failure: StoreFailure::Closed,
        node: NODES.fetch_add(1, Ordering::Relaxed),
    }
}

/// A lease so long that no slot expires during a test.
const LONG: Duration = Duration::from_hours(1000);

/// Limits in a store that counts by the tests' clock.
async fn at_a_store(url: String, origin: Instant) -> Limits {
    let store = Store::open_with(options(url), Time::Given(origin), LONG).await;
    Limits {
        store: Some(store.unwrap()),
        ..Limits::new(origin)
    }
}

/// Runs a test with counts in memory, and again in a real store.
async fn both<F: Future<Output = ()>>(test: impl Fn(Limits, Instant) -> F) {
    let start = Instant::now();
    test(Limits::new(start), start).await;
    let valkey = Valkey::start();
    test(at_a_store(valkey.url(), start).await, start).await;
}

async fn admit(limits: &Limits, subjects: &[Subject], now: Instant) -> Result<Permit, Denied> {
    limits
        .admit_request(subjects.to_vec(), now)
        .await
        .map_err(denied)
}

async fn reserve(permit: &mut Permit, tokens: u64, now: Instant) -> Result<(), Denied> {
    permit.admit_tokens(tokens, now).await.map_err(denied)
}

#[track_caller]
fn denied(not_admitted: NotAdmitted) -> Denied {
    match not_admitted {
        NotAdmitted::Denied(denied) => denied,
        NotAdmitted::Unavailable => panic!("the store is out of reach"),
    }
}

/// Admits requests at one instant, each ended at once, until one is refused.
async fn burst(limits: &Limits, subjects: &[Subject], now: Instant) -> (u32, Denied) {
    let mut admitted = 0;
    loop {
        match admit(limits, subjects, now).await {
            Ok(permit) => permit.end(0, now).await,
            Err(denied) => return (admitted, denied),
        }
        admitted += 1;
    }
}

fn left(gauge: Option<Gauge>) -> Option<u64> {
    gauge.map(|gauge| gauge.remaining)
}

#[tokio::test]
async fn a_burst_is_exactly_the_limit_and_the_wait_is_true() {
    both(|limits, start| async move {
        for limit in [1, 2, 3, 7, 11, 59, 60, 61, 600, 997] {
            let key = [subject(&format!("k{limit}"), requests(limit))];
            let (admitted, denied) = burst(&limits, &key, start).await;
            assert_eq!(admitted, limit, "burst of limit {limit}");
            assert_eq!(
                (denied.which, denied.limit),
                (Which::Requests, u64::from(limit))
            );

            let too_early = start + denied.retry_after - Duration::from_micros(1);
            assert!(
                admit(&limits, &key, too_early).await.is_err(),
                "limit {limit} admits early"
            );
            let (later, _) = burst(&limits, &key, start + denied.retry_after).await;
            assert_eq!(
                later, 1,
                "limit {limit}: a caller that waits as told is admitted, and only that one"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn all_subjects_count_or_none() {
    both(|limits, now| async move {
        let wide = subject("account", requests(100));
        let narrow = subject("key", requests(2));
        let (admitted, _) = burst(&limits, &[wide.clone(), narrow.clone()], now).await;
        assert_eq!(admitted, 2);
        let quota = limits.quota(std::slice::from_ref(&wide), now);
        assert_eq!(
            left(quota.requests),
            Some(98),
            "refused requests took nothing from the other subject"
        );
        let quota = limits.quota(&[wide.clone(), narrow], now);
        assert_eq!(left(quota.requests), Some(0), "the tightest is shown");
        let (alone, _) = burst(&limits, &[wide], now).await;
        assert_eq!(alone, 98);
    })
    .await;
}

/// The response tells the longest of all waits, not that of the first limit.
#[tokio::test]
async fn who_waits_for_one_limit_does_not_run_into_the_next() {
    both(|limits, now| async move {
        let subjects = [subject("fast", requests(60)), subject("slow", requests(6))];
        for _ in 0..6 {
            admit(&limits, &subjects, now).await.unwrap();
        }
        for _ in 0..54 {
            admit(&limits, &subjects[..1], now).await.unwrap();
        }
        let denied = admit(&limits, &subjects, now).await.unwrap_err();
        assert_eq!((denied.limit, denied.retry_after.as_secs()), (6, 10));

        let quotas = Quotas {
            requests_per_minute: Some(2),
            tokens_per_minute: Some(1000),
            ..Quotas::default()
        };
        let key = [subject("both", quotas)];
        let mut first = admit(&limits, &key, now).await.unwrap();
        reserve(&mut first, 1000, now).await.unwrap();
        let mut second = admit(&limits, &key, now).await.unwrap();
        let denied = reserve(&mut second, 100, now).await.unwrap_err();
        assert_eq!(
            (denied.which, denied.retry_after.as_secs()),
            (Which::Tokens, 30),
            "6 s for the tokens, 30 s for a request: this one was counted"
        );
    })
    .await;
}

#[tokio::test]
async fn concurrent_requests_are_held_by_their_permits() {
    both(|limits, now| async move {
        let key = [subject("k", concurrent(2))];
        let first = admit(&limits, &key, now).await.unwrap();
        let second = admit(&limits, &key, now).await.unwrap();
        let denied = admit(&limits, &key, now).await.unwrap_err();
        assert_eq!((denied.which, denied.limit), (Which::Concurrent, 2));
        first.end(0, now).await;
        let third = admit(&limits, &key, now).await.unwrap();
        assert!(admit(&limits, &key, now).await.is_err());
        // A drop, as when a caller hangs up, doesn't wait for the store; the next end is sent after it.
        drop(third);
        second.end(0, now).await;
        let (_a, _b) = (
            admit(&limits, &key, now).await.unwrap(),
            admit(&limits, &key, now).await.unwrap(),
        );
        assert!(admit(&limits, &key, now).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn tokens_are_reserved_and_corrected() {
    both(|limits, now| async move {
        let key = [subject("k", tokens(1000))];
        let remaining = |limits: &Limits| left(limits.quota(&key, now).tokens);

        let mut permit = admit(&limits, &key, now).await.unwrap();
        reserve(&mut permit, 800, now).await.unwrap();
        assert_eq!(remaining(&limits), Some(200));
        let mut other = admit(&limits, &key, now).await.unwrap();
        let denied = reserve(&mut other, 300, now).await.unwrap_err();
        assert_eq!(
            (denied.which, denied.retry_after),
            (Which::Tokens, Duration::from_secs(6))
        );
        permit.end(100, now).await;
        assert_eq!(remaining(&limits), Some(900));
        reserve(&mut other, 300, now).await.unwrap();
        other.end(350, now).await;
        assert_eq!(
            remaining(&limits),
            Some(550),
            "more than reserved is counted too"
        );
        let mut refused = admit(&limits, &key, now).await.unwrap();
        reserve(&mut refused, 500, now).await.unwrap();
        refused.end(0, now).await;
        assert_eq!(remaining(&limits), Some(550), "nothing was used");
        let mut last = admit(&limits, &key, now).await.unwrap();
        reserve(&mut last, 550, now).await.unwrap();
        assert!(reserve(&mut last, 1, now).await.is_err());
    })
    .await;
}

/// The unused tokens of a slow request have come back with time; the correction must not give them back again.
#[tokio::test]
async fn a_late_correction_frees_nothing_of_others() {
    both(|limits, start| async move {
        let key = [subject("k", tokens(1000))];
        let mut slow = admit(&limits, &key, start).await.unwrap();
        reserve(&mut slow, 800, start).await.unwrap();
        let later = start + Duration::from_secs(54);
        let mut other = admit(&limits, &key, later).await.unwrap();
        reserve(&mut other, 1000, later).await.unwrap();
        slow.end(50, later).await;
        assert_eq!(left(limits.quota(&key, later).tokens), Some(0));
        assert!(reserve(&mut other, 1, later).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_limit_smaller_than_one_request_admits_one_when_full() {
    both(|limits, now| async move {
        let key = [subject("k", tokens(100))];
        let mut permit = admit(&limits, &key, now).await.unwrap();
        reserve(&mut permit, 500, now).await.unwrap();
        let denied = reserve(&mut permit, 1, now).await.unwrap_err();
        assert_eq!(denied.retry_after, Duration::from_millis(240_600));
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(reserve(&mut permit, 500, at(299)).await.is_err());
        assert!(reserve(&mut permit, 500, at(300)).await.is_ok());
    })
    .await;
}

/// A clock that jumps an hour back or forth gives a caller at most one full bucket, and locks no caller out.
#[tokio::test]
async fn a_clock_that_jumps_does_little() {
    both(|limits, start| async move {
        let at = |seconds| start + Duration::from_secs(seconds);
        let key = [subject("k", requests(6))];
        assert_eq!(burst(&limits, &key, at(7200)).await.0, 6);
        let (admitted, denied) = burst(&limits, &key, at(3600)).await;
        assert_eq!(
            (admitted, denied.retry_after.as_secs()),
            (0, 10),
            "an hour back"
        );
        assert_eq!(burst(&limits, &key, at(3610)).await.0, 1, "time goes on");
        assert_eq!(burst(&limits, &key, at(10_800)).await.0, 6, "forth");
    })
    .await;
}

#[tokio::test]
async fn no_limit_is_none_and_leaves_nothing_behind() {
    let now = Instant::now();
    let limits = Limits::new(now);
    for i in 0..3 * SUBJECTS_SWEEP {
        let key = [subject(&format!("k{i}"), Quotas::default())];
        assert!(admit(&limits, &key, now).await.is_ok());
        assert_eq!(limits.quota(&key, now), Quota::default());
        let limited = [subject(&format!("l{i}"), concurrent(1))];
        assert!(admit(&limits, &limited, now).await.is_ok());
    }
    let remembered = limits.memory.remembered();
    assert!(
        remembered <= SUBJECTS_SWEEP,
        "{remembered} subjects remembered"
    );
}

#[tokio::test]
async fn the_gauge_tells_what_is_left_and_when_it_is_full() {
    both(|limits, now| async move {
        let key = [subject("k", requests(60))];
        for _ in 0..3 {
            admit(&limits, &key, now).await.unwrap();
        }
        let gauge = |limits: &Limits, at| limits.quota(&key, at).requests.unwrap();
        let full_in = |seconds, remaining| Gauge {
            limit: 60,
            remaining,
            reset: Duration::from_secs(seconds),
        };
        assert_eq!(gauge(&limits, now), full_in(3, 57));
        let later = now + Duration::from_secs(10);
        assert_eq!(gauge(&limits, later), full_in(0, 60));
    })
    .await;
}

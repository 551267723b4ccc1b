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

/// Admits as many requests as possible at one instant; permits are dropped at once.
async fn burst(limits: &Limits, subjects: &[Subject], now: Instant) -> (u32, Denied) {
    let mut admitted = 0;
    loop {
        match limits.admit_request(subjects.to_vec(), now).await {
            Ok(_) => admitted += 1,
            Err(denied) => return (admitted, denied),
        }
    }
}

#[tokio::test]
async fn a_burst_is_exactly_the_limit_and_the_wait_is_true() {
    for limit in [1, 2, 3, 7, 11, 59, 60, 61, 600, 997, 6000] {
        let start = Instant::now();
        let limits = Limits::new(start);
        let key = [subject("k", requests(limit))];
        let (admitted, denied) = burst(&limits, &key, start).await;
        assert_eq!(admitted, limit, "burst of limit {limit}");
        assert_eq!(
            (denied.which, denied.limit),
            (Which::Requests, u64::from(limit))
        );

        let too_early = start + denied.retry_after - Duration::from_nanos(1);
        assert!(
            limits.admit_request(key.to_vec(), too_early).await.is_err(),
            "limit {limit} admits early"
        );
        let (later, _) = burst(&limits, &key, start + denied.retry_after).await;
        assert_eq!(
            later, 1,
            "limit {limit}: a caller that waits as told is admitted, and only that one"
        );
    }
}

#[tokio::test]
async fn all_subjects_count_or_none() {
    let now = Instant::now();
    let limits = Limits::new(now);
    let wide = subject("account", requests(100));
    let narrow = subject("key", requests(2));
    let (admitted, _) = burst(&limits, &[wide.clone(), narrow.clone()], now).await;
    assert_eq!(admitted, 2);
    let left = limits
        .quota(&wide, now)
        .requests
        .map(|gauge| gauge.remaining);
    assert_eq!(
        left,
        Some(98),
        "refused requests took nothing from the other subject"
    );
    let (alone, _) = burst(&limits, &[wide], now).await;
    assert_eq!(alone, 98);
}

#[tokio::test]
async fn concurrent_requests_are_held_by_their_permits() {
    let now = Instant::now();
    let limits = Limits::new(now);
    let key = vec![subject(
        "k",
        Quotas {
            concurrent_requests: Some(2),
            ..Quotas::default()
        },
    )];
    let first = limits.admit_request(key.clone(), now).await.unwrap();
    let second = limits.admit_request(key.clone(), now).await.unwrap();
    let denied = limits.admit_request(key.clone(), now).await.unwrap_err();
    assert_eq!((denied.which, denied.limit), (Which::Concurrent, 2));
    drop(first);
    let third = limits.admit_request(key.clone(), now).await.unwrap();
    assert!(limits.admit_request(key.clone(), now).await.is_err());
    drop((second, third));
    assert!(limits.admit_request(key, now).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn tokens_are_reserved_and_corrected() {
    let now = Instant::now();
    let limits = Limits::new(now);
    let key = subject(
        "k",
        Quotas {
            tokens_per_minute: Some(1000),
            ..Quotas::default()
        },
    );
    let remaining = |limits: &Limits| limits.quota(&key, now).tokens.map(|gauge| gauge.remaining);

    let mut permit = limits.admit_request(vec![key.clone()], now).await.unwrap();
    permit.admit_tokens(800, now).await.unwrap();
    assert_eq!(remaining(&limits), Some(200));
    let mut other = limits.admit_request(vec![key.clone()], now).await.unwrap();
    let denied = other.admit_tokens(300, now).await.unwrap_err();
    assert_eq!(
        (denied.which, denied.retry_after),
        (Which::Tokens, Duration::from_secs(6))
    );
    permit.true_up(100, now);
    assert_eq!(remaining(&limits), Some(900));
    other.admit_tokens(300, now).await.unwrap();
    other.true_up(350, now);
    assert_eq!(
        remaining(&limits),
        Some(550),
        "more than reserved is counted too"
    );
    let mut refused = limits.admit_request(vec![key.clone()], now).await.unwrap();
    refused.admit_tokens(500, now).await.unwrap();
    drop(refused);
    assert_eq!(remaining(&limits), Some(550), "nothing was used");
}

/// A slow request's unused tokens have come back by themselves; they must not come back twice.
#[tokio::test]
async fn a_late_correction_frees_nothing_of_others() {
    let start = Instant::now();
    let limits = Limits::new(start);
    let quotas = Quotas {
        tokens_per_minute: Some(1000),
        ..Quotas::default()
    };
    let key = subject("k", quotas);
    let mut slow = limits
        .admit_request(vec![key.clone()], start)
        .await
        .unwrap();
    slow.admit_tokens(800, start).await.unwrap();
    let later = start + Duration::from_secs(54);
    let mut other = limits
        .admit_request(vec![key.clone()], later)
        .await
        .unwrap();
    other.admit_tokens(1000, later).await.unwrap();
    slow.true_up(50, later);
    let left = limits
        .quota(&key, later)
        .tokens
        .map(|gauge| gauge.remaining);
    assert_eq!(left, Some(0));
    other.true_up(1000, later);
}

#[tokio::test]
async fn a_limit_smaller_than_one_request_admits_one_when_full() {
    let now = Instant::now();
    let limits = Limits::new(now);
    let key = subject(
        "k",
        Quotas {
            tokens_per_minute: Some(100),
            ..Quotas::default()
        },
    );
    let mut permit = limits.admit_request(vec![key], now).await.unwrap();
    permit.admit_tokens(500, now).await.unwrap();
    let denied = permit.admit_tokens(1, now).await.unwrap_err();
    assert_eq!(denied.retry_after, Duration::from_millis(240_600));
    assert!(
        permit
            .admit_tokens(500, now + Duration::from_secs(299))
            .await
            .is_err()
    );
    assert!(
        permit
            .admit_tokens(500, now + Duration::from_secs(300))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn no_limit_is_none_and_leaves_nothing_behind() {
    let now = Instant::now();
    let limits = Limits::new(now);
    for i in 0..3 * SUBJECTS_SWEEP {
        let key = subject(&format!("k{i}"), Quotas::default());
        assert!(limits.admit_request(vec![key.clone()], now).await.is_ok());
        assert_eq!(limits.quota(&key, now), Quota::default());
    }
    let remembered = limits.memory.lock().states.len();
    assert!(
        remembered <= SUBJECTS_SWEEP,
        "{remembered} subjects remembered"
    );
}

#[tokio::test]
async fn the_gauge_tells_what_is_left_and_when_it_is_full() {
    let now = Instant::now();
    let limits = Limits::new(now);
    let key = subject("k", requests(60));
    for _ in 0..3 {
        limits.admit_request(vec![key.clone()], now).await.unwrap();
    }
    let gauge = limits.quota(&key, now).requests.unwrap();
    assert_eq!(
        gauge,
        Gauge {
            limit: 60,
            remaining: 57,
            reset: Duration::from_secs(3)
        }
    );
    let later = limits
        .quota(&key, now + Duration::from_secs(10))
        .requests
        .unwrap();
    assert_eq!(
        later,
        Gauge {
            limit: 60,
            remaining: 60,
            reset: Duration::ZERO
        }
    );
}

//! Which keys are accepted, and that secrets stay secret.

use weir_accounts::{AdminError, KeyError, KeyOptions, KeyRole, Quotas, Role};

use crate::fixture::{Fixture, at, nanos, open};

#[tokio::test]
async fn only_valid_keys_are_let_in() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let account = &fixture.caller.account;
    let key = accounts
        .add_key(account, Some("laptop"), at(1))
        .await
        .unwrap();
    let other = accounts.add_key(account, None, at(2)).await.unwrap();
    let good = key.secret.expose();
    let (prefix, secret) = good.rsplit_once('_').unwrap();
    assert_eq!(prefix, format!("sk_{}", key.id));
    assert!(secret.len() == 43 && secret.bytes().all(|byte| byte.is_ascii_alphanumeric()));

    let caller = accounts.authenticate(good, at(3)).await.unwrap();
    assert_eq!((&caller.account, &caller.key), (account, &key.id));
    assert!(caller.may_use("any/model"));

    let other_secret = other.secret.expose().rsplit_once('_').unwrap().1;
    for bad in [
        String::new(),
        secret.to_owned(),
        prefix.to_owned(),
        format!("{prefix}_"),
        format!("{good}0"),
        good[..good.len() - 1].to_owned(),
        format!("{prefix}_{other_secret}"),
        format!("sk_{}_{secret}", other.id),
        format!("sk_unknown_{secret}"),
        format!("sk_' OR '1'='1_{secret}"),
        format!("sk_%_{secret}"),
        good.to_lowercase(),
        format!(" {good}"),
        format!("{good}\n"),
    ] {
        let refused = accounts.authenticate(&bad, at(3)).await;
        assert!(
            matches!(refused, Err(KeyError::Rejected)),
            "{bad:?}: {refused:?}"
        );
    }

    let names: Vec<_> = accounts
        .keys(account)
        .await
        .unwrap()
        .into_iter()
        .map(|key| key.name)
        .collect();
    assert_eq!(names, [None, Some("laptop".to_owned()), None]);
}

#[tokio::test]
async fn a_key_ends_when_it_is_revoked_or_expires() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let options = KeyOptions {
        expires_at: Some(at(10).into()),
        ..KeyOptions::default()
    };
    let expiring = accounts
        .add_key_with(&fixture.caller.account, options, at(1))
        .await
        .unwrap();
    assert!(
        accounts
            .authenticate(expiring.secret.expose(), at(9))
            .await
            .is_ok()
    );
    let expired = accounts
        .authenticate(expiring.secret.expose(), at(10))
        .await;
    assert!(matches!(expired, Err(KeyError::Rejected)), "{expired:?}");

    // A key that another process revokes is refused at once.
    let key = accounts
        .add_key(&fixture.caller.account, None, at(1))
        .await
        .unwrap();
    assert!(
        accounts
            .authenticate(key.secret.expose(), at(2))
            .await
            .is_ok()
    );
    let tool = open(fixture.folder.path(), Role::Tool).await;
    let revoked = tool.revoke_key(key.id.as_str(), at(3)).await.unwrap();
    assert_eq!(revoked.revoked_at, Some(at(3)));
    let refused = accounts.authenticate(key.secret.expose(), at(3)).await;
    assert!(matches!(refused, Err(KeyError::Rejected)), "{refused:?}");
    let again = accounts.revoke_key(key.id.as_str(), at(9)).await.unwrap();
    assert_eq!(again.revoked_at, Some(at(3)));
    let unknown = accounts.revoke_key("nosuchkey", at(3)).await;
    assert!(
        matches!(unknown, Err(AdminError::NotFound { .. })),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn a_key_may_be_for_some_models_only() {
    let fixture = Fixture::with(0).await;
    let check = async |models: Option<Vec<&str>>, may_a: bool, may_b: bool| {
        let models = models.map(|models| models.into_iter().map(str::to_owned).collect());
        let options = KeyOptions {
            models,
            ..KeyOptions::default()
        };
        let key = fixture
            .accounts
            .add_key_with(&fixture.caller.account, options, at(1))
            .await
            .unwrap();
        let caller = fixture
            .accounts
            .authenticate(key.secret.expose(), at(1))
            .await
            .unwrap();
        assert_eq!((caller.may_use("a"), caller.may_use("b")), (may_a, may_b));
    };
    check(None, true, true).await;
    check(Some(vec![]), false, false).await;
    check(Some(vec!["a"]), true, false).await;
    check(Some(vec!["a", "c", "b"]), true, true).await;
    check(Some(vec!["A", "ab"]), false, false).await;
    for bad in [
        KeyOptions {
            models: Some(vec!["a\nb".to_owned()]),
            ..KeyOptions::default()
        },
        KeyOptions {
            models: Some(vec![String::new()]),
            ..KeyOptions::default()
        },
        KeyOptions {
            name: Some(String::new()),
            ..KeyOptions::default()
        },
        KeyOptions {
            name: Some("x".repeat(65)),
            ..KeyOptions::default()
        },
        KeyOptions {
            name: Some("a\tb".to_owned()),
            ..KeyOptions::default()
        },
    ] {
        let refused = fixture
            .accounts
            .add_key_with(&fixture.caller.account, bad.clone(), at(1))
            .await;
        assert!(
            matches!(refused, Err(AdminError::Invalid { .. })),
            "{bad:?}"
        );
    }
}

/// A secret appears in no debug text, no error and no file.
#[tokio::test]
async fn a_secret_is_seen_once() {
    let fixture = Fixture::with(1_000).await;
    let accounts = &fixture.accounts;
    let key = accounts
        .add_key(&fixture.caller.account, None, at(1))
        .await
        .unwrap();
    let whole = key.secret.expose().to_owned();
    let canary = whole.rsplit_once('_').unwrap().1;
    let hold = fixture.held("r1", 10).await.unwrap();
    let shown = [
        format!("{key:?}"),
        format!("{:?}", key.secret),
        format!("{accounts:?}"),
        format!("{hold:?}"),
        format!("{:?}", fixture.hold("r2", 1)),
        format!("{:?}", accounts.authenticate(&whole, at(1)).await),
        format!(
            "{:?}",
            accounts.authenticate(&format!("{whole}x"), at(1)).await
        ),
        format!("{:?}", accounts.keys(&fixture.caller.account).await),
        format!(
            "{:?}",
            accounts
                .revoke_key(&format!("sk_nosuch_{canary}"), at(1))
                .await
        ),
        accounts
            .revoke_key(&format!("sk_nosuch_{canary}"), at(1))
            .await
            .unwrap_err()
            .to_string(),
        format!("{:?}", accounts.revoke_key(&whole, at(1)).await.unwrap()),
    ];
    for text in shown {
        assert!(!text.contains(canary), "{text}");
    }
    for file in std::fs::read_dir(fixture.folder.path()).unwrap() {
        let path = file.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let found = bytes
            .windows(canary.len())
            .any(|part| part == canary.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

/// A caller has all that the rate limits need.
#[tokio::test]
async fn a_caller_carries_its_role_and_limits() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let account = &fixture.caller.account;
    let limits = Quotas {
        requests_per_minute: Some(7),
        tokens_per_minute: Some(1 << 40),
        concurrent_requests: None,
    };
    let options = KeyOptions {
        role: KeyRole::Billing,
        limits,
        ..KeyOptions::default()
    };
    let key = accounts
        .add_key_with(account, options, at(1))
        .await
        .unwrap();
    let caller = accounts
        .authenticate(key.secret.expose(), at(1))
        .await
        .unwrap();
    assert_eq!((caller.role, caller.limits), (KeyRole::Billing, limits));
    let plain = (
        fixture.caller.role,
        fixture.caller.limits,
        fixture.caller.account_limits,
        fixture.caller.tier,
        fixture.caller.suspended,
    );
    let nothing = Quotas::default();
    assert_eq!(plain, (KeyRole::Inference, nothing, None, None, false));

    let none = KeyOptions {
        limits: Quotas {
            concurrent_requests: Some(0),
            ..nothing
        },
        ..KeyOptions::default()
    };
    let refused = accounts.add_key_with(account, none, at(1)).await;
    assert!(
        matches!(refused, Err(AdminError::Invalid { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_best_month_of_three_counts() {
    let fixture = Fixture::with(0).await;
    let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let account = &fixture.caller.account;
    for (amount, when) in [
        (900, "2023-12-31T23:59:59Z"),
        (300, "2024-01-01T00:00:00Z"),
        (200, "2024-01-31T23:59:59Z"),
        (400, "2024-03-05T00:00:00Z"),
    ] {
        fixture
            .accounts
            .credit(account, nanos(amount), when, "", time(when))
            .await
            .unwrap();
    }
    let check = async |now: &str, highest| {
        let found = fixture
            .accounts
            .highest_monthly_top_up(account, time(now))
            .await
            .unwrap();
        assert_eq!(found, nanos(highest), "{now}");
    };
    check("2024-02-29T23:59:59Z", 900).await;
    check("2024-03-01T00:00:00Z", 500).await;
    check("2024-03-31T12:00:00Z", 500).await;
    check("2024-04-01T00:00:00Z", 400).await;
    check("2024-06-01T00:00:00Z", 0).await;
}

/// A new secret that was never used, as it was lost or the command was repeated, doesn't end the one in use.
#[tokio::test]
async fn a_new_secret_that_nobody_used_is_not_the_old_one() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let first = accounts.add_key(&fixture.caller.account, None, at(0)).await;
    let first = first.unwrap();
    let id = first.id.as_str();
    let works = async |secret: &str, second| {
        let known = accounts.authenticate(secret, at(second)).await.is_ok();
        fixture.written().await;
        known
    };
    let rotate = async |second| {
        let hour = jiff::SignedDuration::from_hours(1);
        accounts.rotate_key(id, hour, at(second)).await.unwrap()
    };
    assert!(works(first.secret.expose(), 1).await);
    let lost = rotate(10).await;
    let again = rotate(20).await;
    assert!(works(first.secret.expose(), 30).await, "it is in use");
    assert!(!works(lost.secret.expose(), 30).await);
    assert!(works(again.secret.expose(), 30).await);
    // The new secret is in use now, so it is the old one after the next rotation.
    let third = rotate(40).await;
    assert!(!works(first.secret.expose(), 50).await);
    assert!(works(again.secret.expose(), 50).await);
    assert!(works(third.secret.expose(), 50).await);
    // The grace of the last rotation is the one that counts.
    let _lost = rotate(60).await;
    let _again = rotate(3_000).await;
    assert!(works(third.secret.expose(), 3_000 + 3_599).await);
    assert!(!works(third.secret.expose(), 3_000 + 3_600).await);
}

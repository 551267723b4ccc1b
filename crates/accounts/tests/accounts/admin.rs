//! Changes of keys and accounts, and their records in the audit log.

use jiff::SignedDuration;
use weir_accounts::{
    AccountChange, AccountId, Actor, AdminError, By, Caller, KeyChange, KeyError, KeyOptions,
    KeyRole, ModelQuotas, Nanos, Page, Quotas, SpendCaps, Standing, Tier,
};

use crate::fixture::{Fixture, at, nanos, success, tokens};

fn by(second: i64) -> By {
    By {
        actor: Actor::command_line("ada"),
        now: at(second),
    }
}

async fn caller(fixture: &Fixture, secret: &str, second: i64) -> Result<Caller, KeyError> {
    fixture.accounts.authenticate(secret, at(second)).await
}

#[tokio::test]
async fn a_rotated_key_has_two_secrets_for_a_while() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let first = accounts
        .add_key(&fixture.caller.account, None, at(0))
        .await
        .unwrap();
    let id = first.id.as_str();
    let second = accounts
        .rotate_key(id, SignedDuration::from_secs(60), by(10))
        .await
        .unwrap();
    assert_eq!(first.id, second.id);
    let valid = async |secret: &str, second| match caller(&fixture, secret, second).await {
        Ok(caller) => {
            assert_eq!(caller.key, first.id);
            true
        }
        Err(KeyError::Rejected) => false,
        Err(error) => panic!("{error}"),
    };
    let [one, two] = [first.secret.expose(), second.secret.expose()];
    assert_ne!(one, two);
    assert_eq!([valid(one, 69).await, valid(two, 69).await], [true, true]);
    assert_eq!([valid(one, 70).await, valid(two, 70).await], [false, true]);

    // Rotated once more within the grace: only the last two secrets count.
    let grace = SignedDuration::from_secs(1000);
    let third = accounts.rotate_key(two, grace, by(30)).await.unwrap();
    let three = third.secret.expose();
    let all = [
        valid(one, 31).await,
        valid(two, 31).await,
        valid(three, 31).await,
    ];
    assert_eq!(all, [false, true, true]);

    // The secret has leaked: without a grace the old one ends at once.
    let fourth = accounts
        .rotate_key(id, SignedDuration::ZERO, by(40))
        .await
        .unwrap();
    let four = fourth.secret.expose();
    let all = [
        valid(two, 40).await,
        valid(three, 40).await,
        valid(four, 40).await,
    ];
    assert_eq!(all, [false, false, true]);

    accounts.revoke_key(id, by(50)).await.unwrap();
    assert!(!valid(four, 50).await);
    let hours = |hours| SignedDuration::from_hours(hours);
    for (id, grace, words) in [
        (id, hours(1), "is revoked"),
        ("nosuch", hours(1), "there is no key"),
        (id, hours(-1), "0 seconds to 30 days"),
        (id, hours(721), "0 seconds to 30 days"),
    ] {
        let refused = accounts.rotate_key(id, grace, by(60)).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
}

#[tokio::test]
async fn a_key_is_changed_in_parts() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let options = KeyOptions {
        name: Some("old".to_owned()),
        ..KeyOptions::default()
    };
    let key = accounts
        .add_key_with(&fixture.caller.account, options, by(1))
        .await
        .unwrap();
    let id = key.id.as_str();
    let change = async |change: KeyChange| accounts.update_key(id, change, by(2)).await;
    let limits = Quotas {
        requests_per_minute: Some(5),
        ..Quotas::default()
    };
    let caps = SpendCaps {
        day: Some(nanos(7)),
        ..SpendCaps::default()
    };
    let changed = change(KeyChange {
        limits: Some(limits),
        caps: Some(caps),
        models: Some(Some(vec!["a".to_owned()])),
        ..KeyChange::default()
    })
    .await
    .unwrap();
    assert_eq!((changed.limits, changed.caps), (limits, caps));
    assert_eq!(changed.name.as_deref(), Some("old"));
    let changed = change(KeyChange {
        name: Some(None),
        models: Some(None),
        expires_at: Some(Some(at(9).into())),
        ..KeyChange::default()
    })
    .await
    .unwrap();
    assert_eq!((changed.limits, changed.caps), (limits, caps));
    let rest = (changed.name, changed.models, changed.expires_at);
    assert_eq!(rest, (None, None, Some(at(9))));
    assert!(caller(&fixture, key.secret.expose(), 9).await.is_err());

    let refused = change(KeyChange {
        caps: Some(SpendCaps {
            total: Some(nanos(-1)),
            ..caps
        }),
        ..KeyChange::default()
    })
    .await;
    assert!(
        matches!(refused, Err(AdminError::Invalid { .. })),
        "{refused:?}"
    );
    accounts.revoke_key(id, by(3)).await.unwrap();
    let refused = change(KeyChange::default()).await.unwrap_err();
    assert!(refused.to_string().contains("is revoked"), "{refused}");
}

/// Requests with the same idempotency key make one key, also when they come at once.
#[tokio::test]
async fn an_idempotency_key_makes_one_key() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let demo = &fixture.caller.account;
    let other = accounts.add_account("other", by(0)).await.unwrap().id;
    let make = async |account: &AccountId, idempotency_key: &str| {
        let options = KeyOptions {
            idempotency_key: Some(idempotency_key.to_owned()),
            ..KeyOptions::default()
        };
        accounts.add_key_with(account, options, by(1)).await
    };
    let (one, two) = tokio::join!(make(demo, "a"), make(demo, "a"));
    let (made, refused) = match (one, two) {
        (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
        both => panic!("{both:?}"),
    };
    assert!(
        matches!(&refused, AdminError::KeyMade(id) if *id == made.id),
        "{refused:?}"
    );
    let elsewhere = make(&other, "a").await;
    assert!(
        matches!(&elsewhere, Err(AdminError::IdempotencyConflict(key)) if key == "a"),
        "{elsewhere:?}"
    );
    assert_ne!(make(demo, "b").await.unwrap().id, made.id);
    for bad in ["", "a\nb", &"x".repeat(257)] {
        let refused = make(demo, bad).await;
        assert!(
            matches!(&refused, Err(AdminError::Invalid { .. })),
            "{bad:?}: {refused:?}"
        );
    }
    // The fixture's key, and the two made here; each has one audit record.
    assert_eq!(accounts.keys(demo).await.unwrap().len(), 3);
    assert_eq!(accounts.keys(&other).await.unwrap(), []);
    let page = Page {
        before: None,
        limit: 100,
    };
    let log = accounts.audit(None, page).await.unwrap();
    let added = log.iter().filter(|record| record.act == "key.add");
    assert_eq!(added.count(), 3);
}

/// The last use is written with the next transaction, at most once a minute.
#[tokio::test]
async fn the_last_use_of_a_key_is_known_to_the_minute() {
    let fixture = Fixture::with(0).await;
    let key = fixture
        .accounts
        .add_key(&fixture.caller.account, None, at(0))
        .await
        .unwrap();
    let used = async |second| {
        caller(&fixture, key.secret.expose(), second).await.unwrap();
        fixture.written().await;
        let keys = fixture
            .accounts
            .keys(&fixture.caller.account)
            .await
            .unwrap();
        keys.iter()
            .find(|info| info.id == key.id)
            .unwrap()
            .last_used_at
    };
    assert_eq!(used(10).await, Some(at(10)));
    assert_eq!(used(69).await, Some(at(10)));
    assert_eq!(used(70).await, Some(at(70)));
    assert_eq!(used(20).await, Some(at(70)), "a clock that was set back");
    let wrong = format!("{}x", key.secret.expose());
    assert!(caller(&fixture, &wrong, 900).await.is_err());
    assert_eq!(used(80).await, Some(at(70)));
}

#[tokio::test]
async fn an_account_is_changed_in_parts() {
    let fixture = Fixture::with(100).await;
    let accounts = &fixture.accounts;
    let account = &fixture.caller.account;
    let change =
        async |change: AccountChange| accounts.update_account(account, change, by(1)).await;
    let limits = Quotas {
        tokens_per_minute: Some(9),
        ..Quotas::default()
    };
    let changed = change(AccountChange {
        name: Some("renamed".to_owned()),
        credit_limit: Some(nanos(50)),
        low_balance: Some(Some(nanos(10))),
        tier: Some(Some(Tier::T3)),
        limits: Some(limits),
        ..AccountChange::default()
    })
    .await
    .unwrap();
    assert_eq!(changed, accounts.account("renamed").await.unwrap());
    let money = (changed.posted, changed.credit_limit, changed.available);
    assert_eq!(money, (nanos(100), nanos(50), nanos(150)));
    assert_eq!(changed.low_balance, Some(nanos(10)));
    let key = accounts.add_key(account, None, at(1)).await.unwrap();
    let seen = caller(&fixture, key.secret.expose(), 2).await.unwrap();
    let limited = (seen.account_limits, seen.tier, seen.suspended);
    assert_eq!(limited, (Some(limits), Some(Tier::T3), false));

    let suspend = |reason: &str| AccountChange {
        standing: Some(Standing::Suspended {
            reason: reason.to_owned(),
        }),
        tier: Some(None),
        ..AccountChange::default()
    };
    let suspended = change(suspend("unpaid")).await.unwrap().suspended.unwrap();
    assert_eq!(
        (suspended.since, suspended.reason.as_str()),
        (at(1), "unpaid")
    );
    let seen = caller(&fixture, key.secret.expose(), 2).await.unwrap();
    assert_eq!((seen.tier, seen.suspended), (None, true));
    let active = AccountChange {
        standing: Some(Standing::Active),
        ..AccountChange::default()
    };
    assert_eq!(change(active).await.unwrap().suspended, None);

    let other = accounts.add_account("other", at(1)).await.unwrap();
    let named = |name: &str| AccountChange {
        name: Some(name.to_owned()),
        ..AccountChange::default()
    };
    let taken = accounts
        .update_account(&other.id, named("renamed"), by(1))
        .await;
    assert!(matches!(taken, Err(AdminError::NameTaken(_))), "{taken:?}");
    let bad = accounts
        .update_account(&other.id, named("a b"), by(1))
        .await;
    assert!(matches!(bad, Err(AdminError::Invalid { .. })), "{bad:?}");
    let bad = change(suspend("")).await;
    assert!(matches!(bad, Err(AdminError::Invalid { .. })), "{bad:?}");
}

/// A caller has its account's limits for models; they go before those for every model, limit by limit.
#[tokio::test]
async fn an_account_has_limits_for_models() {
    let fixture = Fixture::with(0).await;
    let accounts = &fixture.accounts;
    let account = &fixture.caller.account;
    let key = accounts.add_key(account, None, at(0)).await.unwrap();
    let seen = async |model: &str| {
        let caller = caller(&fixture, key.secret.expose(), 2).await.unwrap();
        caller.asking_for(model).account_limits
    };
    assert_eq!(seen("a").await, None);
    let quotas = |requests, tokens| Quotas {
        requests_per_minute: requests,
        tokens_per_minute: tokens,
        concurrent_requests: None,
    };
    let change = async |limits, model_limits: ModelQuotas| {
        let change = AccountChange {
            limits,
            model_limits: Some(model_limits),
            ..AccountChange::default()
        };
        accounts.update_account(account, change, by(1)).await
    };
    let of_a = |limits| {
        [("a".to_owned(), limits)]
            .into_iter()
            .collect::<ModelQuotas>()
    };
    let changed = change(None, of_a(quotas(Some(1), None))).await.unwrap();
    assert_eq!(changed, accounts.account("demo").await.unwrap());
    assert_eq!(seen("a").await, Some(quotas(Some(1), None)));
    assert_eq!(seen("b").await, None);
    let both = change(
        Some(quotas(Some(7), Some(8))),
        of_a(quotas(Some(1), None)).with("b".to_owned(), quotas(None, Some(2))),
    );
    both.await.unwrap();
    assert_eq!(seen("a").await, Some(quotas(Some(1), Some(8))));
    assert_eq!(seen("b").await, Some(quotas(Some(7), Some(2))));
    assert_eq!(seen("c").await, Some(quotas(Some(7), Some(8))));
    let many = |count| {
        let models = (0..count).map(|n| (format!("m{n}"), quotas(Some(1), None)));
        models.collect::<ModelQuotas>()
    };
    change(None, many(100)).await.unwrap();
    for bad in [
        many(101),
        of_a(quotas(Some(0), None)),
        many(0).with("a\nb".to_owned(), quotas(Some(1), None)),
        many(0).with("x".repeat(257), quotas(Some(1), None)),
    ] {
        let refused = change(None, bad).await;
        assert!(
            matches!(refused, Err(AdminError::Invalid { .. })),
            "{refused:?}"
        );
    }
    let changed = change(Some(Quotas::default()), many(0)).await.unwrap();
    assert_eq!(changed.model_limits, ModelQuotas::default());
    assert_eq!(seen("a").await, None);
}

/// Post-paid: the balance may go below zero as far as the limit, which can't be less than what is owed.
#[tokio::test]
async fn a_credit_limit_is_used_and_not_undercut() {
    let fixture = Fixture::with(100).await;
    let limit = async |limit: i64| {
        let change = AccountChange {
            credit_limit: Some(nanos(limit)),
            ..AccountChange::default()
        };
        let account = &fixture.caller.account;
        fixture
            .accounts
            .update_account(account, change, by(1))
            .await
    };
    assert!(fixture.held("r1", 101).await.is_err());
    limit(50).await.unwrap();
    let hold = fixture.held("r1", 150).await.unwrap();
    assert!(fixture.held("r2", 1).await.is_err());
    fixture
        .accounts
        .settle(hold, success(tokens(130, 0)))
        .await
        .unwrap();
    assert_eq!(fixture.account().await.posted, nanos(-30));
    assert_eq!(limit(30).await.unwrap().available, nanos(0));
    for bad in [29, 0, -1] {
        let refused = limit(bad).await;
        assert!(
            matches!(refused, Err(AdminError::Invalid { .. })),
            "{refused:?}"
        );
    }
    fixture.assert_books().await;
}

#[tokio::test]
async fn every_act_is_in_the_audit_log() {
    let fixture = Fixture::with(5).await;
    let accounts = &fixture.accounts;
    let account = &fixture.caller.account;
    let options = KeyOptions {
        role: KeyRole::Viewer,
        ..KeyOptions::default()
    };
    let key = accounts
        .add_key_with(account, options, by(1))
        .await
        .unwrap();
    let id = key.id.as_str();
    let change = KeyChange {
        name: Some(Some("n".to_owned())),
        ..KeyChange::default()
    };
    accounts
        .update_key(id, change.clone(), by(2))
        .await
        .unwrap();
    // A change that changes nothing is no act.
    accounts.update_key(id, change, by(3)).await.unwrap();
    accounts
        .rotate_key(id, SignedDuration::ZERO, by(4))
        .await
        .unwrap();
    accounts.revoke_key(id, by(5)).await.unwrap();
    accounts.revoke_key(id, by(6)).await.unwrap();
    let suspend = AccountChange {
        standing: Some(Standing::Suspended {
            reason: "why".to_owned(),
        }),
        ..AccountChange::default()
    };
    let admin = By {
        actor: Actor::key(&key.id),
        now: at(7),
    };
    accounts
        .update_account(account, suspend, admin)
        .await
        .unwrap();
    let too_much = accounts.credit(account, Nanos::MAX, "x", "", by(8)).await;
    assert!(too_much.is_err());

    let page = |before, limit| accounts.audit(Some(account), Page { before, limit });
    let log = page(None, 100).await.unwrap();
    let acts: Vec<_> = log
        .iter()
        .map(|record| (record.act.as_str(), record.actor.clone(), record.at))
        .collect();
    let cli = || "cli:ada".to_owned();
    let system = || "system".to_owned();
    assert_eq!(
        acts,
        [
            ("account.update", format!("key:{id}"), at(7)),
            ("key.revoke", cli(), at(5)),
            ("key.rotate", cli(), at(4)),
            ("key.update", cli(), at(2)),
            ("key.add", cli(), at(1)),
            ("key.add", system(), at(0)),
            ("credit.top_up", system(), at(0)),
            ("account.add", system(), at(0)),
        ]
    );
    let update = &log[3];
    assert_eq!(update.target, id);
    let states = (update.old.as_deref(), update.new.as_deref());
    assert_eq!(states, (Some(r#"{"name":null}"#), Some(r#"{"name":"n"}"#)));
    let secret = key.secret.expose().rsplit_once('_').unwrap().1;
    assert!(!format!("{log:?}").contains(secret));

    let first = page(None, 3).await.unwrap();
    assert_eq!(first, log[..3]);
    let second = page(Some(first[2].id), 100).await.unwrap();
    assert_eq!(second, log[3..]);
    let all = Page {
        before: None,
        limit: u32::MAX,
    };
    assert_eq!(accounts.audit(None, all).await.unwrap(), log);
}

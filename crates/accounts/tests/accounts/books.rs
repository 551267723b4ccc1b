//! Top-ups, and whether verification finds tampering.

use weir_accounts::{AdminError, Hold, Nanos, Promo, Role};

use crate::POSTGRES;
use crate::fixture::{Fixture, at, nanos, open, raw, success, tokens};

#[tokio::test]
async fn a_replayed_credit_changes_nothing() {
    let fixture = Fixture::with(0).await;
    let account = &fixture.caller.account;
    let credit = async |amount, key: &str, second| {
        fixture
            .accounts
            .credit(account, nanos(amount), key, "top-up", at(second))
            .await
    };
    let first = credit(500, "a", 1).await.unwrap();
    assert_eq!(
        (first.posted, first.at, first.replayed),
        (nanos(500), at(1), false)
    );
    assert_eq!(credit(70, "b", 2).await.unwrap().posted, nanos(570));
    let replayed = credit(500, "a", 3).await.unwrap();
    assert_eq!(
        (replayed.posted, replayed.at, replayed.replayed),
        (nanos(500), at(1), true)
    );
    assert_eq!(fixture.balance().await, (570, 0));

    let conflict = credit(501, "a", 4).await;
    assert!(
        matches!(&conflict, Err(AdminError::IdempotencyConflict(key)) if key == "a"),
        "{conflict:?}"
    );
    assert_eq!(fixture.balance().await, (570, 0));
    // Each account has idempotency keys of its own.
    let other = fixture.accounts.add_account("other", at(0)).await.unwrap();
    let paid = fixture
        .accounts
        .credit(&other.id, nanos(500), "a", "top-up", at(4))
        .await;
    assert!(!paid.unwrap().replayed);
    fixture.assert_books().await;
}

#[tokio::test]
async fn credits_that_make_no_sense_are_refused() {
    let fixture = Fixture::with(1).await;
    let account = &fixture.caller.account;
    let check = async |amount: Nanos, key: &str, message: &str| {
        let refused = fixture
            .accounts
            .credit(account, amount, key, "", at(1))
            .await
            .unwrap_err();
        let is_invalid = matches!(
            refused,
            AdminError::Invalid { .. } | AdminError::BadIdempotencyKey(_)
        );
        assert!(is_invalid, "{refused:?}");
        assert!(refused.to_string().contains(message), "{refused}");
    };
    check(Nanos::ZERO, "a", "more than 0").await;
    check(nanos(-1), "a", "more than 0").await;
    check(nanos(1), "", "idempotency key").await;
    check(nanos(1), &"x".repeat(201), "idempotency key").await;
    check(Nanos::MAX, "a", "too large a balance").await;
    assert_eq!(fixture.balance().await, (1, 0));
    fixture.assert_books().await;
}

#[tokio::test]
async fn accounts_are_found_by_name_and_id() {
    let fixture = Fixture::with(7).await;
    let demo = fixture.account().await;
    assert_eq!(
        fixture.accounts.account(demo.id.as_str()).await.unwrap(),
        demo
    );
    let taken = fixture.accounts.add_account("demo", at(1)).await;
    assert!(
        matches!(&taken, Err(AdminError::NameTaken(name)) if name == "demo"),
        "{taken:?}"
    );
    let bad = fixture.accounts.add_account("two words", at(1)).await;
    assert!(matches!(bad, Err(AdminError::Invalid { .. })), "{bad:?}");
    let none = fixture.accounts.account("' OR 1=1 --").await;
    assert!(matches!(none, Err(AdminError::NotFound { .. })), "{none:?}");
    let ada = fixture.accounts.add_account("ada", at(1)).await.unwrap();
    let accounts = &fixture.accounts;
    let all = [ada, demo];
    assert_eq!(accounts.accounts().await.unwrap(), all);
    assert_eq!(accounts.accounts_after("", 1).await.unwrap(), all[..1]);
    assert_eq!(accounts.accounts_after("ada", 9).await.unwrap(), all[1..]);
    assert_eq!(accounts.accounts_after("demo", 9).await.unwrap(), []);
}

/// Every kind of difference is found and named.
#[tokio::test]
async fn tampering_is_found() {
    for (tamper, named) in [
        (
            "UPDATE balance SET posted = posted + 1",
            "0.000001051 posted and 0.0000001 held, the entries 0.00000085 in the wallet",
        ),
        (
            "UPDATE balance SET posted = posted + 1",
            "the balance says that posted is 0.000001051, its last transaction 0.00000105",
        ),
        (
            "UPDATE balance SET held = held - 1",
            "the balance says that held is 0.000000099, its open holds 0.0000001",
        ),
        (
            "UPDATE entry SET amount = amount + 1 WHERE book = 'revenue'",
            "its entries sum to 0.000000001",
        ),
        (
            "UPDATE entry SET amount = amount + 1 WHERE book = 'revenue'",
            "revenue got 0.000000051",
        ),
        (
            "DELETE FROM entry WHERE book LIKE 'wallet:%'",
            "in the wallet",
        ),
        (
            "UPDATE entry SET book = 'wallet:nobody' WHERE book LIKE 'wallet:%' AND amount > 900",
            "book wallet:nobody: its entries sum to 0.000001, and it is no account's",
        ),
        (
            "DELETE FROM entry WHERE book IN ('funding', 'promotion')
                 OR book LIKE 'wallet:%' AND amount = 1000 OR book LIKE 'promo:%' AND amount = 100",
            "a credit without entries",
        ),
        (
            "UPDATE usage_record SET cost = cost - 1 WHERE request = 'r1'",
            "its tokens cost 0.00000005, the usage record says 0.000000049",
        ),
        (
            "UPDATE usage_record SET completion = 21",
            "its tokens cost 0.000000052",
        ),
        (
            "UPDATE usage_record SET completion = 9000000000000000000, held = 0, cost = 0",
            "its tokens cost 0, the usage record says 0, revenue got 0.00000005",
        ),
        (
            "UPDATE usage_record SET completion = -1",
            "its tokens cost 0.0000003, the usage record says 0.00000005",
        ),
        ("UPDATE price SET output = 30", "its tokens cost 0.00000007"),
        (
            "DELETE FROM usage_record",
            "revenue of 0.00000005 without a usage record",
        ),
        (
            "UPDATE hold SET state = 'released' WHERE state = 'open'",
            "its open holds 0",
        ),
        (
            "UPDATE hold SET state = 'released' WHERE state = 'open'",
            "request r2: its hold is released, with 1 transactions that made it and 0 that ended it",
        ),
        (
            "UPDATE hold SET state = 'open' WHERE request = 'r1'",
            "a settle moves -0.0000003 of what is held; the hold of request r1 is open",
        ),
        (
            "UPDATE hold SET state = 'open' WHERE request = 'r1'",
            "of request r1: the usage record says that 0.0000003 was held, and its hold is open",
        ),
        (
            "UPDATE hold SET state = 'released' WHERE request = 'r1'",
            "and its hold is released with 0.0000003",
        ),
        (
            "UPDATE hold SET amount = amount + 1 WHERE request = 'r2'",
            "request r2: its hold has 0.000000101, its transactions took 0.0000001",
        ),
        (
            "UPDATE hold SET amount = amount + 1 WHERE request = 'r3'",
            "request r3: its hold has 0.000000121, its transactions took 0.00000012",
        ),
        (
            "UPDATE usage_record SET request = 'r9' WHERE request = 'r1'",
            "and another's hold is settled",
        ),
        (
            "DELETE FROM ledger_transaction WHERE kind = 'settle'",
            "request r1: its hold is settled, with 1 transactions that made it and 0 that ended it",
        ),
        (
            "DELETE FROM ledger_transaction WHERE kind = 'settle'",
            "of request r1: a usage record without a hold",
        ),
        (
            "DELETE FROM hold WHERE request = 'r2'",
            "and there is no such hold",
        ),
        (
            "DELETE FROM hold WHERE request = 'r1'",
            "for a hold that isn't there",
        ),
        ("DELETE FROM usage_day", "0 requests, its usage records 1"),
        (
            "UPDATE usage_day SET day = day + 1",
            "1 requests for 0.00000005 without a usage record",
        ),
        (
            "UPDATE usage_day SET requests = 0, cost = 1 WHERE requests = 1",
            "0 requests, its usage records",
        ),
        (
            "UPDATE usage_day SET prompt = prompt + 1",
            "11 prompt tokens, its usage records 10",
        ),
        (
            "UPDATE usage_day SET completion = 0",
            "0 completion tokens, its usage records 20",
        ),
        (
            "UPDATE usage_day SET reasoning = 7",
            "7 reasoning tokens, its usage records 0",
        ),
        (
            "UPDATE usage_day SET cached = 7",
            "7 cached tokens, its usage records 0",
        ),
        (
            "UPDATE usage_day SET cost = cost + 1",
            "51 nano-USD of cost, its usage records 50",
        ),
        (
            "UPDATE balance SET promo = promo - 1",
            "the balance says it has promotional credit of 0.000000099, the entries 0.0000001",
        ),
        (
            "UPDATE balance SET promo = promo - 1",
            "the balance says it has promotional credit of 0.000000099, its promos 0.0000001",
        ),
        (
            "UPDATE promo SET amount = amount + 1",
            "it says that it was 0.000000101, the entries 0.0000001",
        ),
        (
            "UPDATE promo SET free = free - 1, held = 1",
            "its uses leave",
        ),
        (
            "UPDATE hold SET promo = 1 WHERE request = 'r2'",
            "its hold has promotional credit of 0.000000001, its uses of promos 0",
        ),
        (
            "INSERT INTO promo_use (hold, promo, held) SELECT h.id, p.id, 5 FROM hold h, promo p WHERE request = 'r1'",
            "its hold has ended and has promotional credit of 0, its uses of promos 0.000000005",
        ),
        (
            "UPDATE usage_record SET promo = 1 WHERE request = 'r1'",
            "its usage record says that promotional credit paid 0.000000001, its uses of promos 0",
        ),
    ] {
        let (fixture, _holds) = busy().await;
        let mut raw = raw(fixture.folder.path()).await;
        raw.disable_triggers().await;
        raw.execute(tamper).await.unwrap();
        let differences = fixture.accounts.verify().await.unwrap().join("\n");
        assert!(differences.contains(named), "{tamper}: {differences}");
    }
}

/// The differences that are found when a server starts.
#[tokio::test]
async fn tampering_with_balances_is_found_quickly() {
    for (tamper, named) in [
        (
            "UPDATE balance SET posted = posted + 1",
            "the balance says that posted is 0.000001051, its last transaction 0.00000105",
        ),
        (
            "UPDATE balance SET held = held - 1",
            "the balance says that held is 0.000000099, its open holds 0.0000001",
        ),
        (
            "UPDATE balance SET promo = promo - 1",
            "of 0.000000099, its promos 0.0000001",
        ),
        (
            "UPDATE hold SET promo = 1 WHERE request = 'r2'",
            "its hold has promotional credit of 0.000000001, its uses of promos 0",
        ),
    ] {
        let (fixture, _holds) = busy().await;
        let quickly = async || fixture.accounts.verify_quickly().await.unwrap();
        assert_eq!(quickly().await, [""; 0]);
        let mut raw = raw(fixture.folder.path()).await;
        raw.execute(tamper).await.unwrap();
        let differences = quickly().await.join("\n");
        assert!(differences.contains(named), "{tamper}: {differences}");
    }
}

/// A settled request, an open one, one that was extended and released, and promo credit that came last.
async fn busy() -> (Fixture, Hold) {
    let fixture = Fixture::with(1_000).await;
    let accounts = &fixture.accounts;
    let hold = fixture.held("r1", 300).await.unwrap();
    accounts
        .settle(hold, success(tokens(10, 20)))
        .await
        .unwrap();
    let open = fixture.held("r2", 100).await.unwrap();
    let mut extended = fixture.held("r3", 70).await.unwrap();
    accounts
        .extend(&mut extended, nanos(50), at(2))
        .await
        .unwrap();
    accounts.release(extended, at(3)).await.unwrap();
    let promo = Promo {
        account: fixture.caller.account.clone(),
        amount: nanos(100),
        expires_at: at(9_000).into(),
        idempotency_key: "promo".to_owned(),
        reason: "a test".to_owned(),
    };
    accounts.give_promo(promo, at(4)).await.unwrap();
    fixture.assert_books().await;
    (fixture, open)
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_not_be() {
    let fixture = Fixture::with(1_000).await;
    let hold = fixture.held("r1", 300).await.unwrap();
    fixture
        .accounts
        .settle(hold, success(tokens(10, 20)))
        .await
        .unwrap();
    let mut raw = raw(fixture.folder.path()).await;
    let mut check = async |sql: &'static str, reason: &str| {
        let refused = raw.execute(sql).await.unwrap_err().to_string();
        let refused = refused.to_lowercase();
        assert!(refused.contains(reason), "{sql}: {refused}");
    };
    check("UPDATE entry SET amount = 1", "append-only").await;
    check("DELETE FROM entry", "append-only").await;
    check("UPDATE ledger_transaction SET reason = 'x'", "append-only").await;
    check("DELETE FROM ledger_transaction", "append-only").await;
    check("UPDATE price SET input = 0", "append-only").await;
    check("UPDATE balance SET posted = -1", "check").await;
    check("UPDATE balance SET held = posted + 1", "check").await;
    check("UPDATE balance SET held = -1", "check").await;
    if POSTGRES {
        check("TRUNCATE entry", "append-only").await;
    } else {
        check("UPDATE balance SET posted = 0.5", "cannot store real").await;
    }
    check("UPDATE usage_record SET cost = held + 1", "check").await;
}

/// The command line tops up while the server holds and settles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_write_at_once() {
    let fixture = Fixture::with(10_000).await;
    let tool = open(fixture.folder.path(), Role::Tool).await;
    let account = fixture.caller.account.clone();
    let credits = async {
        for n in 0..60 {
            let key = format!("credit {n}");
            tool.credit(&account, nanos(10), &key, "", at(2))
                .await
                .unwrap();
        }
    };
    let requests = (0..60).map(async |n| {
        let hold = fixture.held(&format!("r{n}"), 100).await.unwrap();
        fixture
            .accounts
            .settle(hold, success(tokens(1, 0)))
            .await
            .unwrap();
    });
    tokio::join!(credits, futures::future::join_all(requests));
    assert_eq!(fixture.balance().await, (10_000 + 600 - 60, 0));
    assert_eq!(tool.account("demo").await.unwrap(), fixture.account().await);
    fixture.assert_books().await;
}

//! Accounts are deleted: they can't be used any more, and no record is lost.

use jiff::SignedDuration;
use weir_accounts::{
    AccountChange, AccountId, Adjustment, AdminError, Expiry, KeyOptions, Nanos, Page, Promo,
    Refund, Remainder,
};

use crate::fixture::{Fixture, at, nanos, success, tokens};

fn write_off() -> Remainder {
    Remainder::WriteOff {
        reason: "closed".to_owned(),
    }
}

const PAGE: Page = Page {
    before: None,
    limit: 100,
};

impl Fixture {
    fn id(&self) -> &AccountId {
        &self.caller.account
    }

    async fn delete(&self, remainder: Remainder) -> Result<weir_accounts::Account, AdminError> {
        self.accounts
            .delete_account(self.id(), remainder, at(10))
            .await
    }

    async fn promo(&self, amount: i64, expires: i64) {
        let promo = Promo {
            account: self.id().clone(),
            amount: nanos(amount),
            expires_at: Expiry::At(at(expires)),
            idempotency_key: format!("promo-{amount}"),
            reason: "welcome".to_owned(),
        };
        self.accounts.give_promo(promo, at(1)).await.unwrap();
    }

    async fn lend(&self, limit: i64) {
        let change = AccountChange {
            credit_limit: Some(nanos(limit)),
            low_balance: Some(Some(nanos(5))),
            ..AccountChange::default()
        };
        self.accounts
            .update_account(self.id(), change, at(1))
            .await
            .unwrap();
    }

    async fn spend(&self, request: &str) {
        let hold = self.held(request, 1000).await.unwrap();
        self.accounts
            .settle(hold, success(tokens(1, 1)))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_account_with_money_or_open_requests_stays() {
    let fixture = Fixture::with(5000).await;
    let hold = fixture.held("open", 1000).await.unwrap();
    for remainder in [Remainder::Refuse, write_off()] {
        let refused = fixture.delete(remainder).await.unwrap_err();
        assert!(
            matches!(&refused, AdminError::NotEmpty(why) if why.contains("open requests")),
            "{refused}"
        );
    }
    fixture.accounts.release(hold, at(2)).await.unwrap();
    let refused = fixture.delete(Remainder::Refuse).await.unwrap_err();
    assert!(
        matches!(&refused, AdminError::NotEmpty(why) if why.contains("a balance of 0.000005 USD")),
        "{refused}"
    );
    let account = fixture.account().await;
    assert_eq!((account.posted, account.deleted_at), (nanos(5000), None));
    fixture.assert_books().await;
}

/// Writing off leaves no cash, promo credit or debt, and books that balance.
#[tokio::test]
async fn balances_are_written_off() {
    // Cash, promo credit, and the credit limit.
    let rows = [
        (0, 0, 0),
        (5000, 0, 0),
        (0, 700, 0),
        (5000, 700, 0),
        (0, 0, 2000),
        (0, 5000, 6000),
        (40, 0, 2000),
    ];
    for (cash, promo, limit) in rows {
        let fixture = Fixture::with(cash).await;
        if promo > 0 {
            fixture.promo(promo, 1000).await;
        }
        if limit > 0 {
            fixture.lend(limit).await;
            fixture.spend("spent").await;
            let adjustment = Adjustment {
                account: fixture.id().clone(),
                amount: nanos(-100),
                idempotency_key: "owed".to_owned(),
                reason: "owed".to_owned(),
            };
            fixture.accounts.adjust(adjustment, at(3)).await.unwrap();
        }
        let empty = (cash, promo, limit) == (0, 0, 0);
        assert_eq!(fixture.delete(Remainder::Refuse).await.is_ok(), empty);
        let deleted = fixture.delete(write_off()).await.unwrap();
        let left = [
            deleted.posted,
            deleted.held,
            deleted.promo,
            deleted.available,
            deleted.credit_limit,
        ];
        assert_eq!(left, [Nanos::ZERO; 5], "{cash} {promo} {limit}");
        assert_eq!(deleted.deleted_at, Some(at(10)));
        fixture.assert_books().await;
        // A promo whose time is over later changes nothing, either.
        fixture.accounts.expire(at(2000)).await.unwrap();
        fixture.assert_books().await;
    }
}

#[tokio::test]
async fn records_stay_and_the_name_is_free() {
    let fixture = Fixture::with(5000).await;
    let accounts = &fixture.accounts;
    fixture.spend("spent").await;
    accounts
        .add_key(fixture.id(), Some("second"), at(2))
        .await
        .unwrap();
    let before = accounts.usage(fixture.id(), 10).await.unwrap();
    fixture.delete(write_off()).await.unwrap();

    let old = fixture.id().as_str();
    assert!(matches!(
        accounts.account("demo").await,
        Err(AdminError::NotFound { .. })
    ));
    assert_eq!(
        accounts.account(old).await.unwrap().name,
        format!("demo~{old}")
    );
    let new = accounts.add_account("demo", at(20)).await.unwrap();
    assert_ne!(new.id, *fixture.id());
    assert_eq!(accounts.account("demo").await.unwrap(), new);
    assert_eq!(accounts.usage(&new.id, 10).await.unwrap(), []);

    assert_eq!(accounts.usage(fixture.id(), 10).await.unwrap(), before);
    let keys = accounts.keys(fixture.id()).await.unwrap();
    assert_eq!(keys.len(), 2);
    assert!(keys.iter().all(|key| key.revoked_at == Some(at(10))));
    let ledger = accounts.ledger(fixture.id(), PAGE).await.unwrap();
    assert_eq!(
        (&*ledger[0].kind, ledger[0].reason.as_deref()),
        ("adjustment", Some("closed"))
    );
    assert_eq!(accounts.whole_ledger(PAGE).await.unwrap(), ledger);
    let acts = accounts.audit(Some(fixture.id()), PAGE).await.unwrap();
    let acts: Vec<_> = acts.iter().take(4).map(|act| &*act.act).collect();
    assert_eq!(
        acts,
        [
            "account.delete",
            "key.revoke",
            "key.revoke",
            "credit.adjust"
        ]
    );
}

#[tokio::test]
async fn nothing_can_be_done_with_a_deleted_account() {
    let fixture = Fixture::with(5000).await;
    let accounts = &fixture.accounts;
    let key = accounts.add_key(fixture.id(), None, at(1)).await.unwrap();
    fixture.spend("spent").await;
    let deleted = fixture.delete(write_off()).await.unwrap();
    assert!(
        accounts
            .authenticate(key.secret.expose(), at(11))
            .await
            .is_err()
    );
    let id = fixture.id();
    let of = |key: &str| (id.clone(), key.to_owned(), "late".to_owned());
    let (account, idempotency_key, reason) = of("adjust");
    let adjustment = Adjustment {
        account,
        amount: nanos(1),
        idempotency_key,
        reason,
    };
    let (account, idempotency_key, reason) = of("promo");
    let promo = Promo {
        account,
        amount: nanos(1),
        expires_at: Expiry::At(at(100)),
        idempotency_key,
        reason,
    };
    let refund = Refund {
        request: "spent".to_owned(),
        attempt: 0,
        amount: None,
        idempotency_key: "refund".to_owned(),
        reason: "late".to_owned(),
    };
    let rename = AccountChange {
        name: Some("other".to_owned()),
        ..AccountChange::default()
    };
    let refused = [
        accounts
            .credit(id, nanos(1), "late", "late", at(11))
            .await
            .map(drop),
        accounts.adjust(adjustment, at(11)).await.map(drop),
        accounts.give_promo(promo, at(11)).await.map(drop),
        accounts.refund(refund, at(11)).await.map(drop),
        accounts.update_account(id, rename, at(11)).await.map(drop),
        accounts
            .add_key_with(id, KeyOptions::default(), at(11))
            .await
            .map(drop),
        accounts
            .rotate_key(key.id.as_str(), SignedDuration::ZERO, at(11))
            .await
            .map(drop),
    ];
    for (nth, refused) in refused.into_iter().enumerate() {
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.contains("is deleted") || refused.contains("is revoked"),
            "{nth}: {refused}"
        );
    }
    // Requests that were authenticated before get no hold.
    assert!(fixture.held("late", 1).await.is_err());
    assert_eq!(
        fixture.delete(Remainder::Refuse).await.unwrap(),
        deleted,
        "once more changes nothing"
    );
    let unknown = AccountId::from("acct_nobody".to_owned());
    let unknown = accounts
        .delete_account(&unknown, Remainder::Refuse, at(11))
        .await;
    assert!(matches!(unknown, Err(AdminError::NotFound { .. })));
    fixture.assert_books().await;
}

//! Payments and promo credit.

use jiff::Timestamp;
use weir_accounts::{Accounts, Nanos, Promo};

/// The expiry of promo credit, in seconds since 1970: later than any test.
const PROMO_ENDS: i64 = 4_000_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The idempotency key.
    pub key: String,
    pub account: String,
    pub nanos: i64,
    pub promotional: bool,
}

impl Payment {
    /// Makes the payment, and returns whether it had been made before.
    pub async fn make(&self, accounts: &Accounts, now: Timestamp) -> bool {
        let (account, amount) = (
            accounts.account(&self.account).await.unwrap().id,
            Nanos::new(self.nanos),
        );
        let made = if self.promotional {
            let promo = Promo {
                account,
                amount,
                expires_at: Timestamp::from_second(PROMO_ENDS).unwrap().into(),
                idempotency_key: self.key.clone(),
                reason: "a promo".to_owned(),
            };
            accounts.give_promo(promo, now).await
        } else {
            accounts.credit(&account, amount, &self.key, "", now).await
        };
        made.unwrap().replayed
    }
}

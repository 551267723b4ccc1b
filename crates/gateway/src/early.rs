//! Checks that can refuse a request before its body is read: a body may be long, and costs memory.

use tokio::time::Instant;
use weir_accounts::Caller;

use crate::bill::IN_FLIGHT_RETRY;
use crate::{Gateway, Refusal, may_use};

impl Gateway {
    /// Refuses the caller if the server drains or the request limits of its key are used up. Counts nothing: the
    /// request itself is counted by [`Gateway::admit`], once its model is known.
    pub fn may_ask(&self, caller: &Caller) -> Result<(), Refusal> {
        self.refuse_while_draining()?;
        let of_key = self.0.terms.load().subjects(caller, None);
        Ok(self.0.limits.check_request(&of_key, Instant::now())?)
    }

    /// Refuses a caller whose balance covers nothing, unless the caller may use a model that is free.
    pub fn may_spend(&self, caller: &Caller) -> Result<(), Refusal> {
        let is_free = |offer: &crate::Offer| offer.price.input == 0;
        let catalog = self.catalog();
        let mut offers = catalog.offers().iter();
        if caller.available.is_positive()
            || offers.any(|offer| is_free(offer) && may_use(caller, offer).is_ok())
        {
            return Ok(());
        }
        if caller.held.is_positive() {
            return Err(Refusal::BalanceInFlight {
                retry_after: IN_FLIGHT_RETRY,
            });
        }
        self.0.accounts.note_exhausted(&caller.account, self.now());
        Err(Refusal::BalanceTooLow { affordable: 0 })
    }
}

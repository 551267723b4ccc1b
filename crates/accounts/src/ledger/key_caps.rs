//! Whether the spend caps of a key allow a hold.

use jiff::Timestamp;

use crate::clock;
use crate::db::{Connection, StoreError, values};
use crate::key::cap::{CapPeriod, SpendCaps, last_day};
use crate::ledger::hold::HoldError;
use crate::money::Nanos;
use crate::utc_day::{day, first_of_month};
use crate::writer::TxResult;

/// A hold, as its key's caps are checked for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) key: &'a str,
    /// The amount to hold in addition.
    pub(crate) more: Nanos,
    /// The amount that the hold had before.
    pub(crate) own: Nanos,
    /// The amount that the hold's row has by now: this part of the key's open holds is its own.
    pub(crate) booked: Nanos,
    pub(crate) now: Timestamp,
}

/// Applies the key's caps to a reservation. Refuses what the balance covers but the caps don't allow; if the balance
/// doesn't cover it, lowers `available` to what the caps would allow. The balance's row must be locked, so that no
/// other request spends or holds with this key meanwhile.
pub(crate) async fn narrow<T>(
    connection: &mut Connection,
    reserved: Result<T, HoldError>,
    ask: Ask<'_>,
) -> TxResult<T, HoldError> {
    let Some(left) = left(connection, &ask).await? else {
        return Ok(reserved);
    };
    Ok(match reserved {
        Ok(_) if left.amount < ask.more => Err(HoldError::KeyCap {
            period: left.period,
            available: left.amount,
            in_flight: left.without_holds >= ask.more,
        }),
        Ok(reserved) => Ok(reserved),
        Err(HoldError::BalanceTooLow { available }) => Err(HoldError::BalanceTooLow {
            available: available.min(left.amount),
        }),
        Err(HoldError::InFlight { available, held }) => Err(HoldError::InFlight {
            available: available.min(left.amount),
            held,
        }),
        Err(other) => Err(other),
    })
}

/// The amount that a key may still hold, by its tightest cap.
#[derive(Debug, Clone, Copy)]
struct Left {
    period: CapPeriod,
    amount: Nanos,
    /// The amount if no other request of the key were open.
    without_holds: Nanos,
}

async fn left(connection: &mut Connection, ask: &Ask<'_>) -> Result<Option<Left>, StoreError> {
    let today = clock::lapse(connection, ask.now).await?;
    let until = last_day(ask.now.max(today));
    let row = connection
        .row(
            "SELECT k.cap_total, k.cap_month, k.cap_day,
                 CASE WHEN k.cap_total IS NULL THEN 0 ELSE
                     (SELECT CAST(COALESCE(SUM(d.cost), 0) AS BIGINT) FROM usage_day d WHERE d.api_key = k.id) END,
                 (SELECT CAST(COALESCE(SUM(d.cost), 0) AS BIGINT) FROM usage_day d WHERE d.api_key = k.id AND d.day BETWEEN $2 AND $4),
                 (SELECT CAST(COALESCE(SUM(d.cost), 0) AS BIGINT) FROM usage_day d WHERE d.api_key = k.id AND d.day BETWEEN $3 AND $4),
                 (SELECT CAST(COALESCE(SUM(h.amount), 0) AS BIGINT) FROM hold h
                  WHERE h.account = k.account AND h.api_key = k.id AND h.state = 'open')
             FROM api_key k WHERE k.id = $1",
            values![ask.key, first_of_month(today), day(today), until],
        )
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let caps = SpendCaps::read(&row, 0)?;
    let open = row.nanos(6)?.get();
    let own = ask.own.get();
    let others = open.saturating_sub(ask.booked.get());
    let periods = [
        (CapPeriod::Total, caps.total, row.integer(3)?),
        (CapPeriod::Month, caps.month, row.integer(4)?),
        (CapPeriod::Day, caps.day, row.integer(5)?),
    ];
    let left = periods.into_iter().filter_map(|(period, cap, spent)| {
        let without_holds = cap?.get().saturating_sub(spent).saturating_sub(own);
        let amount = without_holds.saturating_sub(others);
        Some(Left {
            period,
            amount: Nanos::new(amount.max(0)),
            without_holds: Nanos::new(without_holds.max(0)),
        })
    });
    Ok(left.min_by_key(|left| left.amount))
}

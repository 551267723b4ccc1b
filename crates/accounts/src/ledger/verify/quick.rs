//! The comparisons whose time doesn't grow with the history: balances against their last transaction, their open holds
//! and their promos.

use crate::db::{Connection, StoreError};
use crate::ledger::verify::books::LAST_POSTED;
use crate::ledger::verify::compare::compare;
use crate::ledger::verify::holds::OPEN;
use crate::ledger::verify::promo::{FREE, HELD};

/// The differences, in words. Reads one snapshot.
pub(crate) async fn verify(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    connection.begin_reading().await?;
    let differences = compare(connection, &[LAST_POSTED, OPEN, FREE, HELD]).await?;
    connection.commit().await?;
    Ok(differences)
}

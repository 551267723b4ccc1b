//! The comparisons whose time doesn't grow with the history: balances against their last transaction, their open holds
//! and their promos.

use super::books::LAST_POSTED;
use super::compare;
use super::holds::OPEN;
use super::promo::{FREE, HELD};
use crate::db::{Connection, StoreError};

/// The differences, in words. Reads one snapshot.
pub(crate) async fn verify(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    connection.begin_reading().await?;
    let differences = compare(connection, &[LAST_POSTED, OPEN, FREE, HELD]).await?;
    connection.commit().await?;
    Ok(differences)
}

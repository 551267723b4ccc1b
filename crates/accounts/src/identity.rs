//! The random id that tells a database from any other.

use crate::db::{Connection, StoreError, values};
use crate::ids::random;

const LEN: usize = 20;

/// The database's id, created if it has none yet.
pub(crate) async fn open(connection: &mut Connection) -> Result<String, StoreError> {
    let made = random(LEN);
    // If several processes create an id at the same time, the first one's counts.
    let sql = "INSERT INTO identity (one, id) VALUES (1, $1) ON CONFLICT (one) DO NOTHING";
    connection.execute(sql, values![made.as_str()]).await?;
    let row = connection.row("SELECT id FROM identity", &[]).await?;
    row.ok_or_else(|| StoreError::contradiction("a database has no id"))?
        .text(0)
}

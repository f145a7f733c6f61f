//! Deletions of functions. A deletion is known as such for a day, so that other nodes learn of the deletion.

use std::time::Duration;

use sqlx::AssertSqlSafe;

use super::{Store, StoreError};
use crate::domain::FunctionId;

/// The time for which a deletion is known as such.
pub const DELETION_RETENTION: Duration = Duration::from_secs(24 * 3600);

impl Store {
    /// Removes a function. Returns the number of the change; None when there is no such function.
    pub async fn delete(&self, id: FunctionId) -> Result<Option<u64>, StoreError> {
        let deleted = async {
            let mut transaction = self.pool().begin().await?;
            let deleted = sqlx::query("DELETE FROM functions WHERE id = $1").bind(id.to_string());
            if deleted.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(None);
            }
            let change = self.next_change(&mut transaction, "").await?;
            let note =
                format!("INSERT INTO deletions (function_id, changed, deleted_at) VALUES ($1, $2, {})", self.now());
            let note = sqlx::query(AssertSqlSafe(note)).bind(id.to_string()).bind(change);
            note.execute(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(Some(change.cast_unsigned()))
        };
        self.ask(deleted).await
    }

    /// Forgets deletions that are a day old: a node that was away for longer reads all functions anew.
    pub async fn prune_deletions(&self) -> Result<(), StoreError> {
        let prune =
            format!("DELETE FROM deletions WHERE deleted_at < {} - {}", self.now(), DELETION_RETENTION.as_millis());
        self.ask(sqlx::query(AssertSqlSafe(prune)).execute(&self.pool())).await.map(drop)
    }
}

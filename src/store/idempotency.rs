//! Idempotency keys as rows.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{Store, StoreError};
use crate::domain::{Deployed, IdempotencyKey, InvocationRecord, Known, Queued};

const BAD_ROW: &str = "a key's row has values that can't be";

impl Store {
    /// The answer to the submit or the update with this key. Where there is no answer, this node has the key from now
    /// on: until the answer is settled or the key is given back, or until this process ends. No other task of this
    /// process may carry out a request with the key.
    pub async fn claim_key(&self, key: &IdempotencyKey, created_at: u64) -> Result<Known<Deployed>, StoreError> {
        let claimed = async {
            let mut transaction = self.pool().begin().await?;
            let insert = sqlx::query(
                "INSERT INTO idempotency_keys (operation, key, request_sha256, created_at, claimed_by) \
                 VALUES ('submit', $1, $2, $3, $4) ON CONFLICT (operation, key) DO NOTHING",
            );
            let insert =
                insert.bind(&key.key).bind(&key.request_sha256).bind(created_at.cast_signed()).bind(self.run());
            let mut is_ours = insert.execute(&mut *transaction).await?.rows_affected() > 0;
            if !is_ours {
                // The request of a node that is gone came to nothing.
                let take_over = format!(
                    "UPDATE idempotency_keys SET request_sha256 = $1, created_at = $2, claimed_by = $3 \
                     WHERE operation = 'submit' AND key = $4 AND claimed_by IS NOT NULL \
                     AND (claimed_by = $3 OR NOT {})",
                    self.is_live("claimed_by")
                );
                let take_over = sqlx::query(AssertSqlSafe(take_over)).bind(&key.request_sha256);
                let take_over = take_over.bind(created_at.cast_signed()).bind(self.run()).bind(&key.key);
                is_ours = take_over.execute(&mut *transaction).await?.rows_affected() > 0;
            }
            let row = if is_ours { None } else { look_up(&mut transaction, "submit", key).await? };
            transaction.commit().await?;
            Ok((is_ours, row))
        };
        let (is_ours, row) = self.ask(claimed).await?;
        // A row that went in this moment was given back: the client may try again.
        let Some(row) = row else { return Ok(if is_ours { Known::New } else { Known::InProgress }) };
        if row.try_get::<Option<String>, _>("claimed_by").map_err(|error| self.failed(error))?.is_some() {
            return Ok(Known::InProgress);
        }
        self.known(Some(&row), key, |row| serde_json::from_str(&row.try_get::<String, _>("result").ok()?).ok())
    }

    /// Gives back a key whose request came to nothing.
    pub async fn give_back_key(&self, key: &IdempotencyKey) -> Result<(), StoreError> {
        let delete =
            sqlx::query("DELETE FROM idempotency_keys WHERE operation = 'submit' AND key = $1 AND claimed_by = $2");
        self.ask(delete.bind(&key.key).bind(self.run()).execute(&self.pool())).await.map(drop)
    }

    /// Writes down the answer to the request with this key. False when another node has taken the key over.
    pub(super) async fn settle_key(
        &self,
        connection: &mut AnyConnection,
        key: &IdempotencyKey,
        deployed: &Deployed,
    ) -> Result<bool, sqlx::Error> {
        let result = serde_json::to_string(deployed).expect("texts and numbers can be written as JSON");
        let settle = sqlx::query(
            "UPDATE idempotency_keys SET result = $1, claimed_by = NULL \
             WHERE operation = 'submit' AND key = $2 AND claimed_by = $3",
        );
        let settled = settle.bind(result).bind(&key.key).bind(self.run()).execute(connection).await?;
        Ok(settled.rows_affected() > 0)
    }

    /// Removes keys from before this time, in Unix milliseconds, except keys of invocations that have not ended.
    pub async fn prune_keys(&self, before: u64) -> Result<(), StoreError> {
        let pruned = sqlx::query(
            "DELETE FROM idempotency_keys WHERE created_at < $1 AND NOT EXISTS \
             (SELECT 1 FROM invocations WHERE id = invocation_id AND outcome IN ('queued', 'running'))",
        );
        self.ask(pruned.bind(before.cast_signed()).execute(&self.pool())).await.map(drop)
    }

    /// Writes down an invocation that waits for its turn, with the key of its request, where there is room for a new
    /// one. An invocation that is not `promised` may be taken back.
    pub async fn queue_invocation(
        &self,
        record: &InvocationRecord,
        key: Option<&IdempotencyKey>,
        has_room: bool,
        promised: bool,
    ) -> Result<Queued, StoreError> {
        let queued = async {
            let mut transaction = self.pool().begin().await?;
            if let Some(key) = key
                && let Some(row) = look_up(&mut transaction, "execute", key).await?
            {
                return Ok((Queued::NoRoom, Some(row)));
            }
            if !has_room {
                return Ok((Queued::NoRoom, None));
            }
            if !self.insert_queued(&mut transaction, record, promised).await? {
                return Ok((Queued::NoFunction, None));
            }
            let id = record.id.to_string();
            if let Some(key) = key {
                // Another node may take a request with the key in this moment.
                if !remember(&mut transaction, key, record.created_at, &id).await? {
                    transaction.rollback().await?;
                    let row = look_up(&mut *self.pool().acquire().await?, "execute", key).await?;
                    return Ok((Queued::NoRoom, row));
                }
            }
            transaction.commit().await?;
            Ok((Queued::Now, None))
        };
        let (queued, row) = self.ask(queued).await?;
        let (Some(key), Some(row)) = (key, &row) else { return Ok(queued) };
        Ok(match self.known(Some(row), key, |row| row.try_get::<String, _>("invocation_id").ok()?.parse().ok())? {
            Known::Same(id) => Queued::Before(id),
            Known::New | Known::Other | Known::InProgress => Queued::OtherRequest,
        })
    }

    fn known<T>(
        &self,
        row: Option<&AnyRow>,
        key: &IdempotencyKey,
        result: impl Fn(&AnyRow) -> Option<T>,
    ) -> Result<Known<T>, StoreError> {
        let Some(row) = row else { return Ok(Known::New) };
        let request: String = row.try_get("request_sha256").map_err(|error| self.failed(error))?;
        if request != key.request_sha256 {
            return Ok(Known::Other);
        }
        result(row).map(Known::Same).ok_or_else(|| self.damaged(BAD_ROW))
    }
}

async fn look_up(
    connection: &mut AnyConnection,
    operation: &str,
    key: &IdempotencyKey,
) -> Result<Option<AnyRow>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT request_sha256, result, invocation_id, claimed_by FROM idempotency_keys \
         WHERE operation = $1 AND key = $2",
    );
    row.bind(operation).bind(&key.key).fetch_optional(connection).await
}

/// Writes down the invocation of a request with a key. False when another request has the key.
async fn remember(
    connection: &mut AnyConnection,
    key: &IdempotencyKey,
    created_at: u64,
    invocation: &str,
) -> Result<bool, sqlx::Error> {
    let insert = sqlx::query(
        "INSERT INTO idempotency_keys (operation, key, request_sha256, created_at, invocation_id) \
         VALUES ('execute', $1, $2, $3, $4) ON CONFLICT (operation, key) DO NOTHING",
    );
    let insert = insert.bind(&key.key).bind(&key.request_sha256).bind(created_at.cast_signed()).bind(invocation);
    insert.execute(connection).await.map(|inserted| inserted.rows_affected() > 0)
}

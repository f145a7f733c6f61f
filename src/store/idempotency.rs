//! Idempotency keys as rows.

use sqlx::AnyConnection;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Store, StoreError};
use crate::domain::{Deployed, IdempotencyKey, InvocationRecord, Known, Queued};

const BAD_ROW: &str = "a key's row has values that can't be";

impl Store {
    /// The answer to the submit or the update with this key.
    pub async fn submitted(&self, key: &IdempotencyKey) -> Result<Known<Deployed>, StoreError> {
        let row = async { look_up(&mut *self.pool.acquire().await?, "submit", key).await };
        let row = row.await.map_err(|error| self.failed(error))?;
        self.known(row.as_ref(), key, |row| serde_json::from_str(row.try_get("result").ok()?).ok())
    }

    /// Removes keys from before this time, in Unix milliseconds, except keys of invocations that have not ended.
    pub async fn prune_keys(&self, before: u64) -> Result<(), StoreError> {
        let pruned = sqlx::query(
            "DELETE FROM idempotency_keys WHERE created_at < $1 AND NOT EXISTS \
             (SELECT 1 FROM invocations WHERE id = invocation_id AND outcome IN ('queued', 'running'))",
        );
        let pruned = pruned.bind(before.cast_signed()).execute(&self.pool).await;
        pruned.map(drop).map_err(|error| self.failed(error))
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
            let mut transaction = self.pool.begin().await?;
            if let Some(key) = key
                && let Some(row) = look_up(&mut transaction, "execute", key).await?
            {
                return Ok((Queued::NoRoom, Some(row)));
            }
            if !has_room {
                return Ok((Queued::NoRoom, None));
            }
            if super::invocations::insert(&mut transaction, record).await? == 0 {
                return Ok((Queued::NoFunction, None));
            }
            let id = record.id.to_string();
            if !promised {
                let update = sqlx::query("UPDATE invocations SET promised = 0 WHERE id = $1").bind(&id);
                update.execute(&mut *transaction).await?;
            }
            if let Some(key) = key {
                remember(&mut transaction, "execute", key, record.created_at, (None, Some(&id))).await?;
            }
            transaction.commit().await?;
            Ok((Queued::Now, None))
        };
        let (queued, row) = queued.await.map_err(|error| self.failed(error))?;
        let (Some(key), Some(row)) = (key, &row) else { return Ok(queued) };
        Ok(match self.known(Some(row), key, |row| row.try_get::<String, _>("invocation_id").ok()?.parse().ok())? {
            Known::Same(id) => Queued::Before(id),
            Known::New | Known::Other => Queued::OtherRequest,
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
    let row = sqlx::query("SELECT * FROM idempotency_keys WHERE operation = $1 AND key = $2");
    row.bind(operation).bind(&key.key).fetch_optional(connection).await
}

/// Writes down the result of a request with a key: its answer, or its invocation.
pub(super) async fn remember(
    connection: &mut AnyConnection,
    operation: &str,
    key: &IdempotencyKey,
    created_at: u64,
    (deployed, invocation): (Option<&Deployed>, Option<&str>),
) -> Result<(), sqlx::Error> {
    let result =
        deployed.map(|deployed| serde_json::to_string(deployed).expect("texts and numbers can be written as JSON"));
    let insert = sqlx::query(
        "INSERT INTO idempotency_keys (operation, key, request_sha256, created_at, result, invocation_id) VALUES ($1, \
         $2, $3, $4, $5, $6)",
    );
    let insert = insert.bind(operation).bind(&key.key).bind(&key.request_sha256).bind(created_at.cast_signed());
    insert.bind(result).bind(invocation).execute(connection).await.map(drop)
}

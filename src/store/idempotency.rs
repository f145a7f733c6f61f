//! Requests that may be sent twice and are carried out once, as rows.

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::{Store, StoreError};
use crate::types::{FunctionId, InvocationId};

/// What a client calls a request, to send it again without having it carried out again.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// The client's word.
    pub key: String,
    /// Of what was asked for, hexadecimal.
    pub request_sha256: String,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// Nothing.
    New,
    /// The same request came before, and came to this.
    Same(T),
    /// Another request bore it.
    Other,
}

impl Store {
    /// What a submit with this key has come to.
    pub async fn submitted(&self, key: &IdempotencyKey) -> Result<Known<FunctionId>, StoreError> {
        let known = async { look_up(&mut *self.pool.acquire().await?, "submit", key).await };
        let known = known.await.map_err(|error| self.failed(error))?;
        self.parsed(known)
    }

    /// Forgets keys from before this time, in Unix milliseconds, but for those of invocations that have not ended.
    pub async fn prune_keys(&self, before: u64) -> Result<(), StoreError> {
        let pruned = sqlx::query("DELETE FROM idempotency_keys WHERE created_at < ? AND NOT EXISTS (SELECT 1 FROM invocations WHERE id = invocation_id AND outcome IN ('queued', 'running'))").bind(before.cast_signed());
        pruned.execute(&self.pool).await.map(drop).map_err(|error| self.failed(error))
    }

    /// Writes down an invocation that waits for its turn, with the key of its request, where there is room for a new one.
    pub async fn queue_invocation(
        &self,
        record: &super::InvocationRecord,
        key: Option<&IdempotencyKey>,
        has_room: bool,
    ) -> Result<Queued, StoreError> {
        let queued = async {
            let mut transaction = self.pool.begin().await?;
            if let Some(key) = key {
                match look_up(&mut transaction, "execute", key).await? {
                    Known::New => {}
                    known => return Ok(Err(known)),
                }
            }
            if !has_room {
                return Ok(Ok(Queued::NoRoom));
            }
            if super::invocations::insert(&mut transaction, record).await? == 0 {
                return Ok(Ok(Queued::NoFunction));
            }
            if let Some(key) = key {
                let id = record.id.to_string();
                remember(&mut transaction, "execute", key, record.created_at, None, Some(&id)).await?;
            }
            transaction.commit().await?;
            Ok(Ok(Queued::Now))
        };
        match queued.await.map_err(|error| self.failed(error))? {
            Ok(queued) => Ok(queued),
            Err(known) => Ok(match self.parsed::<InvocationId>(known)? {
                Known::New => Queued::Now,
                Known::Same(id) => Queued::Before(id),
                Known::Other => Queued::OtherRequest,
            }),
        }
    }

    fn parsed<T: std::str::FromStr>(&self, known: Known<String>) -> Result<Known<T>, StoreError> {
        Ok(match known {
            Known::New => Known::New,
            Known::Other => Known::Other,
            Known::Same(id) => Known::Same(id.parse().map_err(|_| self.damaged("a key's row has values that can't be"))?),
        })
    }
}

/// What became of an invocation that was to be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It is.
    Now,
    /// Its key says that it was before, as this one.
    Before(InvocationId),
    /// Its key is another request's.
    OtherRequest,
    /// Its function is not there.
    NoFunction,
    /// It is a new one, for which there was no room.
    NoRoom,
}

async fn look_up(connection: &mut SqliteConnection, operation: &str, key: &IdempotencyKey) -> Result<Known<String>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT request_sha256, coalesce(function_id, invocation_id) AS result FROM idempotency_keys WHERE operation = ? AND key = ?",
    );
    let Some(row) = row.bind(operation).bind(&key.key).fetch_optional(connection).await? else { return Ok(Known::New) };
    let is_same = row.try_get::<String, _>("request_sha256")? == key.request_sha256;
    Ok(if is_same { Known::Same(row.try_get("result")?) } else { Known::Other })
}

pub(super) async fn remember(
    connection: &mut SqliteConnection,
    operation: &str,
    key: &IdempotencyKey,
    created_at: u64,
    function: Option<&str>,
    invocation: Option<&str>,
) -> Result<(), sqlx::Error> {
    let insert = sqlx::query(
        "INSERT INTO idempotency_keys (operation, key, request_sha256, created_at, function_id, invocation_id) VALUES (?, ?, ?, ?, ?, ?)",
    );
    let insert = insert.bind(operation).bind(&key.key).bind(&key.request_sha256).bind(created_at.cast_signed());
    insert.bind(function).bind(invocation).execute(connection).await.map(drop)
}

//! Tokens as rows. A token that is new or gone is a change like those of functions, so that all nodes follow.

use std::fmt::Display;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row};

use super::{Store, StoreError};
use crate::domain::{Added, Scope, TokenHash, TokenId, TokenName, TokenRecord};

const BAD_ROW: &str = "a token's row has values that can't be";

impl Store {
    /// All tokens, the oldest first.
    pub async fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        let rows = async { rows(&mut *self.pool().acquire().await?).await };
        self.read_tokens(&self.ask(rows).await?)
    }

    /// Writes down a new token, where no token has the name and there are fewer than `most` tokens.
    pub async fn insert_token(&self, token: &TokenRecord, most: u32) -> Result<Added, StoreError> {
        let inserted = async {
            let mut transaction = self.pool().begin().await?;
            // This comes first: no other node can add a token between the count and the commit.
            let change = self.next_token_change(&mut transaction).await?;
            let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM tokens");
            if count.fetch_one(&mut *transaction).await? >= i64::from(most) {
                return Ok(Added::Full);
            }
            let insert = sqlx::query(
                "INSERT INTO tokens (id, name, sha256, scopes, functions, created_at, expires_at) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (name) DO NOTHING",
            );
            let insert = insert
                .bind(token.id.to_string())
                .bind(token.name.as_str())
                .bind(token.hash.to_hex())
                .bind(joined(&token.scopes))
                .bind(token.functions.as_ref().map(joined))
                .bind(token.created_at.cast_signed())
                .bind(token.expires_at.map(u64::cast_signed));
            if insert.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(Added::Taken);
            }
            transaction.commit().await?;
            Ok(Added::Now(change))
        };
        self.ask(inserted).await
    }

    /// Removes a token. Returns the number of the change; None when no token has the name.
    pub async fn delete_token(&self, name: &TokenName) -> Result<Option<u64>, StoreError> {
        let deleted = async {
            let mut transaction = self.pool().begin().await?;
            let delete = sqlx::query("DELETE FROM tokens WHERE name = $1").bind(name.as_str());
            if delete.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(None);
            }
            let change = self.next_token_change(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Some(change))
        };
        self.ask(deleted).await
    }

    /// Notes the last uses of tokens, in Unix seconds. A use that is earlier than the use in the store changes nothing.
    pub async fn note_token_uses(&self, uses: &[(TokenId, u64)]) -> Result<(), StoreError> {
        let noted = async {
            let mut transaction = self.pool().begin().await?;
            // Two nodes that write at the same time lock the rows in the same order.
            let mut uses = uses.to_vec();
            uses.sort_unstable();
            for (id, at) in uses {
                let note = "UPDATE tokens SET last_used = $1 WHERE id = $2 AND coalesce(last_used, 0) < $1";
                let note = sqlx::query(note).bind(at.cast_signed()).bind(id.to_string());
                note.execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        self.ask(noted).await
    }

    /// The tokens of these rows.
    pub(super) fn read_tokens(&self, rows: &[AnyRow]) -> Result<Vec<TokenRecord>, StoreError> {
        rows.iter().map(|row| record(row).ok_or_else(|| self.damaged(BAD_ROW))).collect()
    }

    /// Takes the number of a change of tokens.
    async fn next_token_change(&self, connection: &mut AnyConnection) -> Result<u64, sqlx::Error> {
        let change = self.next_change(connection, "").await?;
        sqlx::query("UPDATE changes SET tokens = $1").bind(change).execute(connection).await?;
        Ok(change.cast_unsigned())
    }
}

/// The rows of all tokens.
pub(super) async fn rows(connection: &mut AnyConnection) -> Result<Vec<AnyRow>, sqlx::Error> {
    let select = "SELECT id, name, sha256, scopes, functions, created_at, expires_at, last_used FROM tokens \
                  ORDER BY created_at, name";
    sqlx::query(select).fetch_all(connection).await
}

fn joined(words: impl IntoIterator<Item: Display>) -> String {
    words.into_iter().map(|word| word.to_string()).collect::<Vec<_>>().join(",")
}

/// None when a value has a form that this program does not write. A scope that a newer program may have written opens
/// nothing here.
fn record(row: &AnyRow) -> Option<TokenRecord> {
    let number = |column: &str| Some(row.try_get::<Option<i64>, _>(column).ok()?.map(i64::cast_unsigned));
    let functions: Option<String> = row.try_get("functions").ok()?;
    Some(TokenRecord {
        id: row.try_get::<String, _>("id").ok()?.parse().ok()?,
        name: row.try_get::<String, _>("name").ok()?.parse().ok()?,
        hash: TokenHash::from_hex(&row.try_get::<String, _>("sha256").ok()?)?,
        scopes: row.try_get::<String, _>("scopes").ok()?.split(',').filter_map(Scope::from_name).collect(),
        functions: match functions {
            Some(ids) => Some(ids.split(',').map(|id| id.parse().ok()).collect::<Option<_>>()?),
            None => None,
        },
        created_at: number("created_at")??,
        expires_at: number("expires_at")?,
        last_used: number("last_used")?,
    })
}

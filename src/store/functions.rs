//! Functions as rows.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::idempotency::{IdempotencyKey, remember};
use super::{Store, StoreError};
use crate::types::{FunctionId, FunctionName, ImageId, Language};

/// All that is remembered of a function, but for its zip and its build log.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its id.
    pub id: FunctionId,
    /// Its name.
    pub name: FunctionName,
    /// Its language.
    pub language: Language,
    /// The file that is run; None for a compiled program.
    pub entry: Option<String>,
    /// Unix seconds.
    pub created_at: u64,
    /// How often and when it was executed.
    pub executions: Executions,
    /// Of its zip, in bytes.
    pub zip_size: u64,
    /// Of its zip, hexadecimal.
    pub zip_sha256: String,
    /// Of the zip's content, in bytes.
    pub unpacked_size: u64,
    /// What it runs from.
    pub image: Image,
}

/// How often and when a function was executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Executions {
    /// How often.
    pub count: u64,
    /// When last, in Unix seconds.
    pub last: Option<u64>,
}

/// An image: a cache of what can be built from the zip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Docker's id of it.
    pub id: ImageId,
    /// What it takes beside what all functions of its language share, in bytes.
    pub size: u64,
    /// It was there when last looked for.
    pub is_there: bool,
}

impl Store {
    /// All functions, the oldest first.
    pub async fn functions(&self) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query("SELECT * FROM functions ORDER BY number").fetch_all(&self.pool).await;
        let rows = rows.map_err(|error| self.failed(error))?;
        rows.iter().map(|row| record(row).ok_or_else(|| self.damaged("a function's row has values that can't be"))).collect()
    }

    /// Remembers a new function, and the key of the request that it came by.
    pub async fn insert(
        &self,
        record: &Record,
        zip: &[u8],
        build_log: &str,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), StoreError> {
        let inserted = async {
            let id = record.id.to_string();
            let mut transaction = self.pool.begin().await?;
            sqlx::query(
                "INSERT INTO functions (id, name, language, entry, created_at, zip_size, zip_sha256, unpacked_size, image_id, \
                 image_size, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'ready')",
            )
            .bind(&id)
            .bind(record.name.as_str())
            .bind(record.language.as_str())
            .bind(record.entry.as_deref())
            .bind(record.created_at.cast_signed())
            .bind(record.zip_size.cast_signed())
            .bind(&record.zip_sha256)
            .bind(record.unpacked_size.cast_signed())
            .bind(record.image.id.as_str())
            .bind(record.image.size.cast_signed())
            .execute(&mut *transaction)
            .await?;
            let package = sqlx::query("INSERT INTO packages (function_id, zip) VALUES (?, ?)").bind(&id).bind(zip);
            package.execute(&mut *transaction).await?;
            let log = sqlx::query("INSERT INTO build_logs (function_id, log) VALUES (?, ?)").bind(&id).bind(build_log);
            log.execute(&mut *transaction).await?;
            if let Some(key) = key {
                remember(&mut transaction, "submit", key, record.created_at * 1000, Some(&id), None).await?;
            }
            transaction.commit().await
        };
        inserted.await.map_err(|error| self.failed(error))
    }

    /// Forgets a function. False when there is none.
    pub async fn delete(&self, id: FunctionId) -> Result<bool, StoreError> {
        let deleted = sqlx::query("DELETE FROM functions WHERE id = ?").bind(id.to_string()).execute(&self.pool).await;
        Ok(deleted.map_err(|error| self.failed(error))?.rows_affected() > 0)
    }

    /// A function's zip. None when there is no such function.
    pub async fn zip(&self, id: FunctionId) -> Result<Option<Vec<u8>>, StoreError> {
        let zip = sqlx::query_scalar("SELECT zip FROM packages WHERE function_id = ?").bind(id.to_string());
        zip.fetch_optional(&self.pool).await.map_err(|error| self.failed(error))
    }

    /// Remembers the image that was built for a function anew. False when the function was deleted meanwhile.
    pub async fn set_image(&self, id: FunctionId, image: &Image, build_log: &str) -> Result<bool, StoreError> {
        let set = async {
            let mut transaction = self.pool.begin().await?;
            let updated = sqlx::query("UPDATE functions SET image_id = ?, image_size = ?, state = 'ready' WHERE id = ?")
                .bind(image.id.as_str())
                .bind(image.size.cast_signed())
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
            sqlx::query("UPDATE build_logs SET log = ? WHERE function_id = ?")
                .bind(build_log)
                .bind(id.to_string())
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(updated.rows_affected() > 0)
        };
        set.await.map_err(|error| self.failed(error))
    }

    /// Remembers that these functions' images are gone.
    pub async fn lose_images(&self, ids: &[FunctionId]) -> Result<(), StoreError> {
        let lost = async {
            let mut transaction = self.pool.begin().await?;
            for id in ids {
                let update = sqlx::query("UPDATE functions SET state = 'rebuild' WHERE id = ?").bind(id.to_string());
                update.execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        lost.await.map_err(|error| self.failed(error))
    }
}

/// None when a value is not what we wrote.
fn record(row: &SqliteRow) -> Option<Record> {
    let text = |column: &str| row.try_get::<String, _>(column).ok();
    let number = |column: &str| row.try_get::<i64, _>(column).ok().map(i64::cast_unsigned);
    Some(Record {
        id: text("id")?.parse().ok()?,
        name: text("name")?.parse().ok()?,
        language: text("language")?.parse().ok()?,
        entry: row.try_get("entry").ok()?,
        created_at: number("created_at")?,
        executions: Executions {
            count: number("executions")?,
            last: row.try_get::<Option<i64>, _>("last_executed").ok()?.map(i64::cast_unsigned),
        },
        zip_size: number("zip_size")?,
        zip_sha256: text("zip_sha256")?,
        unpacked_size: number("unpacked_size")?,
        image: Image {
            id: ImageId::parse(&text("image_id")?)?,
            size: number("image_size")?,
            is_there: text("state")? == "ready",
        },
    })
}

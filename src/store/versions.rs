//! Versions of functions as rows.

use std::sync::Arc;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{Store, StoreError};
use crate::domain::{FunctionId, Image, ImageDigest, ImageId, Manifest, Package, Update, VersionId, VersionRecord};

/// The columns of a version's record. A newer program may have added others.
pub(super) const COLUMNS: &str = "versions.function_id, versions.number, versions.language, versions.entry, \
                                  versions.created_at, versions.zip_size, versions.zip_sha256, \
                                  versions.unpacked_size, versions.image_id, versions.image_size, versions.digest, \
                                  versions.state, versions.manifest";

impl Store {
    /// A function's versions, the last first. Empty when there is no such function.
    pub async fn versions(&self, id: FunctionId) -> Result<Vec<VersionRecord>, StoreError> {
        let select = format!("SELECT {COLUMNS} FROM versions WHERE function_id = $1 ORDER BY number DESC");
        let rows = sqlx::query(AssertSqlSafe(select)).bind(id.to_string());
        let rows = self.ask(rows.fetch_all(&self.pool())).await?;
        rows.iter()
            .map(|row| record(row).ok_or_else(|| self.damaged("a version's row has values that can't be")))
            .collect()
    }

    /// A version's zip. None when there is no such version.
    pub async fn zip(&self, id: VersionId) -> Result<Option<Vec<u8>>, StoreError> {
        let zip = sqlx::query_scalar("SELECT zip FROM zips WHERE function_id = $1 AND version = $2");
        let zip = zip.bind(id.function.to_string()).bind(i64::from(id.number));
        self.ask(zip.fetch_optional(&self.pool())).await
    }

    /// A version's row and the log of its last build. None when there is no such version.
    pub async fn version(&self, id: VersionId) -> Result<Option<(VersionRecord, String)>, StoreError> {
        let select = format!(
            "SELECT {COLUMNS}, version_logs.log FROM versions JOIN version_logs \
             ON version_logs.function_id = versions.function_id AND version_logs.version = versions.number \
             WHERE versions.function_id = $1 AND versions.number = $2"
        );
        let select = sqlx::query(AssertSqlSafe(select)).bind(id.function.to_string()).bind(i64::from(id.number));
        let row = self.ask(select.fetch_optional(&self.pool())).await?;
        let found = row.map(|row| record(&row).zip(row.try_get("log").ok()));
        found.map(|found| found.ok_or_else(|| self.damaged("a version's row has values that can't be"))).transpose()
    }

    /// The digest by which a registry has a version's image. None when no registry has the image.
    pub async fn image_digest(&self, id: VersionId) -> Result<Option<ImageDigest>, StoreError> {
        let digest = sqlx::query_scalar("SELECT digest FROM versions WHERE function_id = $1 AND number = $2");
        let digest = digest.bind(id.function.to_string()).bind(i64::from(id.number));
        let digest: Option<String> = self.ask(digest.fetch_optional(&self.pool())).await?.flatten();
        // A value of another form leads to a build, which writes a new value.
        Ok(digest.as_deref().and_then(ImageDigest::parse))
    }

    /// Writes down the image of a version that is there again, with the log of a build. False when the version is gone.
    pub async fn set_image(&self, id: VersionId, image: &Image, build_log: Option<&str>) -> Result<bool, StoreError> {
        let function = id.function.to_string();
        let set = async {
            let mut transaction = self.pool().begin().await?;
            let image = sqlx::query(
                "UPDATE versions SET image_id = $1, image_size = $2, digest = $3, state = 'ready' \
                 WHERE function_id = $4 AND number = $5",
            )
            .bind(image.id.as_str())
            .bind(image.size.cast_signed())
            .bind(image.digest.as_ref().map(ImageDigest::as_str));
            let updated = image.bind(&function).bind(i64::from(id.number)).execute(&mut *transaction).await?;
            if let Some(build_log) = build_log {
                let log = sqlx::query("UPDATE version_logs SET log = $1 WHERE function_id = $2 AND version = $3")
                    .bind(storable(build_log));
                log.bind(&function).bind(i64::from(id.number)).execute(&mut *transaction).await?;
            }
            transaction.commit().await?;
            Ok(updated.rows_affected() > 0)
        };
        self.ask(set).await
    }

    /// Writes down that the images of these versions are gone. Nodes that share the database have images of their own,
    /// so there it is not written down what one of them lacks.
    pub async fn mark_images_missing(&self, ids: &[VersionId]) -> Result<(), StoreError> {
        if self.is_shared() {
            return Ok(());
        }
        let lost = async {
            let mut transaction = self.pool().begin().await?;
            for id in ids {
                let update =
                    sqlx::query("UPDATE versions SET state = 'rebuild' WHERE function_id = $1 AND number = $2");
                update.bind(id.function.to_string()).bind(i64::from(id.number)).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        self.ask(lost).await
    }
}

pub(super) async fn insert(
    connection: &mut AnyConnection,
    id: FunctionId,
    version: &VersionRecord,
    package: Package<'_>,
) -> Result<(), sqlx::Error> {
    let id = id.to_string();
    sqlx::query(
        "INSERT INTO versions (function_id, number, language, entry, created_at, zip_size, zip_sha256, unpacked_size, \
         image_id, image_size, digest, manifest, state) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'ready')",
    )
    .bind(&id)
    .bind(i64::from(version.number))
    .bind(version.language.as_str())
    .bind(version.entry.as_deref())
    .bind(version.created_at.cast_signed())
    .bind(version.zip_size.cast_signed())
    .bind(&version.zip_sha256)
    .bind(version.unpacked_size.cast_signed())
    .bind(version.image.id.as_str())
    .bind(version.image.size.cast_signed())
    .bind(version.image.digest.as_ref().map(ImageDigest::as_str))
    .bind(version.manifest.as_ref().map(|manifest| manifest.to_json()))
    .execute(&mut *connection)
    .await?;
    let zip = sqlx::query("INSERT INTO zips (function_id, version, zip) VALUES ($1, $2, $3)");
    zip.bind(&id).bind(i64::from(version.number)).bind(package.zip).execute(&mut *connection).await?;
    let log = sqlx::query("INSERT INTO version_logs (function_id, version, log) VALUES ($1, $2, $3)");
    log.bind(&id).bind(i64::from(version.number)).bind(storable(package.build_log)).execute(connection).await.map(drop)
}

/// Removes the versions before the last few, except the version that runs and the previous version. Only those two
/// versions have images.
pub(super) async fn prune(connection: &mut AnyConnection, update: &Update<'_>) -> Result<(), sqlx::Error> {
    let id = update.id.to_string();
    let others = "function_id = $1 AND number <> $2 AND number IS DISTINCT FROM $3";
    let lost = format!("UPDATE versions SET state = 'rebuild' WHERE {others}");
    let lost =
        sqlx::query(AssertSqlSafe(lost)).bind(&id).bind(i64::from(update.version)).bind(update.previous.map(i64::from));
    lost.execute(&mut *connection).await?;
    let last = "SELECT number FROM versions WHERE function_id = $1 ORDER BY number DESC LIMIT $4";
    let old = format!("DELETE FROM versions WHERE {others} AND number NOT IN ({last})");
    let old =
        sqlx::query(AssertSqlSafe(old)).bind(&id).bind(i64::from(update.version)).bind(update.previous.map(i64::from));
    old.bind(i64::from(update.max_versions)).execute(connection).await.map(drop)
}

/// A text as both databases take the text: PostgreSQL's texts have no NUL.
fn storable(log: &str) -> String {
    log.replace('\0', "\u{fffd}")
}

/// None when a value has a form that this program does not write.
pub(super) fn record(row: &AnyRow) -> Option<VersionRecord> {
    let text = |column: &str| row.try_get::<String, _>(column).ok();
    let number = |column: &str| row.try_get::<i64, _>(column).ok().map(i64::cast_unsigned);
    Some(VersionRecord {
        number: u32::try_from(row.try_get::<i64, _>("number").ok()?).ok()?,
        language: text("language")?.parse().ok()?,
        entry: row.try_get("entry").ok()?,
        created_at: number("created_at")?,
        zip_size: number("zip_size")?,
        zip_sha256: text("zip_sha256")?,
        unpacked_size: number("unpacked_size")?,
        manifest: match row.try_get::<Option<String>, _>("manifest").ok()? {
            Some(json) => Some(Arc::new(Manifest::from_json(&json)?)),
            None => None,
        },
        image: Image {
            id: ImageId::parse(&text("image_id")?)?,
            size: number("image_size")?,
            present: text("state")? == "ready",
            digest: match row.try_get::<Option<String>, _>("digest").ok()? {
                Some(digest) => Some(ImageDigest::parse(&digest)?),
                None => None,
            },
        },
    })
}

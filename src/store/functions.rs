//! Functions as rows.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::AnyConnection;
use sqlx::Row;
use sqlx::any::AnyRow;

use super::idempotency::remember;
use super::{Store, StoreError, versions};
use crate::config::Secret;
use crate::domain::settings::Settings;
use crate::domain::{
    Deployed, Executions, FunctionId, FunctionName, IdempotencyKey, Package, Preload, Preloaded, Record, Update,
    VersionRecord,
};

impl Store {
    /// All functions, the oldest first.
    pub async fn functions(&self) -> Result<Vec<Record>, StoreError> {
        let read = async {
            // One moment's state of all tables.
            let mut transaction = self.pool.begin().await?;
            let functions = sqlx::query("SELECT * FROM functions ORDER BY number").fetch_all(&mut *transaction).await?;
            let versions = sqlx::query(
                "SELECT versions.*, (SELECT max(number) FROM versions AS last WHERE last.function_id = id) AS \
                 last_version \
                 FROM versions JOIN functions ON function_id = id AND versions.number IN (version, former)",
            );
            let versions = versions.fetch_all(&mut *transaction).await?;
            let variables = sqlx::query("SELECT * FROM variables").fetch_all(&mut *transaction).await?;
            Ok::<_, sqlx::Error>((functions, by_function(versions)?, by_function(variables)?))
        };
        let (functions, versions, variables) = read.await.map_err(|error| self.failed(error))?;
        let damaged = || self.damaged("a function's row has values that can't be");
        functions.iter().map(|row| record(row, &versions, &variables).ok_or_else(damaged)).collect()
    }

    /// Writes down a new function, and the key of the function's submit.
    pub async fn insert(
        &self,
        record: &Record,
        package: Package<'_>,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), StoreError> {
        let inserted = async {
            let id = record.id.to_string();
            let mut transaction = self.pool.begin().await?;
            sqlx::query("INSERT INTO functions (id, name, created_at, version) VALUES ($1, $2, $3, $4)")
                .bind(&id)
                .bind(record.name.as_str())
                .bind(record.created_at.cast_signed())
                .bind(i64::from(record.version.number))
                .execute(&mut *transaction)
                .await?;
            versions::insert(&mut transaction, record.id, &record.version, package).await?;
            set(&mut transaction, &id, &record.settings, record.preloaded.as_ref()).await?;
            if let Some(key) = key {
                let deployed = deployed(id, &record.version, &record.name, package);
                remember(&mut transaction, "submit", key, record.created_at * 1000, (Some(&deployed), None)).await?;
            }
            transaction.commit().await
        };
        inserted.await.map_err(|error| self.failed(error))
    }

    /// Writes down a function's next state, with the new version if there is one, and removes versions over the limit.
    /// False when the function or the version is gone.
    pub async fn update(
        &self,
        update: &Update<'_>,
        new: Option<(&VersionRecord, Package<'_>)>,
        key: Option<&IdempotencyKey>,
    ) -> Result<bool, StoreError> {
        let updated = async {
            let id = update.id.to_string();
            let mut transaction = self.pool.begin().await?;
            let row = sqlx::query("UPDATE functions SET name = $1, version = $2, former = $3 WHERE id = $4")
                .bind(update.name.as_str())
                .bind(i64::from(update.version))
                .bind(update.previous.map(i64::from))
                .bind(&id)
                .execute(&mut *transaction)
                .await?;
            if row.rows_affected() == 0 {
                return Ok(false);
            }
            if let Some((version, package)) = new {
                versions::insert(&mut transaction, update.id, version, package).await?;
            }
            if let (Some(key), Some((version, package))) = (key, new) {
                let deployed = deployed(id.clone(), version, update.name, package);
                remember(&mut transaction, "submit", key, version.created_at * 1000, (Some(&deployed), None)).await?;
            }
            // A function without its version would be damaged.
            let there = sqlx::query_scalar("SELECT count(*) FROM versions WHERE function_id = $1 AND number = $2");
            let there: i64 = there.bind(&id).bind(i64::from(update.version)).fetch_one(&mut *transaction).await?;
            if there == 0 {
                return Ok(false);
            }
            versions::prune(&mut transaction, update).await?;
            set(&mut transaction, &id, update.settings, update.preloaded).await?;
            transaction.commit().await?;
            Ok(true)
        };
        updated.await.map_err(|error| self.failed(error))
    }

    /// Removes a function. False when there is no such function.
    pub async fn delete(&self, id: FunctionId) -> Result<bool, StoreError> {
        let deleted = sqlx::query("DELETE FROM functions WHERE id = $1").bind(id.to_string()).execute(&self.pool).await;
        Ok(deleted.map_err(|error| self.failed(error))?.rows_affected() > 0)
    }
}

fn deployed(function_id: String, version: &VersionRecord, name: &FunctionName, package: Package<'_>) -> Deployed {
    let (image_id, version) = (version.image.id.as_str().to_owned(), version.number);
    Deployed { function_id, image_id, version, name: name.to_string(), warnings: package.warnings.to_vec() }
}

async fn set(
    connection: &mut AnyConnection,
    id: &str,
    settings: &Settings,
    preloaded: Option<&Preloaded>,
) -> Result<(), sqlx::Error> {
    // Numbers go as texts: sqlx 0.9 gives PostgreSQL a NULL of another type than a number.
    let set = "UPDATE functions SET memory_limit = $1, cpu_limit = CAST($2 AS DOUBLE PRECISION), \
               run_timeout = CAST($3 AS DOUBLE PRECISION), preload = $4, preloaded = $5 WHERE id = $6";
    sqlx::query(set)
        .bind(settings.memory.map(u64::cast_signed))
        .bind(settings.cpus.map(|cpus| cpus.to_string()))
        .bind(settings.timeout.map(|timeout| timeout.as_secs_f64().to_string()))
        .bind(settings.preload.as_ref().map(Preload::to_string))
        .bind(preloaded.map(|found| serde_json::to_string(found).expect("texts and numbers can be written as JSON")))
        .bind(id)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM variables WHERE function_id = $1").bind(id).execute(&mut *connection).await?;
    let open = settings.environment.iter().map(|(name, value)| (name, value, false));
    let secret = settings.secrets.iter().map(|(name, value)| (name, &value.0, true));
    for (name, value, is_secret) in open.chain(secret) {
        let insert = sqlx::query("INSERT INTO variables (function_id, name, value, is_secret) VALUES ($1, $2, $3, $4)");
        insert.bind(id).bind(name).bind(value).bind(i64::from(is_secret)).execute(&mut *connection).await?;
    }
    Ok(())
}

fn by_function(rows: Vec<AnyRow>) -> Result<HashMap<String, Vec<AnyRow>>, sqlx::Error> {
    let mut by_function: HashMap<String, Vec<AnyRow>> = HashMap::new();
    for row in rows {
        by_function.entry(row.try_get("function_id")?).or_default().push(row);
    }
    Ok(by_function)
}

/// None when a value has a form that this program does not write.
fn record(
    row: &AnyRow,
    versions: &HashMap<String, Vec<AnyRow>>,
    variables: &HashMap<String, Vec<AnyRow>>,
) -> Option<Record> {
    let id: String = row.try_get("id").ok()?;
    let versions = versions.get(&id)?;
    let version = |number: u32| versions.iter().filter_map(versions::record).find(|version| version.number == number);
    let previous = match row.try_get::<Option<i64>, _>("former").ok()? {
        Some(number) => Some(u32::try_from(number).ok()?),
        None => None,
    };
    let mut settings = Settings {
        memory: row.try_get::<Option<i64>, _>("memory_limit").ok()?.map(i64::cast_unsigned),
        cpus: row.try_get("cpu_limit").ok()?,
        timeout: match row.try_get::<Option<f64>, _>("run_timeout").ok()? {
            Some(seconds) => Some(Duration::try_from_secs_f64(seconds).ok()?),
            None => None,
        },
        preload: match row.try_get::<Option<String>, _>("preload").ok()? {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        },
        ..Settings::default()
    };
    let preloaded: Option<String> = row.try_get("preloaded").ok()?;
    for variable in variables.get(&id).into_iter().flatten() {
        let (name, value): (String, String) = (variable.try_get("name").ok()?, variable.try_get("value").ok()?);
        if variable.try_get::<i64, _>("is_secret").ok()? != 0 {
            settings.secrets.insert(name, Secret(value));
        } else {
            settings.environment.insert(name, value);
        }
    }
    Some(Record {
        id: id.parse().ok()?,
        name: row.try_get::<String, _>("name").ok()?.parse().ok()?,
        created_at: row.try_get::<i64, _>("created_at").ok()?.cast_unsigned(),
        executions: Executions {
            count: row.try_get::<i64, _>("executions").ok()?.cast_unsigned(),
            last: row.try_get::<Option<i64>, _>("last_executed").ok()?.map(i64::cast_unsigned),
        },
        settings,
        // A record in an older form is worth no more than no record.
        preloaded: preloaded.and_then(|json| serde_json::from_str(&json).ok()),
        version: version(u32::try_from(row.try_get::<i64, _>("version").ok()?).ok()?)?,
        previous: previous.and_then(version),
        last_version: u32::try_from(versions.first()?.try_get::<i64, _>("last_version").ok()?).ok()?,
    })
}

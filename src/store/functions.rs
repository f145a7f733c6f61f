//! Functions as rows.

use std::collections::HashMap;
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::postgres::CHANNEL;
use super::{Store, StoreError, notify, schedules, tokens, versions};
use crate::config::{HttpMode, Secret};
use crate::domain::settings::{Pins, Settings};
use crate::domain::{
    Changed, Changes, DeclaredSchedule, Deployed, Executions, FunctionId, FunctionName, IdempotencyKey, Package,
    Preload, Preloaded, Record, Update, VersionRecord,
};

impl Store {
    /// The changes of functions and tokens since the change with this number; with None, all functions and tokens as
    /// changed.
    pub async fn changes(&self, since: Option<u64>) -> Result<Changes, StoreError> {
        let since = since.map_or(-1, u64::cast_signed);
        let read = async {
            let mut snapshot = self.snapshot().await?;
            let last = sqlx::query("SELECT value, tokens FROM changes").fetch_one(&mut *snapshot).await?;
            let (last, of_tokens): (i64, i64) = (last.try_get("value")?, last.try_get("tokens")?);
            let tokens = if since < of_tokens { Some(tokens::rows(&mut snapshot).await?) } else { None };
            let functions = format!(
                "SELECT number, id, name, created_at, last_executed, executions, memory_limit, cpu_limit, run_timeout, \
                 concurrency, keep_warm, network, http, pins, version, former, preload, preloaded, generation, {} \
                 FROM functions WHERE changed > $1 ORDER BY number",
                notify::COLUMNS
            );
            let functions = sqlx::query(AssertSqlSafe(functions)).bind(since);
            let functions = functions.fetch_all(&mut *snapshot).await?;
            let versions = format!(
                "SELECT {} FROM versions JOIN functions ON function_id = id \
                 WHERE changed > $1 AND versions.number IN (version, former)",
                versions::COLUMNS
            );
            let versions = sqlx::query(AssertSqlSafe(versions)).bind(since).fetch_all(&mut *snapshot).await?;
            let variables = sqlx::query(
                "SELECT function_id, variables.name, value, is_secret, sealed FROM variables \
                 JOIN functions ON function_id = id WHERE changed > $1",
            );
            let variables = variables.bind(since).fetch_all(&mut *snapshot).await?;
            let deleted = sqlx::query_scalar("SELECT function_id FROM deletions WHERE changed > $1").bind(since);
            let deleted: Vec<String> = deleted.fetch_all(&mut *snapshot).await?;
            Ok::<_, sqlx::Error>((last, functions, by_function(versions)?, by_function(variables)?, deleted, tokens))
        };
        let (last, functions, versions, variables, deleted, tokens) = self.ask(read).await?;
        let damaged = || self.damaged("a function's row has values that can't be");
        let changed = functions.iter().map(|row| {
            let mut record = record(row, &versions).ok_or_else(damaged)?;
            record.settings.notify = self.read_notify(record.id, row)?;
            for row in variables.get(&record.id.to_string()).into_iter().flatten() {
                let (name, value, is_secret, is_sealed) = read_variable(row).ok_or_else(damaged)?;
                if is_secret {
                    let secret = self.opened(&record.id.to_string(), &name, value, is_sealed)?;
                    record.settings.secrets.insert(name, Secret(secret));
                } else {
                    record.settings.environment.insert(name, value);
                }
            }
            let pins: Option<String> = row.try_get("pins").map_err(|_| damaged())?;
            let pins: Vec<String> = match pins {
                Some(json) => serde_json::from_str(&json).map_err(|_| damaged())?,
                None => Vec::new(),
            };
            let manifest = record.version.manifest.iter();
            let declared = manifest.flat_map(|manifest| manifest.settings.names());
            record.settings.pins = Pins::new(pins).completed(&record.settings, declared);
            Ok(record)
        });
        let deleted = deleted.iter().map(|id| id.parse().map_err(|_| damaged()));
        Ok(Changes {
            last: last.cast_unsigned(),
            changed: changed.collect::<Result<_, _>>()?,
            deleted: deleted.collect::<Result<_, _>>()?,
            tokens: tokens.map(|rows| self.read_tokens(&rows)).transpose()?,
        })
    }

    /// Writes down a new function with its declared schedules, gives the function its number, and settles the key of
    /// the function's submit. With `is_only`, no other function may have the name.
    pub async fn insert(
        &self,
        record: &mut Record,
        package: Package<'_>,
        declared: &[DeclaredSchedule],
        key: Option<&IdempotencyKey>,
        is_only: bool,
    ) -> Result<Changed, StoreError> {
        let inserted = async {
            let id = record.id.to_string();
            let mut transaction = self.pool().begin().await?;
            let number = sqlx::query_scalar(
                "INSERT INTO functions (id, name, created_at, version, generation, last_version) \
                 VALUES ($1, $2, $3, $4, $5, $4) RETURNING number",
            );
            let number: i64 = number
                .bind(&id)
                .bind(record.name.as_str())
                .bind(record.created_at.cast_signed())
                .bind(i64::from(record.version.number))
                .bind(record.generation.cast_signed())
                .fetch_one(&mut *transaction)
                .await?;
            versions::insert(&mut transaction, record.id, &record.version, package).await?;
            self.set(&mut transaction, &id, &record.settings, record.preloaded.as_ref()).await?;
            schedules::declare(&mut transaction, record.id, declared).await?;
            if let Some(key) = key {
                let deployed = deployed(id.clone(), &record.version, &record.name, package);
                if !self.settle_key(&mut transaction, key, &deployed).await? {
                    return Ok((Changed::Claimed, 0));
                }
            }
            let change = self.next_change(&mut transaction, &id).await?;
            // Changes come one after the other, so of two functions the later sees the earlier here.
            if is_only {
                let others = sqlx::query_scalar("SELECT count(*) FROM functions WHERE name = $1 AND id <> $2");
                let others: i64 = others.bind(record.name.as_str()).bind(&id).fetch_one(&mut *transaction).await?;
                if others > 0 {
                    return Ok((Changed::Since, 0));
                }
            }
            transaction.commit().await?;
            Ok((Changed::Now(change.cast_unsigned()), number))
        };
        let inserted = async { or_taken(inserted.await, (Changed::NameTaken, 0)) };
        let (changed, number) = self.ask(inserted).await?;
        record.number = number.cast_unsigned();
        Ok(changed)
    }

    /// Writes down a function's next state, with the new version if there is one, settles the key of the update, and
    /// removes versions over the limit.
    pub async fn update(
        &self,
        update: &Update<'_>,
        new: Option<(&VersionRecord, Package<'_>)>,
        key: Option<&IdempotencyKey>,
    ) -> Result<Changed, StoreError> {
        let updated = async {
            let id = update.id.to_string();
            let mut transaction = self.pool().begin().await?;
            let row = sqlx::query(
                "UPDATE functions SET name = $1, version = $2, former = $3, generation = generation + 1 \
                 WHERE id = $4 AND generation = $5",
            );
            let row = row
                .bind(update.name.as_str())
                .bind(i64::from(update.version))
                .bind(update.previous.map(i64::from))
                .bind(&id)
                .bind(update.from.cast_signed())
                .execute(&mut *transaction)
                .await?;
            if row.rows_affected() == 0 {
                let there = sqlx::query_scalar("SELECT count(*) FROM functions WHERE id = $1").bind(&id);
                let there: i64 = there.fetch_one(&mut *transaction).await?;
                return Ok(if there == 0 { Changed::Gone } else { Changed::Since });
            }
            if let Some((version, package)) = new {
                versions::insert(&mut transaction, update.id, version, package).await?;
            }
            if let (Some(key), Some((version, package))) = (key, new) {
                let deployed = deployed(id.clone(), version, update.name, package);
                if !self.settle_key(&mut transaction, key, &deployed).await? {
                    return Ok(Changed::Claimed);
                }
            }
            // A function without its version would be damaged.
            let there = sqlx::query_scalar("SELECT count(*) FROM versions WHERE function_id = $1 AND number = $2");
            let there: i64 = there.bind(&id).bind(i64::from(update.version)).fetch_one(&mut *transaction).await?;
            if there == 0 {
                return Ok(Changed::Gone);
            }
            versions::prune(&mut transaction, update).await?;
            if let Some(declared) = update.declared
                && !schedules::declare(&mut transaction, update.id, declared).await?
            {
                return Ok(Changed::TooManySchedules);
            }
            self.set(&mut transaction, &id, update.settings, update.preloaded).await?;
            let change = self.next_change(&mut transaction, &id).await?;
            transaction.commit().await?;
            Ok(Changed::Now(change.cast_unsigned()))
        };
        self.ask(async { or_taken(updated.await, Changed::NameTaken) }).await
    }

    /// The number of a function's next version, which no other version gets, even when the build fails. None when
    /// there is no such function.
    pub async fn next_version(&self, id: FunctionId) -> Result<Option<u32>, StoreError> {
        let next = "UPDATE functions SET last_version = last_version + 1 WHERE id = $1 RETURNING last_version";
        let next = sqlx::query_scalar::<_, i64>(next).bind(id.to_string());
        let number = self.ask(next.fetch_optional(&self.pool())).await?.map(u32::try_from);
        number.transpose().map_err(|_| self.damaged("a function has too many versions"))
    }

    /// Executions of functions that were executed lately, by the database's clock.
    pub async fn executions(&self, lately: Duration) -> Result<Vec<(FunctionId, Executions)>, StoreError> {
        let select = format!(
            "SELECT id, executions, last_executed FROM functions WHERE last_executed * 1000 > {} - {}",
            self.now(),
            lately.as_millis()
        );
        let rows = self.ask(sqlx::query(AssertSqlSafe(select)).fetch_all(&self.pool())).await?;
        let counted = |row: &AnyRow| Some((row.try_get::<String, _>("id").ok()?.parse().ok()?, executions(row)?));
        rows.iter().map(|row| counted(row).ok_or_else(|| self.damaged("a count of executions can't be"))).collect()
    }

    /// Takes the number of a change, for the function with this id where the function is not gone. Other changes wait
    /// until this one is committed, so this comes last. Then other processes learn that there is a change.
    pub(super) async fn next_change(&self, connection: &mut AnyConnection, id: &str) -> Result<i64, sqlx::Error> {
        if self.is_shared() {
            let hint = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL);
            hint.execute(&mut *connection).await?;
        }
        let change = sqlx::query_scalar("UPDATE changes SET value = value + 1 RETURNING value");
        let change: i64 = change.fetch_one(&mut *connection).await?;
        let changed = sqlx::query("UPDATE functions SET changed = $1 WHERE id = $2").bind(change).bind(id);
        changed.execute(connection).await?;
        Ok(change)
    }

    /// The number of the last change.
    pub async fn last_change(&self) -> Result<u64, StoreError> {
        let last = sqlx::query_scalar::<_, i64>("SELECT value FROM changes");
        self.ask(last.fetch_one(&self.control())).await.map(i64::cast_unsigned)
    }

    async fn set(
        &self,
        connection: &mut AnyConnection,
        id: &str,
        settings: &Settings,
        preloaded: Option<&Preloaded>,
    ) -> Result<(), sqlx::Error> {
        // Numbers go as texts: sqlx 0.9 gives PostgreSQL a NULL of another type than a number.
        let set = "UPDATE functions SET memory_limit = $1, cpu_limit = CAST($2 AS DOUBLE PRECISION), \
                   run_timeout = CAST($3 AS DOUBLE PRECISION), preload = $4, preloaded = $5, \
                   concurrency = $6, keep_warm = $7, network = $8, http = $9, pins = $10 WHERE id = $11";
        sqlx::query(set)
            .bind(settings.memory.map(u64::cast_signed))
            .bind(settings.cpus.map(|cpus| cpus.to_string()))
            .bind(settings.timeout.map(|timeout| timeout.as_secs_f64().to_string()))
            .bind(settings.preload.as_ref().map(Preload::to_string))
            .bind(
                preloaded.map(|found| serde_json::to_string(found).expect("texts and numbers can be written as JSON")),
            )
            .bind(settings.concurrency.map(i64::from))
            .bind(settings.keep_warm.map(i64::from))
            .bind(
                settings
                    .network
                    .as_ref()
                    .map(|network| serde_json::to_string(network).expect("a list of texts can be written as JSON")),
            )
            .bind(Some(settings.http.name()).filter(|_| settings.http != HttpMode::Off))
            .bind(
                serde_json::to_string(&settings.pins.names().collect::<Vec<_>>())
                    .expect("a list of texts can be written as JSON"),
            )
            .bind(id)
            .execute(&mut *connection)
            .await?;
        self.set_notify(connection, id, settings.notify.as_ref()).await?;
        sqlx::query("DELETE FROM variables WHERE function_id = $1").bind(id).execute(&mut *connection).await?;
        for (name, value) in &settings.environment {
            variable(connection, (id, name, value), false, false).await?;
        }
        for (name, Secret(secret)) in &settings.secrets {
            let (value, is_sealed) = self.sealed(id, name, secret);
            variable(connection, (id, name, &value), true, is_sealed).await?;
        }
        Ok(())
    }
}

/// `taken` in place of the error that another function of the name answers requests over HTTP.
fn or_taken<T>(result: Result<T, sqlx::Error>, taken: T) -> Result<T, sqlx::Error> {
    let is_taken = |error: &sqlx::Error| {
        let error = error.as_database_error().filter(|error| error.is_unique_violation());
        // PostgreSQL names the index, and SQLite the column.
        error.is_some_and(|error| {
            ["functions_http_name", "functions.name"].iter().any(|name| error.message().contains(name))
        })
    };
    match result {
        Err(error) if is_taken(&error) => Ok(taken),
        other => other,
    }
}

fn deployed(function_id: String, version: &VersionRecord, name: &FunctionName, package: Package<'_>) -> Deployed {
    let (image_id, version) = (version.image.id.as_str().to_owned(), version.number);
    Deployed {
        function_id,
        image_id,
        version,
        name: name.to_string(),
        warnings: package.warnings.to_vec(),
        notify_secret: None,
    }
}

async fn variable(
    connection: &mut AnyConnection,
    (function, name, value): (&str, &str, &str),
    is_secret: bool,
    is_sealed: bool,
) -> Result<(), sqlx::Error> {
    let insert =
        sqlx::query("INSERT INTO variables (function_id, name, value, is_secret, sealed) VALUES ($1, $2, $3, $4, $5)");
    let insert = insert.bind(function).bind(name).bind(value).bind(i64::from(is_secret)).bind(i64::from(is_sealed));
    insert.execute(connection).await.map(drop)
}

fn by_function(rows: Vec<AnyRow>) -> Result<HashMap<String, Vec<AnyRow>>, sqlx::Error> {
    let mut by_function: HashMap<String, Vec<AnyRow>> = HashMap::new();
    for row in rows {
        by_function.entry(row.try_get("function_id")?).or_default().push(row);
    }
    Ok(by_function)
}

/// A variable's name, its value, whether the variable is a secret, and whether the value is sealed.
fn read_variable(row: &AnyRow) -> Option<(String, String, bool, bool)> {
    let flag = |column: &str| row.try_get::<i64, _>(column).ok().map(|flag| flag != 0);
    Some((row.try_get("name").ok()?, row.try_get("value").ok()?, flag("is_secret")?, flag("sealed")?))
}

fn executions(row: &AnyRow) -> Option<Executions> {
    Some(Executions {
        count: row.try_get::<i64, _>("executions").ok()?.cast_unsigned(),
        last: row.try_get::<Option<i64>, _>("last_executed").ok()?.map(i64::cast_unsigned),
    })
}

/// A number that may be NULL. None when the number can't be.
fn count(row: &AnyRow, column: &str) -> Option<Option<u32>> {
    row.try_get::<Option<i64>, _>(column).ok()?.map(u32::try_from).transpose().ok()
}

/// None when a value has a form that this program does not write.
fn record(row: &AnyRow, versions: &HashMap<String, Vec<AnyRow>>) -> Option<Record> {
    let id: String = row.try_get("id").ok()?;
    let versions = versions.get(&id)?;
    let version = |number: u32| versions.iter().filter_map(versions::record).find(|version| version.number == number);
    let previous = match row.try_get::<Option<i64>, _>("former").ok()? {
        Some(number) => Some(u32::try_from(number).ok()?),
        None => None,
    };
    let settings = Settings {
        memory: row.try_get::<Option<i64>, _>("memory_limit").ok()?.map(i64::cast_unsigned),
        cpus: row.try_get("cpu_limit").ok()?,
        timeout: match row.try_get::<Option<f64>, _>("run_timeout").ok()? {
            Some(seconds) => Some(Duration::try_from_secs_f64(seconds).ok()?),
            None => None,
        },
        concurrency: count(row, "concurrency")?,
        keep_warm: count(row, "keep_warm")?,
        preload: match row.try_get::<Option<String>, _>("preload").ok()? {
            Some(text) => Some(text.parse().ok()?),
            None => None,
        },
        network: match row.try_get::<Option<String>, _>("network").ok()? {
            Some(json) => Some(serde_json::from_str(&json).ok()?),
            None => None,
        },
        http: match row.try_get::<Option<String>, _>("http").ok()? {
            Some(name) => HttpMode::from_name(&name)?,
            None => HttpMode::Off,
        },
        ..Settings::default()
    };
    let preloaded: Option<String> = row.try_get("preloaded").ok()?;
    Some(Record {
        id: id.parse().ok()?,
        number: row.try_get::<i64, _>("number").ok()?.cast_unsigned(),
        generation: row.try_get::<i64, _>("generation").ok()?.cast_unsigned(),
        name: row.try_get::<String, _>("name").ok()?.parse().ok()?,
        created_at: row.try_get::<i64, _>("created_at").ok()?.cast_unsigned(),
        executions: executions(row)?,
        settings,
        // A record in an older form is worth no more than no record.
        preloaded: preloaded.and_then(|json| serde_json::from_str(&json).ok()),
        version: version(u32::try_from(row.try_get::<i64, _>("version").ok()?).ok()?)?,
        previous: previous.and_then(version),
    })
}

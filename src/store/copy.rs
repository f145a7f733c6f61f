//! Copies the SQLite file of DATA_DIR into an empty PostgreSQL.

use std::path::Path;

use futures_util::TryStreamExt;
use sqlx::any::{AnyRow, AnyTypeInfoKind};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Column, Row, ValueRef};

use super::migrations::OF_SQLITE;
use super::sqlite::FILE_NAME;
use super::{Store, StoreError};
use crate::config::{Secret, SecretKey};

/// All tables, each behind the tables that its rows refer to.
const TABLES: [&str; 10] = [
    "functions",
    "versions",
    "zips",
    "version_logs",
    "variables",
    "invocations",
    "idempotency_keys",
    "notifications",
    "tokens",
    "schedules",
];

/// The tables whose rows are numbered by the database.
const NUMBERED: [&str; 2] = ["functions", "invocations"];

impl Store {
    /// Copies all rows of the file in `data_dir`, into the database of `url`. The database
    /// gets all rows or none. Secrets are sealed by `keys`, in the file, too. Returns the number of functions. No
    /// service may use either.
    pub async fn migrate_to_postgres(data_dir: &Path, url: &Secret, keys: &[SecretKey]) -> Result<u64, StoreError> {
        let path = data_dir.join(FILE_NAME);
        if !path.exists() {
            return Err(StoreError::Missing(path));
        }
        let from = Self::connect(path).await?;
        from.migrate(&OF_SQLITE, &from.pool()).await?;
        let to = Self::postgres(url).await?;
        // Secrets are sealed before they leave the file: what a database has seen may stay in its log.
        let sealed = from.with_keys(keys).await?;
        let copied = sealed.copy_to(&to).await;
        sealed.close().await;
        to.close().await;
        copied
    }

    async fn copy_to(&self, to: &Self) -> Result<u64, StoreError> {
        let mut transaction = to.pool().begin().await.map_err(|error| to.failed(error))?;
        for table in TABLES {
            let any = format!("SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT 1) AS first_row");
            let any: Result<i64, _> = sqlx::query_scalar(AssertSqlSafe(any)).fetch_one(&mut *transaction).await;
            if any.map_err(|error| to.failed(error))? > 0 {
                return Err(StoreError::NotEmpty(table));
            }
        }
        let mut functions = 0;
        for table in TABLES {
            let mut rows = sqlx::query(AssertSqlSafe(format!("SELECT * FROM {table}"))).fetch(&self.pool());
            while let Some(row) = rows.try_next().await.map_err(|error| self.failed(error))? {
                insert(&mut transaction, table, &row).await.map_err(|error| to.failed(error))?;
                functions += u64::from(table == "functions");
            }
        }
        for table in NUMBERED {
            // The next row's number follows the highest one.
            let next = format!(
                "SELECT setval(pg_get_serial_sequence('{table}', 'number'), \
                 (SELECT coalesce(max(number), 0) + 1 FROM {table}), false)"
            );
            sqlx::query(AssertSqlSafe(next)).execute(&mut *transaction).await.map_err(|error| to.failed(error))?;
        }
        // Changes go on behind those of the file.
        let last = "UPDATE changes SET value = (SELECT coalesce(max(changed), 0) FROM functions)";
        sqlx::query(last).execute(&mut *transaction).await.map_err(|error| to.failed(error))?;
        transaction.commit().await.map_err(|error| to.failed(error))?;
        Ok(functions)
    }
}

/// Inserts a row by the names of its columns. Columns that are NULL are left out.
async fn insert(connection: &mut AnyConnection, table: &str, row: &AnyRow) -> Result<(), sqlx::Error> {
    let mut present = Vec::new();
    for column in row.columns() {
        if !row.try_get_raw(column.ordinal())?.is_null() {
            present.push(column);
        }
    }
    let names: Vec<&str> = present.iter().map(|column| column.name()).collect();
    let places: Vec<String> = (1..=present.len()).map(|place| format!("${place}")).collect();
    let insert = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", "));
    let mut query = sqlx::query(AssertSqlSafe(insert));
    for column in present {
        query = bind(query, row, column.ordinal())?;
    }
    query.execute(connection).await.map(drop)
}

fn bind<'q>(
    query: Query<'q, Any, sqlx::any::AnyArguments>,
    row: &AnyRow,
    place: usize,
) -> Result<Query<'q, Any, sqlx::any::AnyArguments>, sqlx::Error> {
    let kind = row.try_get_raw(place)?.type_info().kind();
    Ok(match kind {
        AnyTypeInfoKind::Blob => query.bind(row.try_get::<Vec<u8>, _>(place)?),
        AnyTypeInfoKind::Double | AnyTypeInfoKind::Real => query.bind(row.try_get::<f64, _>(place)?),
        AnyTypeInfoKind::Text => query.bind(row.try_get::<String, _>(place)?.replace('\0', "\u{fffd}")),
        _ => query.bind(row.try_get::<i64, _>(place)?),
    })
}

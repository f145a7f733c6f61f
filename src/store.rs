//! Functions, zips, build logs, invocations and tokens in a database: one SQLite file in DATA_DIR, or the PostgreSQL of
//! STORE_URL. No other folder has SQL.
//!
//! A call that returns has written to disk: every commit is synced. The queries are the same for both databases:
//! numbered parameters, ON CONFLICT, RETURNING, and only the types that both have (texts, 64-bit integers, floats,
//! bytes). What differs is in `sqlite` and `postgres`.

mod answer;
mod copy;
mod deletions;
mod ends;
mod error;
mod functions;
mod history;
mod idempotency;
mod invocations;
mod leases;
mod migrations;
mod nodes;
mod notifications;
mod notify;
mod pages;
mod postgres;
mod runtime_images;
mod schedules;
mod sealing;
mod sqlite;
mod tokens;
mod versions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::RwLock;
use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Any, AnyPool, ConnectOptions, Connection, Executor, Transaction};
use tokio::sync::Notify;
use uuid::Uuid;

pub use deletions::DELETION_RETENTION;
pub use error::StoreError;
pub use nodes::LEASE;
pub use schedules::Put;
pub use sqlite::FILE_NAME;

use crate::config::{self, Secret, SecretKey};
use sealing::Sealer;

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// Replaced where the server may be gone without a word.
    pool: Arc<RwLock<AnyPool>>,
    /// The connections of heartbeats and of looks for changes, which wait for no other work of this process. With
    /// SQLite the one connection.
    control: Arc<RwLock<AnyPool>>,
    database: Database,
    /// The run of this process: rows that the process works on name the run.
    run: Arc<str>,
    /// None where secrets are kept as they are.
    sealer: Option<Arc<Sealer>>,
    /// A notification was written down.
    told: Arc<Notify>,
}

/// The kind of the database, and what its errors name.
#[derive(Clone, Debug)]
enum Database {
    /// SQLite: the file.
    Sqlite(PathBuf),
    /// PostgreSQL: its URL.
    Postgres(Secret),
}

impl Store {
    /// Opens the database that the configuration names, and brings the schema to the current form. No other process
    /// may serve from `data_dir`.
    pub async fn open(config: &config::Store, data_dir: &Path) -> Result<Self, StoreError> {
        let store = match &config.url {
            Some(url) => Self::postgres(url).await?,
            None => Self::sqlite(data_dir).await?,
        };
        store.with_keys(&config.keys).await
    }

    /// The store that seals secrets by the first of these keys. Secrets that are not sealed by that key are sealed now.
    pub async fn with_keys(self, keys: &[SecretKey]) -> Result<Self, StoreError> {
        let store = Self { sealer: Sealer::new(keys).map(Arc::new), ..self };
        match store.seal_all().await? {
            0 => {}
            secrets => tracing::info!(secrets, "sealed secrets by the first key of SECRETS_KEY_FILE"),
        }
        Ok(store)
    }

    /// Ends all connections. Calls after this fail. SQLite folds its log into the file.
    pub async fn close(&self) {
        self.control().close().await;
        self.pool().close().await;
    }

    /// Whether other processes may use the database at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// The run of this process, as rows name the run.
    pub fn run(&self) -> &str {
        &self.run
    }

    fn new(pool: AnyPool, control: AnyPool, database: Database) -> Self {
        let (pool, control) = (Arc::new(RwLock::new(pool)), Arc::new(RwLock::new(control)));
        Self { pool, control, database, run: Uuid::new_v4().to_string().into(), sealer: None, told: Arc::default() }
    }

    fn pool(&self) -> AnyPool {
        self.pool.read().clone()
    }

    fn control(&self) -> AnyPool {
        self.control.read().clone()
    }

    /// A transaction whose queries all see one moment's state.
    async fn snapshot(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        self.control()
            .begin_with(match self.database {
                Database::Sqlite(_) => "BEGIN",
                Database::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            })
            .await
    }

    /// The time by the database's clock in milliseconds, as SQL. Nodes' clocks may differ.
    fn now(&self) -> &'static str {
        match self.database {
            Database::Sqlite(_) => "CAST(unixepoch('subsec') * 1000 AS INTEGER)",
            Database::Postgres(_) => "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
        }
    }

    async fn migrate(&self, migrator: &Migrator, pool: &AnyPool) -> Result<(), StoreError> {
        migrator.run(pool).await.map_err(|error| match (error, &self.database) {
            (MigrateError::VersionMissing(schema), Database::Sqlite(path)) => {
                StoreError::Newer { database: path.display().to_string(), schema }
            }
            (MigrateError::VersionMissing(schema), Database::Postgres(_)) => {
                StoreError::Newer { database: "the database of STORE_URL".to_owned(), schema }
            }
            (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _), _) => self.failed(error),
            (error, _) => self.damaged(error),
        })
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        match &self.database {
            Database::Sqlite(path) => sqlite::classify(path, error),
            Database::Postgres(_) => postgres::classify(error),
        }
    }

    fn damaged(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        match &self.database {
            Database::Sqlite(path) => StoreError::Damaged { path: path.clone(), source: source.into() },
            Database::Postgres(_) => StoreError::Foreign(source.into().to_string()),
        }
    }
}

/// A pool of connections that begin with the statements `session`. The first connection is apart from the pool, which
/// would try again and again and not tell why.
async fn connect(
    options: AnyConnectOptions,
    session: &'static str,
    pool: AnyPoolOptions,
) -> Result<AnyPool, sqlx::Error> {
    sqlx::any::install_default_drivers();
    let options = options.disable_statement_logging();
    let mut first = options.connect().await?;
    first.execute(session).await?;
    let pool = begin_with(pool, session).connect_with(options).await?;
    // Only now: at the end of a file's last connection SQLite writes the log into the file, which needs room.
    first.close().await?;
    Ok(pool)
}

/// Has each connection begin with the statements `session`.
fn begin_with(pool: AnyPoolOptions, session: &'static str) -> AnyPoolOptions {
    pool.after_connect(move |connection, _| Box::pin(async move { connection.execute(session).await.map(drop) }))
}

#[cfg(test)]
pub(crate) mod tests;

//! Functions, zips, build logs and invocations on disk: one SQLite file in DATA_DIR. No other folder has SQL.
//!
//! A call that returns has written to disk: every commit is synced (WAL, `synchronous = FULL`).

mod functions;
mod idempotency;
mod invocations;
mod versions;

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Sqlite, SqlitePool};
use thiserror::Error;

use crate::resources::disk;

/// The file's name in DATA_DIR.
pub const FILE_NAME: &str = "store.db";

/// The wait for another process that has the file, which can only be a backup or an operator's `sqlite3`.
const BUSY_LIMIT: Duration = Duration::from_secs(10);

/// With less than this free, in bytes, an I/O error means a full disk.
const ALMOST_NOTHING: u64 = 1 << 20;

/// The database. One connection: all writes are short, and there is one process.
#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
    path: PathBuf,
}

/// The reason why the store can't read or write.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file is no database of this platform, or a damaged database.
    #[error(
        "{path} is damaged or not a database of this platform; restore a backup in its place (docs/operations.md, \
         \"Backup\"), or move it \
         away with its -wal and -shm files to start with no functions"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The user or the disk does not let this process write.
    #[error(
        "{path} can't be opened and written to; DATA_DIR must be on a disk and of a user that let this process write"
    )]
    ReadOnly {
        /// The file.
        path: PathBuf,
        /// SQLite's reason.
        #[source]
        source: sqlx::Error,
    },
    /// A later version of this program has changed the schema.
    #[error(
        "{path} was written by a newer version of this program (schema {schema}); run that version, or restore a \
         backup made by this one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The number of the file's schema.
        schema: i64,
    },
    /// The disk is full.
    #[error("the disk of DATA_DIR is full")]
    Full(#[source] sqlx::Error),
    /// The backup's file exists. A backup goes to a new file only.
    #[error("{0} exists; give the backup a name of its own")]
    Exists(PathBuf),
    /// There is no database to back up.
    #[error("there is no {0}; DATA_DIR must be that of the service")]
    Missing(PathBuf),
    /// Another error of SQLite.
    #[error("failed to use the database")]
    Other(#[source] sqlx::Error),
}

impl Store {
    /// Opens or makes the database in `data_dir`, and brings the schema to the current form. No other process may serve
    /// from the folder.
    pub async fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(FILE_NAME);
        // SQLite says better why a file can't be written.
        let _ = keep_private(&path);
        // SQLite makes these files like the database, but takes files that a crash has left as the files are.
        for beside in ["-wal", "-shm"] {
            let beside = data_dir.join(format!("{FILE_NAME}{beside}"));
            let _ = std::fs::set_permissions(&beside, Permissions::from_mode(0o600));
        }
        let options = options(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // A removed secret must not stay in free pages, where that costs nothing.
            .pragma("secure_delete", "FAST")
            .foreign_keys(true);
        let store = Self::connect(path, options).await?;
        let migrated = sqlx::migrate!("src/store/migrations").run(&store.pool).await;
        migrated.map_err(|error| store.migration(error))?;
        // Migrations that are done write nothing: without this a read-only file would show only at a submit.
        let written = sqlx::query("UPDATE functions SET name = name WHERE number < 0").execute(&store.pool).await;
        written.map_err(|error| store.failed(error))?;
        // The check reads the small table only: zips may be gigabytes, and a function with a damaged zip still
        // executes.
        let check = sqlx::query_scalar::<Sqlite, String>("PRAGMA quick_check(functions)");
        match check.fetch_all(&store.pool).await.map_err(|error| store.failed(error))?.as_slice() {
            [ok] if ok == "ok" => Ok(store),
            complaints => Err(store.damaged(complaints.join("; "))),
        }
    }

    /// Copies one moment's state of the whole database to `file`. The service may run meanwhile.
    pub async fn backup(data_dir: &Path, file: &Path) -> Result<(), StoreError> {
        let path = data_dir.join(FILE_NAME);
        if !path.exists() {
            return Err(StoreError::Missing(path));
        }
        if file.exists() {
            return Err(StoreError::Exists(file.to_owned()));
        }
        let store = Self::connect(path.clone(), options(&path)).await?;
        // The draft is renamed when the draft is whole, so that a file of that name is a whole backup.
        let draft = file.with_added_extension("part");
        let _ = std::fs::remove_file(&draft);
        keep_private(&draft).map_err(|error| StoreError::Other(error.into()))?;
        let name = draft.to_string_lossy().into_owned();
        let copied = sqlx::query("VACUUM INTO ?").bind(name).execute(&store.pool).await;
        let kept = copied.map_err(|error| store.failed(error)).and_then(|_| {
            let synced = std::fs::File::open(&draft).and_then(|draft| draft.sync_all());
            synced.and_then(|()| std::fs::rename(&draft, file)).map_err(|error| StoreError::Other(error.into()))
        });
        store.close().await;
        kept.inspect_err(|_| drop(std::fs::remove_file(&draft)))
    }

    /// Folds the log into the file. Calls after this fail.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn connect(path: PathBuf, options: SqliteConnectOptions) -> Result<Self, StoreError> {
        let pool = SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_with(options).await.map_err(|error| classify(&path, error))?;
        Ok(Self { pool, path })
    }

    fn failed(&self, error: sqlx::Error) -> StoreError {
        classify(&self.path, error)
    }

    fn damaged(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), source: source.into() }
    }

    fn migration(&self, error: MigrateError) -> StoreError {
        match error {
            MigrateError::VersionMissing(schema) => StoreError::Newer { path: self.path.clone(), schema },
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => self.failed(error),
            error => self.damaged(error),
        }
    }
}

/// Makes the file where there is none. Only this user may read the file, which has functions' secrets. SQLite takes an
/// empty file for a new database.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_LIMIT).disable_statement_logging()
}

/// Classifies by SQLite's primary result codes, <https://sqlite.org/rescode.html>.
fn classify(path: &Path, error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i64>().ok());
    match code.map(|code| code & 0xff) {
        Some(8 | 14) => StoreError::ReadOnly { path: path.to_owned(), source: error },
        Some(11 | 26) => StoreError::Damaged { path: path.to_owned(), source: error.into() },
        // An I/O error, too, may mean a full disk: the log's index can't grow.
        Some(13) => StoreError::Full(error),
        Some(10) if disk::free(path).is_ok_and(|free| free < ALMOST_NOTHING) => StoreError::Full(error),
        _ => StoreError::Other(error),
    }
}

#[cfg(test)]
mod tests;

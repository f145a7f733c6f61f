//! SQLite: one file in DATA_DIR (WAL, `synchronous = FULL`), with one connection, as all writes are short and there is
//! one process.

use std::fs::{File, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sqlx::Any;
use sqlx::any::AnyPoolOptions;

use super::migrations::OF_SQLITE;
use super::{Database, Store, StoreError, connect};
use crate::resources::disk;

/// The file's name in DATA_DIR.
pub const FILE_NAME: &str = "store.db";

/// `busy_timeout` is the wait for another process that has the file, which can only be a backup or an operator's
/// `sqlite3`. A removed secret must not stay in free pages, where that costs nothing: `secure_delete`.
const PRAGMAS: &str = "PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                       PRAGMA secure_delete = FAST; PRAGMA foreign_keys = ON";

/// With less than this free, in bytes, an I/O error means a full disk.
const ALMOST_NOTHING: u64 = 1 << 20;

impl Store {
    /// Opens or makes the database in `data_dir`, and brings the schema to the current form. No other process may serve
    /// from the folder.
    pub async fn sqlite(data_dir: &Path) -> Result<Self, StoreError> {
        let path = data_dir.join(FILE_NAME);
        // SQLite says better why a file can't be written.
        let _ = keep_private(&path);
        // SQLite makes these files like the database, but takes files that a crash has left as the files are.
        for beside in ["-wal", "-shm"] {
            let beside = data_dir.join(format!("{FILE_NAME}{beside}"));
            let _ = std::fs::set_permissions(&beside, Permissions::from_mode(0o600));
        }
        let store = Self::connect(path).await?;
        store.migrate(&OF_SQLITE, &store.pool()).await?;
        // Migrations that are done write nothing: without this a read-only file would show only at a submit.
        let written = sqlx::query("UPDATE functions SET name = name WHERE number < 0").execute(&store.pool()).await;
        written.map_err(|error| store.failed(error))?;
        // The check reads the small table only: zips may be gigabytes, and a function with a damaged zip still
        // executes.
        let check = sqlx::query_scalar::<Any, String>("PRAGMA quick_check(functions)");
        match check.fetch_all(&store.pool()).await.map_err(|error| store.failed(error))?.as_slice() {
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
        let store = Self::connect(path).await?;
        // The draft is renamed when the draft is whole, so that a file of that name is a whole backup.
        let draft = file.with_added_extension("part");
        let _ = std::fs::remove_file(&draft);
        keep_private(&draft).map_err(|error| StoreError::Other(error.into()))?;
        let name = draft.to_string_lossy().into_owned();
        let copied = sqlx::query("VACUUM INTO $1").bind(name).execute(&store.pool()).await;
        let kept = copied.map_err(|error| store.failed(error)).and_then(|_| {
            let synced = std::fs::File::open(&draft).and_then(|draft| draft.sync_all());
            synced.and_then(|()| std::fs::rename(&draft, file)).map_err(|error| StoreError::Other(error.into()))
        });
        store.close().await;
        kept.inspect_err(|_| drop(std::fs::remove_file(&draft)))
    }

    pub(super) async fn connect(path: PathBuf) -> Result<Self, StoreError> {
        let connected = async {
            let options = url(&std::path::absolute(&path)?).parse()?;
            connect(options, PRAGMAS, AnyPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None))
                .await
        };
        let pool = connected.await.map_err(|error| classify(&path, error))?;
        Ok(Self::new(pool.clone(), pool, Database::Sqlite(path)))
    }
}

/// The URL of a file, which sqlx decodes again. The path must be absolute: what comes first in a relative one would be
/// taken for a host.
fn url(path: &Path) -> String {
    let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    format!("sqlite://{path}?mode=rwc")
}

/// Makes the file where there is none. Only this user may read the file, which has functions' secrets. SQLite takes an
/// empty file for a new database.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Classifies by SQLite's primary result codes, <https://sqlite.org/rescode.html>.
pub(super) fn classify(path: &Path, error: sqlx::Error) -> StoreError {
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

//! Why the store can't read or write.

use std::path::PathBuf;

use thiserror::Error;

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
        "{database} was written by a newer version of this program (schema {schema}); run that version, or restore a \
         backup made by this one"
    )]
    Newer {
        /// The file, or PostgreSQL.
        database: String,
        /// The number of the file's schema.
        schema: i64,
    },
    /// The disk is full.
    #[error("the disk of the database is full")]
    Full(#[source] sqlx::Error),
    /// PostgreSQL does not answer, or not in time.
    #[error("PostgreSQL (STORE_URL) does not answer")]
    Unreachable(#[source] sqlx::Error),
    /// A row of PostgreSQL has values that this program does not write.
    #[error("the database of STORE_URL is not one of this platform, or was changed by others: {0}")]
    Foreign(String),
    /// No key opens a secret.
    #[error(
        "no key of SECRETS_KEY_FILE opens the secret {name} of function {function}; the file must have the key that \
         was in the file when the secret was set"
    )]
    Sealed {
        /// The function's id.
        function: String,
        /// The secret's name.
        name: String,
    },
    /// The backup's file exists. A backup goes to a new file only.
    #[error("{0} exists; give the backup a name of its own")]
    Exists(PathBuf),
    /// There is no database to back up.
    #[error("there is no {0}; DATA_DIR must be that of the service")]
    Missing(PathBuf),
    /// A store of PostgreSQL is not copied to a file.
    #[error("STORE_URL names a PostgreSQL: back it up with pg_dump (docs/operations.md, \"Backup\")")]
    NoFile,
    /// The database that a migration is to fill has rows.
    #[error("the database of STORE_URL has rows in its table {0}; migrate-store copies into an empty database only")]
    NotEmpty(&'static str),
    /// Another error of the database.
    #[error("failed to use the database")]
    Other(#[source] sqlx::Error),
}

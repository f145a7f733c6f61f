//! The time limits of waits for PostgreSQL. A server that is gone without a word, such as a machine without power,
//! sends nothing, and the kernel waits for such a server for many minutes.

use std::io;
use std::time::Duration;

use sqlx::Executor;
use sqlx::any::AnyPoolOptions;
use tokio::time;

use super::{Database, Store, StoreError};

/// The time limit of a question with all its statements. The server's own limit of a statement comes first.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(35);

/// The time limit of a connection's last words before the pool has the connection again.
const RELEASE_LIMIT: Duration = Duration::from_secs(5);

/// Gives a row where the connection is in a transaction that began before this statement. Goes as one message, so that
/// the two times are the same outside of a transaction.
const IN_TRANSACTION: &str = "SELECT 1 WHERE transaction_timestamp() < statement_timestamp()";

impl Store {
    /// Waits for what the database answers to a question: a statement, or a transaction with its commit. Whether a
    /// change whose answer does not come in time is made, is not known.
    pub(super) async fn ask<T>(&self, question: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        let answer = match self.database {
            // A file's disk answers, or the process hangs with the disk.
            Database::Sqlite(_) => question.await,
            Database::Postgres(_) => within(ANSWER_LIMIT, question).await,
        };
        answer.map_err(|error| self.failed(error))
    }
}

/// Gives up a question after this time.
pub(super) async fn within<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    time::timeout(limit, question).await.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Has the pool take a connection back only if the server answers soon, and if no transaction is open. A question that
/// was given up may have left either: sqlx 0.9 waits for the server without a limit, and forgets a BEGIN whose answer
/// was not waited for.
pub(super) fn tested(pool: AnyPoolOptions) -> AnyPoolOptions {
    pool.after_release(|connection, _| {
        Box::pin(async move { Ok(within(RELEASE_LIMIT, connection.fetch_optional(IN_TRANSACTION)).await?.is_none()) })
    })
}

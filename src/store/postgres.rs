//! PostgreSQL, which any number of nodes share.

use std::time::Duration;

use sqlx::any::AnyPoolOptions;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgListener;

use super::{Database, Store, StoreError, connect};
use crate::config::Secret;

/// The largest number of connections of a node.
const CONNECTIONS: u32 = 8;

/// The wait for a connection. sqlx connects again and again meanwhile, with growing pauses.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);

/// The time limits of a statement, of a wait for a lock, and of a transaction in which nothing happens, so that a node
/// that is cut off holds no row for long. `synchronous_commit` is on, whatever the server's default is: what is
/// acknowledged is on disk. An idle connection is probed before a firewall or a virtual address forgets it.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
                       SET idle_in_transaction_session_timeout = '30s'; SET synchronous_commit = on; \
                       SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

/// The channel of hints that a function has changed.
pub(super) const CHANNEL: &str = "youtube_serverless";

/// The steps to the current schema.
static MIGRATOR: Migrator = sqlx::migrate!("src/store/migrations/postgres");

impl Store {
    /// Opens the database of `url`, and brings the schema to the current form. Nodes that start at the same time do so
    /// one after the other.
    pub async fn postgres(url: &Secret) -> Result<Self, StoreError> {
        let connected = async {
            let pool = AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(ACQUIRE_LIMIT);
            connect(url.0.parse()?, SESSION, pool).await
        };
        let pool = connected.await.map_err(classify)?;
        let store = Self::new(pool, Database::Postgres(url.clone()));
        store.migrate(&MIGRATOR).await?;
        Ok(store)
    }

    /// Has the other processes look for changes at once.
    pub async fn hint(&self) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let hint = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&self.pool).await;
        hint.map(drop).map_err(classify)
    }

    /// Calls `hint` whenever another process may have changed a function. Returns when the connection fails.
    pub async fn listen(&self, hint: impl Fn()) -> Result<(), StoreError> {
        let Database::Postgres(url) = &self.database else { return std::future::pending().await };
        let heard = async {
            let mut listener = PgListener::connect(&url.0).await?;
            listener.listen(CHANNEL).await?;
            loop {
                listener.recv().await?;
                hint();
            }
        };
        let heard: Result<(), sqlx::Error> = heard.await;
        heard.map_err(classify)
    }
}

/// Classifies by SQLSTATE, <https://www.postgresql.org/docs/15/errcodes-appendix.html>.
pub(super) fn classify(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()).map(std::borrow::Cow::into_owned);
    match (code.as_deref(), &error) {
        // disk_full
        (Some("53100"), _) => StoreError::Full(error),
        // Connections that fail; insufficient resources; the server starts, stops or has crashed; a standby that can't
        // write yet; a time limit of ours.
        (Some("25006" | "57014" | "55P03" | "25P03"), _) => StoreError::Unreachable(error),
        (Some(code), _) if ["08", "53", "57P"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Unreachable(error)
        }
        (None, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_)) => {
            StoreError::Unreachable(error)
        }
        _ => StoreError::Other(error),
    }
}

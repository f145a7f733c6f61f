//! PostgreSQL, which any number of nodes share.

use std::io;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::{AnyPool, ConnectOptions};
use tokio::time;

use super::answer::{tested, within};
use super::migrations::OF_POSTGRES;
use super::{Database, Store, StoreError, begin_with, connect};
use crate::config::Secret;

/// The largest number of connections of a node.
const CONNECTIONS: u32 = 8;

/// The largest number of connections for heartbeats and looks for changes.
const CONTROL_CONNECTIONS: u32 = 2;

/// The wait for a connection. sqlx connects again and again meanwhile, with growing pauses.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(5);

/// The time limit of the first connections, at the start.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// The time limit of the steps to the current schema.
const MIGRATION_LIMIT: Duration = Duration::from_secs(600);

/// The session of these steps. A step over a long history takes longer than any other statement may, and a node waits
/// for the steps of another node.
const STEPS: &str = "SET statement_timeout = 0; SET lock_timeout = 0";

/// The longest time without a hint.
const LISTEN_LIMIT: Duration = Duration::from_secs(60);

/// The time limits of a statement, of a wait for a lock, and of a transaction in which nothing happens, so that a node
/// that is cut off holds no row for long. `synchronous_commit` is on, whatever the server's default is: what is
/// acknowledged is on disk. An idle connection is probed before a firewall or a virtual address forgets it.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
                       SET idle_in_transaction_session_timeout = '5s'; SET synchronous_commit = on; \
                       SET tcp_keepalives_idle = 60; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

/// The channel of hints that a function has changed.
pub(super) const CHANNEL: &str = "youtube_serverless";

impl Store {
    /// Opens the database of `url`, and brings the schema to the current form. Nodes that start at the same time do so
    /// one after the other.
    pub async fn postgres(url: &Secret) -> Result<Self, StoreError> {
        let connected = async {
            let connections = connect(url.0.parse()?, SESSION, options(CONNECTIONS)).await?;
            Ok((connections, pool(url, CONTROL_CONNECTIONS)?))
        };
        let (pool, control) = within(CONNECT_LIMIT, connected).await.map_err(classify)?;
        let store = Self::new(pool, control, Database::Postgres(url.clone()));
        let steps = begin_with(AnyPoolOptions::new().max_connections(1).acquire_timeout(ACQUIRE_LIMIT), STEPS);
        let steps = steps.connect_lazy_with(server(url).map_err(classify)?);
        let migrated = time::timeout(MIGRATION_LIMIT, store.migrate(&OF_POSTGRES, &steps)).await;
        migrated.unwrap_or_else(|_| Err(classify(io::Error::from(io::ErrorKind::TimedOut).into())))?;
        steps.close().await;
        Ok(store)
    }

    /// The host and the port of the database's server, where the service reaches the server over a network.
    pub fn server(&self) -> Option<(String, u16)> {
        let Database::Postgres(url) = &self.database else { return None };
        server_of(url)
    }

    /// Gives up all connections, as after a wait in vain: the server may be gone without a word, and the kernel would
    /// wait for the server for many minutes. sqlx 0.9 asks each connection that comes back to the pool whether the
    /// connection lives, and waits for that answer without a limit.
    pub fn reconnect(&self) {
        let Database::Postgres(url) = &self.database else { return };
        match pool(url, CONNECTIONS).and_then(|connections| Ok((connections, pool(url, CONTROL_CONNECTIONS)?))) {
            Ok((connections, control)) => {
                *self.pool.write() = connections;
                *self.control.write() = control;
            }
            Err(error) => tracing::error!(%error, "failed to connect anew"),
        }
    }

    /// Has the other processes look for changes at once.
    pub async fn hint(&self) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let hint = sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL);
        self.ask(hint.execute(&self.pool())).await.map(drop)
    }

    /// Calls `hint` whenever another process may have changed a function. Returns when the connection fails, or has
    /// brought no hint for a while: a connection that nobody writes to does not tell that the server is gone.
    pub async fn listen(&self, hint: impl Fn()) -> Result<(), StoreError> {
        let Database::Postgres(url) = &self.database else { return std::future::pending().await };
        let heard = async {
            let mut listener = PgListener::connect(&url.0).await?;
            listener.listen(CHANNEL).await?;
            while let Ok(heard) = time::timeout(LISTEN_LIMIT, listener.recv()).await {
                heard?;
                hint();
            }
            Ok(())
        };
        let heard: Result<(), sqlx::Error> = heard.await;
        heard.map_err(classify)
    }
}

fn server_of(url: &Secret) -> Option<(String, u16)> {
    let options: PgConnectOptions = url.0.parse().ok()?;
    let is_file = options.get_socket().is_some() || options.get_host().starts_with('/');
    // A server with a socket in a folder is on this machine, and mostly listens on the port as well.
    let host = if is_file { "127.0.0.1" } else { options.get_host() };
    Some((host.to_owned(), options.get_port()))
}

/// A pool that connects when it is used.
fn pool(url: &Secret, connections: u32) -> Result<AnyPool, sqlx::Error> {
    Ok(begin_with(options(connections), SESSION).connect_lazy_with(server(url)?))
}

fn server(url: &Secret) -> Result<AnyConnectOptions, sqlx::Error> {
    Ok(url.0.parse::<AnyConnectOptions>()?.disable_statement_logging())
}

fn options(connections: u32) -> AnyPoolOptions {
    tested(AnyPoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_LIMIT))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_the_server_as_sqlx_understands_the_url() {
        let server = |url: &str| server_of(&Secret(url.to_owned()));
        let place = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(server("postgres://u:p@db.internal:6543/name"), place("db.internal", 6543));
        assert_eq!(server("postgres://u@db.internal/name?host=other&port=1"), place("other", 1));
        assert_eq!(server("postgres://u@db.internal/name?hostaddr=10.0.0.5"), place("10.0.0.5", 5432));
        assert_eq!(server("postgres://u@[::1]:7/name"), place("[::1]", 7));
        assert_eq!(server("postgres://u@db.internal/name?host=/run/postgresql"), place("127.0.0.1", 5432));
    }
}

//! The accept loop. `axum::serve` has no timeouts of its own, so connections are served here.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::connection;
use super::rate::Client;
use crate::config;

/// Each holds some ten kilobytes.
const MAX_CONNECTIONS: usize = 10_000;
/// As many as are of use.
const DESCRIPTORS: u64 = 32_768;

/// Not all connections were done when the service had to stop.
#[derive(Debug, Error)]
#[error("connections were still busy after {0:?} (SERVER_SHUTDOWN_TIMEOUT) and were cut")]
pub struct ServeError(Duration);

/// Serves until `stop` is cancelled, then lets requests under way end within SERVER_SHUTDOWN_TIMEOUT.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: &config::Http,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let mut connections = JoinSet::new();
    let permits = Arc::new(Semaphore::new(most_connections()));
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match stream {
            Ok((stream, client)) => {
                let service = Extension(Client(client.ip())).layer(router.clone());
                let served = connection::serve(stream, service, config.into(), stop.clone());
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors: others will end.
                tracing::error!(%error, "failed to accept a connection");
                time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    drop(listener);
    let limit = config.shutdown_timeout;
    // Dropping the set cuts what is still there: a request's future is dropped, and ends what it had started.
    let all = async { while connections.join_next().await.is_some() {} };
    time::timeout(limit, all).await.map_err(|_| ServeError(limit))
}

/// How many connections may be open; more wait in the kernel. Each takes a descriptor, and Docker's pipes need some,
/// too. Raises this process's soft limit on descriptors, as what it starts takes few and by their number.
fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let had = limit.current.unwrap_or(DESCRIPTORS);
    let raised = wanted > had && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok();
    let descriptors = if raised { wanted } else { had };
    usize::try_from(descriptors / 2).unwrap_or(MAX_CONNECTIONS).min(MAX_CONNECTIONS)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

//! The accept loop. `axum::serve` has no timeouts of its own, so connections are served here.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
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
use crate::resources::descriptors;

/// The largest number of connections. Each connection takes some ten kilobytes.
const MAX_CONNECTIONS: usize = 10_000;

/// Some connections were open at the end of the grace.
#[derive(Debug, Error)]
#[error("connections were still busy after {0:?} (SERVER_SHUTDOWN_TIMEOUT) and were cut")]
pub struct ServeError(Duration);

/// Serves until the cancellation of `stop`. Then requests under way have SERVER_SHUTDOWN_TIMEOUT to end.
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
                let service = Extension(Client(client)).layer(router.clone());
                let served = connection::serve(stream, service, config.into(), stop.clone());
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                // No descriptor is free until another connection ends.
                tracing::error!(%error, "failed to accept a connection");
                time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    drop(listener);
    let limit = config.shutdown_timeout;
    // The drop of the set cuts all connections: the future of a request is dropped, and ends its invocation.
    let all = async { while connections.join_next().await.is_some() {} };
    time::timeout(limit, all).await.map_err(|_| ServeError(limit))
}

/// The number of connections that may be open; more wait in the kernel. Each connection takes a descriptor, and the
/// docker clients' pipes and the connections of functions take some, too.
fn most_connections() -> usize {
    usize::try_from(descriptors::most() / 2).unwrap_or(MAX_CONNECTIONS).min(MAX_CONNECTIONS)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

//! The accept loop. `axum::serve` has no timeouts of its own, so connections are served here.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::middleware::AddExtension;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::rate::Client;
use crate::config;

/// A connection's head may be as large as this, in bytes.
const MAX_HEAD: usize = 32 << 10;

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
    settings: &config::Http,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let graceful = GracefulShutdown::new();
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
                let connection = graceful.watch(connection(stream, service, settings));
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection ended early");
                    }
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
    let limit = settings.shutdown_timeout;
    // Dropping the set cuts what is still there: a request's future is dropped, and ends what it had started.
    time::timeout(limit, graceful.shutdown()).await.map_err(|_| ServeError(limit))
}

/// How many connections may be open; more wait in the kernel. Each takes a descriptor, and Docker's pipes need some, too.
/// Raises this process's soft limit on descriptors, as what it starts takes few and by their number.
fn most_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(DESCRIPTORS).min(DESCRIPTORS);
    let had = limit.current.unwrap_or(DESCRIPTORS);
    let raised = wanted > had && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok();
    let descriptors = if raised { wanted } else { had };
    usize::try_from(descriptors / 2).unwrap_or(MAX_CONNECTIONS).min(MAX_CONNECTIONS)
}

type Connection = http1::Connection<TokioIo<Pin<Box<TimeoutStream<TcpStream>>>>, TowerToHyperService<Service>>;
type Service = AddExtension<Router, Client>;

fn connection(stream: TcpStream, service: Service, settings: &config::Http) -> Connection {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(settings.write_timeout));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.read_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(service))
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

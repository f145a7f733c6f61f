//! The accept loop. `axum::serve` has no timeouts of its own, so connections are served here.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use crate::config;

/// A connection's head may be as large as this, in bytes.
const MAX_HEAD: usize = 32 << 10;

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
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        match stream {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), settings);
                let connection = graceful.watch(connection);
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection ended early");
                    }
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

type Connection = http1::Connection<TokioIo<Pin<Box<TimeoutStream<TcpStream>>>>, TowerToHyperService<Router>>;

fn connection(stream: TcpStream, router: Router, settings: &config::Http) -> Connection {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(settings.write_timeout));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.read_timeout)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router))
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

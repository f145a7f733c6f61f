//! One connection, from its first byte to its last.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::middleware::AddExtension;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::MAX_HEAD;
use super::exchange::{Attended, Exchange, MAX_DRAINED};
use super::problem::Problem;
use super::rate::Client;
use super::stream::Stream;
use crate::config;

/// The time for which the service still reads from a connection that the service closes.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The buffer for bytes that are thrown away, in bytes.
const BUFFER: usize = 16 << 10;

/// The time limits of connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    read: Duration,
    write: Duration,
}

impl From<&config::Http> for Limits {
    fn from(config: &config::Http) -> Self {
        Self { read: config.read_timeout, write: config.write_timeout }
    }
}

/// The end of hyper's part of a connection.
enum End {
    Done(hyper::Result<()>),
    /// The client was silent for too long.
    Silence,
}

/// Serves a client until the client leaves or is silent for too long, or the service stops.
pub(super) async fn serve(
    stream: TcpStream,
    service: AddExtension<Router, Client>,
    limits: Limits,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "failed to set TCP_NODELAY");
    }
    let exchange = Exchange::new(limits.read);
    let stream = Stream::new(stream, limits.write, exchange.clone());
    let attended = Attended { service, exchange: exchange.clone() };
    let mut connection = http1::Builder::new()
        // The exchange has the time limits: a connection may be idle for longer than a head may take.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), attended);
    let end = {
        let (mut stopping, mut timer) = (pin!(stop.cancelled()), pin!(sleep_until(Instant::now() + limits.read)));
        let mut is_stopping = false;
        poll_fn(|cx| {
            if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
                is_stopping = true;
                exchange.hurry(LAST_WORDS);
                Pin::new(&mut connection).graceful_shutdown();
            }
            if let Poll::Ready(result) = connection.poll_without_shutdown(cx) {
                return Poll::Ready(End::Done(result));
            }
            let Some(deadline) = exchange.poll(cx) else { return Poll::Pending };
            // A timer that fires too early is set again, so that not each request sets the timer.
            while timer.deadline() > deadline || timer.as_mut().poll(cx).is_ready() {
                if deadline <= Instant::now() {
                    return Poll::Ready(End::Silence);
                }
                timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    };
    let is_open = exchange.is_open();
    // Drops the handler that may be at work, and all of hyper's buffers.
    let mut stream = connection.into_parts().io.into_inner();
    let problem = match &end {
        _ if is_open || stream.has_refused() => None,
        End::Silence => exchange.has_begun().then(Problem::request_timeout),
        End::Done(Ok(())) => None,
        End::Done(Err(error)) if error.is_parse() || (error.is_incomplete_message() && exchange.has_begun()) => {
            Some(Problem::unreadable(axum::http::StatusCode::BAD_REQUEST))
        }
        End::Done(Err(_)) => None,
    };
    if let End::Done(Err(error)) = &end {
        tracing::debug!(%error, "a connection ended early");
    }
    let is_refused = match problem {
        Some(problem) => stream.refuse(&problem).await.is_ok(),
        None => stream.has_refused(),
    };
    if is_refused || (exchange.is_unread() && matches!(end, End::Done(Ok(())))) {
        // A silent client, and a client that sent more than the service reads, has had its time.
        let has_had_time = matches!(end, End::Silence) || exchange.has_given_up();
        let limit = if has_had_time { LAST_WORDS } else { limits.read };
        linger(stream, limit, &stop).await;
    }
}

/// Closes the service's side, and reads the bytes that still arrive. The kernel resets a connection that is closed with
/// unread bytes, and a client that is still writing would see the reset instead of the answer.
async fn linger(mut stream: Stream, limit: Duration, stop: &CancellationToken) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let drained = async {
        let (mut buffer, mut left) = (vec![0; BUFFER], MAX_DRAINED);
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            left = left.saturating_sub(read as u64);
            if left == 0 {
                break;
            }
        }
    };
    tokio::select! {
        () = drained => {}
        () = sleep(limit) => {}
        () = async {
            stop.cancelled().await;
            sleep(LAST_WORDS).await;
        } => {}
    }
}

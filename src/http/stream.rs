//! A connection's bytes on their way from and to hyper.
//!
//! Hyper answers a request that its parser refuses by itself, with a status and an empty body, and has no hook for
//! that. Hyper does so only while no request is open. So bytes that hyper writes then are a refusal, and a problem goes
//! out in their place.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use uuid::Uuid;

use super::exchange::Exchange;
use super::problem::Problem;
use crate::telemetry::metrics;

/// The method of a request without a method, in log and metrics.
const NO_METHOD: &str = "(none)";
const NO_ROUTE: &str = "(unreadable)";

/// A client's connection.
#[derive(Debug)]
pub(super) struct Stream {
    inner: Pin<Box<TimeoutStream<TcpStream>>>,
    exchange: Exchange,
    /// The rest of the problem that goes out in place of hyper's refusal.
    refusal: Option<Bytes>,
}

impl Stream {
    /// The client may stall for `limit` while it takes a response.
    pub(super) fn new(stream: TcpStream, limit: Duration, exchange: Exchange) -> Self {
        let mut inner = TimeoutStream::new(stream);
        inner.set_write_timeout(Some(limit));
        Self { inner: Box::pin(inner), exchange, refusal: None }
    }

    /// Whether a request was refused on this connection.
    pub(super) fn has_refused(&self) -> bool {
        self.refusal.is_some()
    }

    /// Answers a request that hyper has left without an answer.
    pub(super) async fn refuse(&mut self, problem: &Problem) -> io::Result<()> {
        let status = problem.status();
        let head = format!("HTTP/1.1 {} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
        let refusal = response(&head, problem);
        self.refusal = Some(Bytes::new());
        self.inner.write_all(&refusal).await
    }

    /// Writes a problem with the status of hyper's `head`, and counts `length` bytes of hyper as written.
    fn poll_refuse(&mut self, cx: &mut Context<'_>, head: &[u8], length: usize) -> Poll<io::Result<usize>> {
        let refusal = self.refusal.get_or_insert_with(|| refusal(&String::from_utf8_lossy(head)));
        while refusal.has_remaining() {
            match ready!(self.inner.as_mut().poll_write(cx, refusal))? {
                0 => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                written => refusal.advance(written),
            }
        }
        Poll::Ready(Ok(length))
    }
}

/// Hyper's response with a body.
fn refusal(head: &str) -> Bytes {
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(StatusCode::BAD_REQUEST);
    let replaced = ["content-length:", "connection:"];
    let lines = head.trim_end().split("\r\n").filter(|line| !replaced.iter().any(|name| line.starts_with(name)));
    response(&lines.collect::<Vec<_>>().join("\r\n"), &Problem::unreadable(status))
}

/// A whole response. Also writes the log line and counts the response.
fn response(head: &str, problem: &Problem) -> Bytes {
    let id = Uuid::new_v4().to_string();
    let status = problem.status().as_u16();
    metrics::request(NO_METHOD, NO_ROUTE, status);
    tracing::info!(http.route = NO_ROUTE, http.status = status, request.id = id, "request refused: it can't be read");
    let body = problem.to_json(&id);
    let length = body.len();
    let fields = format!(
        "content-type: application/problem+json\r\nx-request-id: {id}\r\ncontent-length: {length}\r\nconnection: close"
    );
    format!("{head}\r\n{fields}\r\n\r\n{body}").into()
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(self.inner.as_mut().poll_read(cx, buffer))?;
        self.exchange.came(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.exchange.is_open() {
            self.inner.as_mut().poll_write(cx, bytes)
        } else {
            self.poll_refuse(cx, bytes, bytes.len())
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.exchange.is_open() {
            return self.inner.as_mut().poll_write_vectored(cx, parts);
        }
        let head = parts.first().map_or(&[][..], |part| part);
        self.poll_refuse(cx, head, parts.iter().map(|part| part.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.inner.as_mut().poll_flush(cx))?;
        self.exchange.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_hypers_becomes_a_problem() {
        let said = refusal(
            "HTTP/1.0 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: \
             now\r\n\r\n",
        );
        let said = std::str::from_utf8(&said).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("HTTP/1.0 431 Request Header Fields Too Large\r\ndate: now\r\ncontent-type: app"),
            "{head}"
        );
        assert!(head.ends_with(&format!("content-length: {}\r\nconnection: close", body.len())), "{head}");
        let problem: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&problem["status"], &problem["code"]), (&431.into(), &"too_large".into()));
        assert!(head.contains(&format!("x-request-id: {}", problem["requestId"].as_str().unwrap())), "{said}");
    }
}

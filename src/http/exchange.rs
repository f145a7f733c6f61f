//! What a connection is at: whether a request is open, how long the client may be silent, and what of a body nobody
//! reads.
//!
//! A request is open from the call of its handler until the last byte of its response has left. Three sides tell: the
//! service that hyper calls, the two bodies, and the connection's own stream. The connection's task reads it after each
//! step of hyper's.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tower::{Service, ServiceExt};

/// Of a refused request's body, as much is read and thrown away, in bytes.
pub(super) const MAX_DRAINED: u64 = 64 << 20;
/// A connection without a request is closed after this. Above the 60 s that proxies keep theirs.
const MAX_IDLE: Duration = Duration::from_secs(75);

/// Shared by all sides of one connection.
#[derive(Clone, Debug)]
pub(super) struct Exchange(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// SERVER_READ_TIMEOUT.
    limit: Duration,
    /// A handler was called, and its response has not left.
    is_open: bool,
    /// The response is in hyper's hands: with the next flush it has left.
    is_answered: bool,
    /// The response says that the connection is closed after it.
    is_closing: bool,
    /// There was a request before.
    has_served: bool,
    /// A part of the next request's head is here.
    has_begun: bool,
    /// By which a head must be here. None while a request is open.
    deadline: Option<Instant>,
    leftover: Option<Leftover>,
    /// Of a body not all was read.
    is_unread: bool,
    /// That was more than is read, or came too slowly.
    has_given_up: bool,
    /// Of the connection's task.
    waker: Option<Waker>,
}

/// A body that nobody reads any more.
#[derive(Debug)]
struct Leftover {
    body: Incoming,
    drained: u64,
    deadline: Instant,
}

impl Exchange {
    /// Of a connection that was just accepted.
    pub(super) fn new(limit: Duration) -> Self {
        let state = State {
            limit,
            is_open: false,
            is_answered: false,
            is_closing: false,
            has_served: false,
            has_begun: false,
            deadline: Some(Instant::now() + limit),
            leftover: None,
            is_unread: false,
            has_given_up: false,
            waker: None,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// Whether what hyper writes now belongs to a request's response.
    pub(super) fn is_open(&self) -> bool {
        self.state().is_open
    }

    /// Whether the client has sent a part of a head and not all of it.
    pub(super) fn has_begun(&self) -> bool {
        self.state().has_begun
    }

    /// Has a body that nobody reads end within `limit`.
    pub(super) fn hurry(&self, limit: Duration) {
        let mut state = self.state();
        state.limit = state.limit.min(limit);
        if let Some(leftover) = &mut state.leftover {
            leftover.deadline = leftover.deadline.min(Instant::now() + limit);
        }
    }

    /// Whether there may be bytes that nobody has read.
    pub(super) fn is_unread(&self) -> bool {
        self.state().is_unread
    }

    /// Whether a body was left in the middle: no more is read then.
    pub(super) fn has_given_up(&self) -> bool {
        self.state().has_given_up
    }

    /// Notes what came. With the first bytes of a head the time for that head begins; the first request has its time
    /// already. Empty lines before a head are no part of the head (RFC 9112, 2.2).
    pub(super) fn came(&self, bytes: &[u8]) {
        let mut state = self.state();
        let is_of_head = bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
        if is_of_head && !state.is_open && state.leftover.is_none() && !state.has_begun {
            state.has_begun = true;
            if state.has_served {
                state.deadline = Some(Instant::now() + state.limit);
            }
        }
    }

    /// Notes that all that hyper had to write has left.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.is_open && state.is_answered {
            state.is_open = false;
            state.rest();
        }
    }

    /// Reads on in a body that nobody reads, and says by when something must have come. None while a handler is at
    /// work.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Option<Instant> {
        let mut state = self.state();
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        let Some(mut leftover) = state.leftover.take() else { return state.deadline };
        drop(state);
        // Not under the lock: hyper wakes by it.
        let is_read = leftover.poll(cx).is_ready();
        let deadline = leftover.deadline;
        let mut state = self.state();
        if !is_read && deadline > Instant::now() {
            state.leftover = Some(leftover);
            return Some(deadline);
        }
        state.has_given_up |= !is_read || leftover.drained > MAX_DRAINED;
        state.is_unread |= state.has_given_up;
        state.rest();
        state.deadline
    }

    fn begin(&self) {
        let mut state = self.state();
        (state.is_open, state.has_served) = (true, true);
        (state.is_answered, state.is_closing, state.has_begun) = (false, false, false);
        state.deadline = None;
    }

    /// Notes that a handler has answered, and returns whether the connection is closed after that: then nothing more is
    /// read here.
    fn answer(&self, is_closing: bool) -> bool {
        let mut state = self.state();
        let is_long = state.leftover.as_ref().is_some_and(|leftover| leftover.body.size_hint().lower() > MAX_DRAINED);
        state.is_closing |= is_closing || is_long;
        let dropped = if state.is_closing { state.leftover.take() } else { None };
        state.is_unread |= dropped.is_some();
        let is_closing = state.is_closing;
        drop(state);
        drop(dropped);
        is_closing
    }

    /// Takes a body that its handler has left.
    fn leave(&self, body: Incoming, was_asked_for: bool) {
        let mut state = self.state();
        // A client that waits for 100 has sent nothing yet, and may not do so once it has its answer.
        state.is_closing |= !was_asked_for;
        if state.is_closing {
            state.is_unread = true;
            drop(state);
            return drop(body);
        }
        let deadline = Instant::now() + state.limit;
        state.leftover = Some(Leftover { body, drained: 0, deadline });
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl State {
    /// Begins the time until the next request, once there is nothing more of the last.
    fn rest(&mut self) {
        if !self.is_open && self.leftover.is_none() {
            self.deadline = Some(Instant::now() + MAX_IDLE);
        }
    }
}

impl Leftover {
    /// Ready at its end, or when it is more than is read.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.drained <= MAX_DRAINED {
            match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => self.drained += frame.data_ref().map_or(0, |data| data.len() as u64),
                Some(Err(_)) | None => break,
            }
        }
        Poll::Ready(())
    }
}

/// What hyper calls for each request.
#[derive(Clone, Debug)]
pub(super) struct Attended<S> {
    pub(super) service: S,
    pub(super) exchange: Exchange,
}

impl<S> hyper::service::Service<Request<Incoming>> for Attended<S>
where
    S: Service<Request<Received>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let exchange = self.exchange.clone();
        exchange.begin();
        let is_last = request.version() < Version::HTTP_11 || says_close(request.headers());
        let waits = request.headers().contains_key(EXPECT);
        let received = |body| Received { body: Some(body), was_asked_for: !waits, exchange: exchange.clone() };
        let answered = self.service.clone().oneshot(request.map(received));
        Box::pin(async move {
            let mut response = answered.await?;
            if exchange.answer(is_last || says_close(response.headers())) && !is_last {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| Answer { body, exchange }))
        })
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("close"))
}

/// A request's body. What its handler leaves of it goes to the connection.
#[derive(Debug)]
pub(super) struct Received {
    /// None once all of it is here.
    body: Option<Incoming>,
    was_asked_for: bool,
    exchange: Exchange,
}

impl http_body::Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.was_asked_for = true;
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            self.exchange.leave(body, self.was_asked_for);
        }
    }
}

/// A response's body. Once hyper drops it, hyper has all of it.
#[derive(Debug)]
pub(super) struct Answer {
    body: Body,
    exchange: Exchange,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.exchange.state().is_answered = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lines_between_requests_begin_no_head() {
        let exchange = Exchange::new(Duration::from_secs(1));
        exchange.begin();
        exchange.state().is_answered = true;
        exchange.flushed();
        for (bytes, has_begun) in [("\r\n", false), ("\n", false), ("", false), ("\r\nG", true), ("\r\n", true)] {
            exchange.came(bytes.as_bytes());
            assert_eq!(exchange.has_begun(), has_begun, "{bytes:?}");
        }
    }
}

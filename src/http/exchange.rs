//! The state of a connection: whether a request is open, how long the client may be silent, and the rest of an unread
//! body.
//!
//! A request is open from the call of its handler until the last byte of its response has left. Three sides write the
//! state: the service that hyper calls, the two bodies, and the connection's own stream. The connection's task reads
//! the state after each step of hyper.

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

/// The part of a refused request's body that the service reads and throws away, in bytes.
pub(super) const MAX_DRAINED: u64 = 64 << 20;
/// The time limit of a connection without a request, above the 60 s for which proxies keep connections.
const MAX_IDLE: Duration = Duration::from_secs(75);

/// The state, which all sides of one connection share.
#[derive(Clone, Debug)]
pub(super) struct Exchange(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// SERVER_READ_TIMEOUT.
    limit: Duration,
    /// Whether a request is open: a handler was called, and the response has not left.
    is_open: bool,
    /// Whether hyper has the whole response, which leaves with the next flush.
    is_answered: bool,
    /// Whether the connection is closed after the response.
    is_closing: bool,
    /// Whether the connection has had a request.
    has_served: bool,
    /// Whether a part of the next request's head has arrived.
    has_begun: bool,
    /// The deadline of a whole head. None while a request is open.
    deadline: Option<Instant>,
    leftover: Option<Leftover>,
    /// Whether a body was left unread.
    is_unread: bool,
    /// Whether an unread body was too long or too slow.
    has_given_up: bool,
    /// Wakes the connection's task.
    waker: Option<Waker>,
}

/// A body without a reader.
#[derive(Debug)]
struct Leftover {
    body: Incoming,
    drained: u64,
    deadline: Instant,
}

impl Exchange {
    /// The state of a new connection.
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

    /// Whether hyper's bytes belong to a request's response.
    pub(super) fn is_open(&self) -> bool {
        self.state().is_open
    }

    /// Whether the client has sent a part of a head and not all of it.
    pub(super) fn has_begun(&self) -> bool {
        self.state().has_begun
    }

    /// Begins the time limit of an unread body.
    pub(super) fn hurry(&self, limit: Duration) {
        let mut state = self.state();
        state.limit = state.limit.min(limit);
        if let Some(leftover) = &mut state.leftover {
            leftover.deadline = leftover.deadline.min(Instant::now() + limit);
        }
    }

    /// Whether the connection may have unread bytes.
    pub(super) fn is_unread(&self) -> bool {
        self.state().is_unread
    }

    /// Whether the service gave up an unread body, and reads no more.
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

    /// Notes that all of hyper's bytes have left.
    pub(super) fn flushed(&self) {
        let mut state = self.state();
        if state.is_open && state.is_answered {
            state.is_open = false;
            state.rest();
        }
    }

    /// Reads on in an unread body, and returns the deadline for the client's next bytes. None while a handler works.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Option<Instant> {
        let mut state = self.state();
        if state.waker.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        let Some(mut leftover) = state.leftover.take() else { return state.deadline };
        drop(state);
        // Without the lock, as this wakes hyper.
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

    /// Notes a handler's answer. Returns whether the connection is closed after the answer, so that no more is read
    /// here.
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
        // A client that waits for the status 100 has sent no body, and need not send a body after the answer.
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
    /// Begins the time limit until the next request, at the end of the last request's body.
    fn rest(&mut self) {
        if !self.is_open && self.leftover.is_none() {
            self.deadline = Some(Instant::now() + MAX_IDLE);
        }
    }
}

impl Leftover {
    /// Ready at the body's end, or when the body is too long.
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

/// A request's body. The connection gets the rest that the handler leaves.
#[derive(Debug)]
pub(super) struct Received {
    /// None once the whole body has arrived.
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

/// A response's body. Hyper has the whole body when hyper drops this.
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

//! The layers of every request: its id and log line, its token, its deadline.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State as Extract};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::time::{Instant, Sleep};
use tracing::Instrument;
use uuid::Uuid;

use super::State;
use super::problem::{self, Problem};
use super::routes::console::is_console;
use crate::domain::Scope;
use crate::resources::budget::{Budget, BudgetShare};
use crate::telemetry::{self, metrics};
use crate::tokens::Access;

const REQUEST_ID: &str = "x-request-id";
const MAX_ID: usize = 128;

/// The request's id.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

/// Gives the request its id, and the answer its form and its line in the log.
pub(super) async fn with_id(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = sent_id(request.headers()).unwrap_or_else(|| Uuid::new_v4().to_string());
    request.extensions_mut().insert(RequestId(id.clone()));
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map_or("(unknown)", MatchedPath::as_str).to_owned();
    let is_probe = is_probe(&request);
    let empty = tracing::field::Empty;
    let traced = telemetry::request(method.as_str(), &path, request.headers());
    let span =
        tracing::info_span!("request", request.id = id, token.name = empty, function.id = empty, invocation.id = empty);
    async {
        let mut response = problem::finish(next.run(request).await, &id);
        let status = response.status().as_u16();
        let duration_ms = started.elapsed().as_secs_f64() * 1e3;
        metrics::request(method.as_str(), &path, status);
        telemetry::answered(&traced, status, &id);
        if is_probe {
            tracing::debug!(http.method = %method, http.route = path, http.status = status, duration_ms,
                "request answered");
        } else {
            tracing::info!(http.method = %method, http.route = path, http.status = status, duration_ms,
                "request answered");
        }
        let value = HeaderValue::from_str(&id).expect("an id is visible ASCII");
        response.headers_mut().insert(REQUEST_ID, value);
        response
    }
    .instrument(span)
    .instrument(traced.clone())
    .await
}

/// The client's own id for the request, where the id can stand in a log.
fn sent_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let valid =
        (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&b));
    valid.then(|| id.to_owned())
}

/// The mark of a request that came with CLUSTER_TOKEN. The request is never handed on to a further node.
#[derive(Clone, Copy, Debug)]
pub(super) struct FromNode;

/// The routes on which a node asks another, by GET.
const OF_NODES: [&str; 2] = ["/api/invocations/{id}", "/api/invocations/{id}/events"];

/// Marks the requests of other nodes.
pub(super) async fn with_sender(Extract(state): Extract<State>, mut request: Request, next: Next) -> Response {
    if state.peers.token().is_some_and(|token| bears(request.headers(), &token.0)) {
        request.extensions_mut().insert(FromNode);
    }
    next.run(request).await
}

/// Whether the request is one that nodes send to each other.
pub(super) fn is_of_node(request: &Request) -> bool {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    request.extensions().get::<FromNode>().is_some() && request.method() == Method::GET && OF_NODES.contains(&path)
}

/// Refuses a request without a token, where API_TOKEN is set, and notes what other requests may do. Health probes need
/// no token. The requests of other nodes have a token of their own.
pub(super) async fn with_token(Extract(state): Extract<State>, mut request: Request, next: Next) -> Response {
    if is_probe(&request) || is_console(request.uri()) {
        return next.run(request).await;
    }
    let access = if is_of_node(&request) { Ok(Access::all()) } else { state.access(request.headers()) };
    match access {
        Ok(access) => {
            if let Some(token) = access.token() {
                tracing::Span::current().record("token.name", tracing::field::display(&token.name));
            }
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        Err(refusal) => Problem::from(refusal).into_response(),
    }
}

/// Whether a request may see what concerns the service as a whole.
pub(super) fn is_authorized(state: &State, headers: &HeaderMap) -> bool {
    let may_see = |access: Access| access.check_scope(Scope::Read).is_ok() && access.check_unlimited().is_ok();
    state.access(headers).is_ok_and(may_see)
}

/// The bearer token that a request shows.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Health probes get an answer without a token, as the answer tells little and changes nothing.
pub(super) fn is_probe(request: &Request) -> bool {
    matches!(request.uri().path(), "/health" | "/health/live")
}

fn bears(headers: &HeaderMap, token: &str) -> bool {
    bearer(headers).is_some_and(|sent| bool::from(sent.as_bytes().ct_eq(token.as_bytes())))
}

/// The body did not arrive in time.
#[derive(Debug, Error)]
#[error("the request's body did not arrive in time")]
pub(super) struct BodyTimeout;

/// Gives the request's body until SERVER_READ_TIMEOUT to arrive whole.
pub(super) async fn with_deadline(Extract(arrivals): Extract<BodyBudget>, request: Request, next: Next) -> Response {
    let sleep = Box::pin(tokio::time::sleep(arrivals.limit));
    let share = arrivals.budget.share();
    next.run(request.map(|body| Body::new(ArrivingBody { body, sleep, share }))).await
}

/// The limits on the arrival of bodies.
#[derive(Clone, Debug)]
pub(super) struct BodyBudget {
    /// The time limit of each body.
    limit: Duration,
    /// The memory for bodies. A client that stalls holds the arrived part of its body.
    budget: Arc<Budget>,
}

impl BodyBudget {
    pub(super) fn new(state: &State) -> Self {
        Self { limit: state.config.read_timeout, budget: Arc::clone(&state.budget) }
    }
}

struct ArrivingBody {
    body: Body,
    sleep: Pin<Box<Sleep>>,
    share: BudgetShare,
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                Poll::Ready(Some(self.share.take(size).map(|()| frame).map_err(Into::into)))
            }
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => self.sleep.as_mut().poll(cx).map(|()| Some(Err(BodyTimeout.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    #[test]
    fn a_valid_id_is_kept() {
        assert_eq!(sent_id(&headers(REQUEST_ID, "ci-run_7.1")), Some("ci-run_7.1".to_owned()));
        for bad in ["", "with space", "<script>", "é", &"x".repeat(129)] {
            assert_eq!(sent_id(&headers(REQUEST_ID, bad)), None, "{bad}");
        }
    }

    #[test]
    fn only_the_right_token_is_let_in() {
        assert!(bears(&headers("authorization", "Bearer secret"), "secret"));
        assert!(bears(&headers("authorization", "bearer secret"), "secret"));
        for bad in ["secret", "Basic secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Bearer SECRET"] {
            assert!(!bears(&headers("authorization", bad), "secret"), "{bad}");
        }
        assert!(!bears(&HeaderMap::new(), "secret"));
    }
}

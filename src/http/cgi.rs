//! Functions that answer HTTP requests of their own, by CGI/1.1 (RFC 3875), on a listener of their own: what a function
//! sends never shares an origin with the console or the API.
//!
//! A request becomes the environment and the stdin of an invocation, and its stdout the response, as the function
//! writes. The body comes first: an instance is leased for a whole request only.

mod answer;
mod body;
mod head;
mod peer;
mod place;
mod variables;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State as Extract};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::any;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;

use super::problem::{self, Problem};
use super::{State, rate, request};
use crate::config::{self, HttpMode};
use crate::domain::{InvocationRecord, Trigger, UnknownFunction, UnknownName};
use crate::functions::Function;
use crate::invocations::input::Input;
use crate::resources::budget::Budget;
use crate::resources::clock;
use crate::resources::disk::DiskSpace;
use peer::Peer;
use place::Place;

/// The most bytes of bodies that wait on disk, over all requests.
const MAX_SPOOLED: u64 = 1 << 30;

/// What the listener for functions works with.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// The parts that the API has, too.
    pub state: State,
    /// The operator's configuration of this listener.
    pub config: Arc<config::HttpFunctions>,
    /// The room for bodies on disk.
    pub room: Arc<DiskSpace>,
    /// Has the tasks of invocations.
    pub tasks: TaskTracker,
}

/// All routes of the listener for functions.
pub fn router(gateway: Gateway) -> Router {
    let limiter = rate::Limiter::new(gateway.state.config.rate_limit);
    let spooled = Budget::new(MAX_SPOOLED);
    Router::new()
        .route("/f/{*path}", any(serve))
        // With FUNCTIONS_DOMAIN a host is a function, whatever the path.
        .fallback(serve)
        .layer(Extension(spooled))
        .layer(from_fn_with_state(limiter, rate::with_rate))
        // The rate is that of the client, not that of a proxy.
        .layer(from_fn_with_state(Arc::clone(&gateway.config), peer::with_peer))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(from_fn(request::with_id))
        .with_state(gateway)
}

/// Runs a function for a request.
async fn serve(
    Extract(gateway): Extract<Gateway>,
    Extension(peer): Extension<Peer>,
    Extension(spooled): Extension<Arc<Budget>>,
    request: Request,
) -> Result<Response, Problem> {
    let state = &gateway.state;
    state.nodes.check()?;
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let place = Place::of(request.uri().path(), host, gateway.config.domain.as_deref())?;
    let function = function(&gateway, &place)?;
    let mode = function.settings.http.min(gateway.config.limit());
    match mode {
        HttpMode::Off => return Err(unknown(&place)),
        HttpMode::Token if state.config.api_token.is_none() => return Err(Problem::no_tokens()),
        HttpMode::Token => drop(state.may_invoke(request.headers(), function.id)?),
        HttpMode::Public => {}
    }
    // A token of the platform is no function's to see.
    let shows_token = request.headers().get_all(AUTHORIZATION).iter().any(|value| state.is_own_token(value));
    let sees_authorization = mode == HttpMode::Public && !shows_token;
    let span = tracing::Span::current();
    span.record("function.id", tracing::field::display(function.id));
    let created_at = clock::unix_millis();
    let (parts, body) = request.into_parts();
    let received = body::receive(&gateway, &spooled, body).await?;
    let mut environment = variables::of(&parts, &peer, &place, received.stdin.size(), sees_authorization);
    // A field that a client sends replaces no variable of the function.
    environment.retain(|(name, _)| !name.starts_with("HTTP_") || !function.settings.environment.contains_key(name));
    let input = Input::of_request(environment, received.stdin);
    let ready = state.invoker.prepare(function.id, None, false).await?;
    let record = InvocationRecord::queued(function.id, created_at, axum::body::Bytes::new());
    let record = InvocationRecord { trigger: Trigger::Http, ..record };
    span.record("invocation.id", tracing::field::display(record.id));
    let invocation = answer::begin(&gateway, ready, record, input, received.share);
    answer::answer(invocation, &parts.method).await.map(|response| response.map(Body::new))
}

fn function(gateway: &Gateway, place: &Place) -> Result<Arc<Function>, Problem> {
    let registry = &gateway.state.registry;
    let found = match place.name.parse() {
        Ok(id) => registry.get(id),
        Err(_) => registry.by_http_name(&place.name, place.is_host),
    };
    found.ok_or_else(|| unknown(place))
}

/// A function that answers nobody over HTTP is as unknown as a function that is not there.
fn unknown(place: &Place) -> Problem {
    match place.name.parse() {
        Ok(id) => UnknownFunction(id).into(),
        Err(_) => UnknownName(place.name.clone()).into(),
    }
}

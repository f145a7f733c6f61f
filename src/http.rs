//! The HTTP API. The only tree that names axum; handlers extract, call one use case and convert.

mod execute;
mod functions;
mod health;
mod problem;
mod request;
mod server;
mod site;
mod upload;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

pub use server::{ServeError, serve};

use crate::config;
use crate::deploy::Deployer;
use crate::health::Health;
use crate::invoke::Invoker;
use crate::platform::Platform;
use crate::registry::Registry;

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct State {
    /// Executes.
    pub invoker: Arc<Invoker>,
    /// Submits and deletes.
    pub deployer: Arc<Deployer>,
    /// Lists.
    pub registry: Arc<Registry>,
    /// Knows whether Docker answers.
    pub health: Health,
    /// Has the folder for uploads.
    pub platform: Arc<Platform>,
    /// Limits of requests.
    pub settings: Arc<config::Http>,
}

/// Largest body of an execution, in bytes.
const MAX_EXECUTE_BODY: usize = 1 << 20;
/// What a multipart body may have beside the zip itself.
const MULTIPART_OVERHEAD: u64 = 64 << 10;

/// All routes.
pub fn router(state: State) -> Router {
    let max_upload = usize::try_from(state.settings.max_file_size + MULTIPART_OVERHEAD).unwrap_or(usize::MAX);
    let routes = Router::new()
        .route("/api/submit", post(functions::submit).layer(DefaultBodyLimit::max(max_upload)))
        .route("/api/execute", get(execute::by_query).post(execute::by_body).layer(DefaultBodyLimit::max(MAX_EXECUTE_BODY)))
        .route("/api/functions", get(functions::list))
        .route("/api/functions/{id}", get(functions::show).delete(functions::delete))
        .route("/health", get(health::ready))
        .route("/health/live", get(health::live))
        .fallback(problem::unknown_route);
    // From the innermost to the outermost.
    routes
        // A client that never ends its request must not hold a handler for ever.
        .layer(from_fn_with_state(state.clone(), request::with_deadline))
        .layer(from_fn_with_state(state.clone(), site::with_own_site))
        // Before anything of the request is read.
        .layer(from_fn_with_state(state.clone(), request::with_token))
        // A bug in a handler is an answer like any other.
        .layer(CatchPanicLayer::custom(problem::panicked))
        // Sees every answer: gives it its id and its log line, and errors their form.
        .layer(from_fn(request::with_id))
        .with_state(state)
}

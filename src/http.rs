//! The HTTP API. The only tree that names axum; handlers extract, call one use case and convert.

mod body;
mod connection;
mod cross_site;
mod exchange;
mod idempotency;
mod openapi;
mod problem;
mod rate;
mod request;
mod routes;
mod server;
mod sse;
mod stream;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use axum::{Extension, Router};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::ComponentsBuilder;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use routes::{console, deployments, executions, follow, functions, health, invocations, metrics, settings, versions};

pub use server::{ServeError, serve};

use crate::config;
use crate::deployments::Deployer;
use crate::docker::health::Health;
use crate::functions::Registry;
use crate::invocations::history::History;
use crate::invocations::invoke::Invoker;
use crate::invocations::live::RunningInvocations;
use crate::invocations::queue::InvocationQueue;
use crate::resources::budget::Budget;
use crate::resources::scratch::Scratch;
use crate::sandbox::isolation::Isolation;
use crate::sandbox::pool::Pool;

/// What handlers work with.
#[derive(Clone, Debug)]
pub struct State {
    /// Executes.
    pub invoker: Arc<Invoker>,
    /// Executes what nobody waits for.
    pub deferred: Arc<InvocationQueue>,
    /// Knows what invocations came to.
    pub history: Arc<History>,
    /// Shows invocations that run.
    pub live: Arc<RunningInvocations>,
    /// Submits, changes and deletes.
    pub deployer: Arc<Deployer>,
    /// Lists.
    pub registry: Arc<Registry>,
    /// Knows how many instances there are.
    pub pool: Pool,
    /// Knows whether Docker answers.
    pub health: Health,
    /// Knows what Docker does not give.
    pub isolation: Arc<Isolation>,
    /// Has the files of uploads.
    pub scratch: Scratch,
    /// What requests may hold in memory.
    pub budget: Arc<Budget>,
    /// Limits of requests.
    pub config: Arc<config::Http>,
    /// Cancelled when nothing is begun any more.
    pub stop: CancellationToken,
}

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Largest body of an execution, in bytes.
const MAX_EXECUTE_BODY: usize = 1 << 20;
/// What a multipart body may have beside the zip itself.
const MULTIPART_OVERHEAD: u64 = 1 << 20;

/// All routes.
pub fn router(state: State) -> Router {
    let max_upload = usize::try_from(state.config.max_file_size + MULTIPART_OVERHEAD).unwrap_or(usize::MAX);
    let limiter = rate::Limiter::new(state.config.rate_limit);
    // An execution's answer, which the routes' own collection does not see.
    let components = ComponentsBuilder::new().schema_from::<executions::ExecutionBody>();
    let (routes, document) = OpenApiRouter::with_openapi(openapi::head(components))
        .routes(routes!(deployments::submit).layer(DefaultBodyLimit::max(max_upload)))
        .routes(
            routes!(executions::by_query, executions::by_body)
                .layer(DefaultBodyLimit::max(MAX_EXECUTE_BODY))
                .layer(from_fn(executions::without_head)),
        )
        .routes(routes!(executions::by_name).layer(DefaultBodyLimit::max(MAX_EXECUTE_BODY)))
        .routes(routes!(functions::list))
        .routes(routes!(functions::show, functions::delete))
        .routes(routes!(deployments::update).layer(DefaultBodyLimit::max(max_upload)))
        .routes(routes!(settings::configure).layer(DefaultBodyLimit::max(MAX_EXECUTE_BODY)))
        .routes(routes!(settings::settings))
        .routes(routes!(versions::list))
        .routes(routes!(deployments::roll_back))
        .routes(routes!(invocations::list))
        .routes(routes!(invocations::show, invocations::cancel))
        .routes(routes!(follow::events))
        .routes(routes!(functions::instances))
        .routes(routes!(openapi::document))
        .routes(routes!(metrics::show))
        .routes(routes!(health::ready))
        .routes(routes!(health::live))
        .split_for_parts();
    let document = openapi::Document::from(document);
    // From the innermost to the outermost.
    routes
        // A page for people is no part of the API's description.
        .route("/", get(console::page))
        .route("/console.css", get(console::style))
        .route("/console.js", get(console::script))
        .route("/console-api.js", get(console::api))
        .fallback(problem::unknown_route)
        .layer(Extension(document))
        .layer(from_fn(body::json::with_plain_encoding))
        // A client that never ends its request must not hold a handler for ever.
        .layer(from_fn_with_state(request::BodyBudget::new(&state), request::with_deadline))
        .layer(from_fn_with_state(state.clone(), cross_site::with_own_site))
        // Before anything of the request is read, and before a token can be tried.
        .layer(from_fn_with_state(state.clone(), request::with_token))
        .layer(from_fn_with_state(limiter, rate::with_rate))
        // A bug in a handler is an answer like any other.
        .layer(CatchPanicLayer::custom(problem::panicked))
        // Sees every answer: gives it its id and its log line, and errors their form.
        .layer(from_fn(request::with_id))
        .with_state(state)
}

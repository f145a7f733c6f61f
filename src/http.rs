//! The HTTP API. No other folder names axum. A handler extracts, calls one use case and converts.

mod access;
mod body;
mod cgi;
mod connection;
mod cross_site;
mod exchange;
mod idempotency;
mod openapi;
mod problem;
mod rate;
mod request;
mod routes;
mod scopes;
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
use utoipa::openapi::{ComponentsBuilder, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use problem::Problem;
use routes::{
    again, console, deployments, executions, follow, functions, health, history, invocations, metrics, nodes,
    notifications, overview, schedules, settings, tokens, versions,
};

pub use cgi::{Gateway, router as functions};
pub use server::{ServeError, serve};

use crate::config;
use crate::deployments::Deployer;
use crate::docker::health::Health;
use crate::domain::{FunctionId, UnknownFunction};
use crate::functions::{Function, Registry};
use crate::invocations::history::History;
use crate::invocations::invoke::Invoker;
use crate::invocations::live::RunningInvocations;
use crate::invocations::queue::InvocationQueue;
use crate::nodes::{Membership, Peers};
use crate::notifications::Notifier;
use crate::resources::budget::Budget;
use crate::resources::disk::DiskSpace;
use crate::resources::scratch::Scratch;
use crate::sandbox::isolation::Isolation;
use crate::sandbox::pool::Pool;
use crate::sandbox::transport::Transport;
use crate::schedules::Schedules;
use crate::tokens::Tokens;

/// What handlers get. Each request has several copies.
pub type State = Arc<Api>;

/// The parts of the service that handlers call.
#[derive(Debug)]
pub struct Api {
    /// Executes functions for waiting clients.
    pub invoker: Arc<Invoker>,
    /// Executes functions in the background, and once for a key.
    pub deferred: Arc<InvocationQueue>,
    /// Has the records of invocations.
    pub history: Arc<History>,
    /// Has the output of running invocations.
    pub live: Arc<RunningInvocations>,
    /// Submits, changes and deletes functions.
    pub deployer: Arc<Deployer>,
    /// Has the schedules of functions.
    pub schedules: Arc<Schedules>,
    /// Knows the other nodes.
    pub nodes: Arc<Membership>,
    /// Knows the tokens of clients.
    pub tokens: Arc<Tokens>,
    /// Asks the other nodes for the output of invocations that they run.
    pub peers: Arc<Peers>,
    /// Lists notifications.
    pub notifications: Arc<Notifier>,
    /// Lists functions.
    pub registry: Arc<Registry>,
    /// Counts instances.
    pub pool: Pool,
    /// Knows whether Docker answers.
    pub health: Health,
    /// Knows the parts of the isolation that Docker does not give.
    pub isolation: Arc<Isolation>,
    /// Knows how instances are reached.
    pub transport: Arc<Transport>,
    /// Has the temporary files of uploads.
    pub scratch: Scratch,
    /// Bounds the memory of requests.
    pub budget: Arc<Budget>,
    /// Knows the disks that submits write to.
    pub disks: Arc<DiskSpace>,
    /// DOCKER_CONTAINER_LIMIT.
    pub containers: u32,
    /// The port of the listener for functions. None without FUNCTIONS_PORT.
    pub functions_port: Option<u16>,
    /// FUNCTIONS_DOMAIN.
    pub functions_domain: Option<String>,
    /// The operator's limits of requests.
    pub config: Arc<config::Http>,
    /// The most that functions get preloaded.
    pub preload: config::PreloadLimit,
    /// Cancelled when the service begins no more work.
    pub stop: CancellationToken,
    /// Cancelled when new requests are to go to another node.
    pub leaving: CancellationToken,
}

impl Api {
    /// A function of the registry. A node whose lease has run out does not know which functions there are, nor how the
    /// functions are.
    fn function(&self, id: FunctionId) -> Result<Arc<Function>, Problem> {
        self.nodes.check()?;
        Ok(self.registry.get(id).ok_or(UnknownFunction(id))?)
    }
}

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Largest body of an execution, in bytes.
const MAX_EXECUTE_BODY: usize = 1 << 20;
/// The largest part of a multipart body beside the zip, in bytes.
const MULTIPART_OVERHEAD: u64 = 1 << 20;

/// The routes of the API, and their description, with the largest upload in bytes.
fn described(max_upload: usize) -> (Router<State>, OpenApi) {
    // An execution's answer, which the routes' own collection does not see.
    let components = ComponentsBuilder::new().schema_from::<executions::ExecutionBody>();
    let (routes, mut document) = OpenApiRouter::with_openapi(openapi::head(components))
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
        .routes(routes!(notifications::list))
        .routes(routes!(versions::list))
        .routes(routes!(versions::show))
        .routes(routes!(versions::code))
        .routes(routes!(deployments::roll_back))
        .routes(routes!(schedules::list))
        .routes(
            routes!(schedules::put, schedules::show, schedules::delete).layer(DefaultBodyLimit::max(MAX_EXECUTE_BODY)),
        )
        .routes(routes!(schedules::run))
        .routes(routes!(history::of_function))
        .routes(routes!(history::of_all))
        .routes(routes!(again::again))
        .routes(routes!(invocations::show, invocations::cancel))
        .routes(routes!(follow::events))
        .routes(routes!(functions::instances))
        .routes(routes!(nodes::list))
        .routes(routes!(overview::show))
        .routes(routes!(tokens::list, tokens::create).layer(DefaultBodyLimit::max(MAX_EXECUTE_BODY)))
        .routes(routes!(tokens::delete))
        .routes(routes!(openapi::document))
        .routes(routes!(metrics::show))
        .routes(routes!(health::ready))
        .routes(routes!(health::live))
        .split_for_parts();
    scopes::describe(&mut document);
    (routes, document)
}

/// All routes.
pub fn router(state: State) -> Router {
    let max_upload = usize::try_from(state.config.max_file_size + MULTIPART_OVERHEAD).unwrap_or(usize::MAX);
    let limiter = rate::Limiter::new(state.config.rate_limit);
    let (routes, document) = described(max_upload);
    let document = openapi::Document::from(document);
    // Layers stand from the innermost to the outermost.
    routes
        // The console is a page for people, and no part of the API's description.
        .route("/", get(console::page))
        .route("/console/{file}", get(console::file))
        .fallback(problem::unknown_route)
        .layer(Extension(document))
        .layer(from_fn(body::json::with_plain_encoding))
        // A client that never ends its request must not hold a handler for ever.
        .layer(from_fn_with_state(request::BodyBudget::new(&state), request::with_deadline))
        .layer(from_fn_with_state(state.clone(), cross_site::with_own_site))
        .layer(from_fn(access::with_scope))
        .layer(from_fn_with_state(limiter.clone(), rate::with_token_rate))
        // The rate counts before the body is read, and before a client can try a token.
        .layer(from_fn_with_state(state.clone(), request::with_token))
        .layer(from_fn_with_state(limiter, rate::with_rate))
        .layer(from_fn_with_state(state.clone(), request::with_sender))
        // A panic in a handler becomes an answer like any other.
        .layer(CatchPanicLayer::custom(problem::panicked))
        // This layer sees every answer: the answer gets its id and its log line, and an error its form.
        .layer(from_fn(request::with_id))
        .with_state(state)
}

//! The handler for Prometheus.

use axum::extract::State as Extract;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;

use crate::http::State;
use crate::http::openapi::AnyRoute;
use crate::telemetry::metrics::{self, Gauges};

/// Metrics
///
/// In Prometheus' text format. Where API_TOKEN is set, Prometheus needs that token, or a token for all functions, as a
/// bearer token.
#[utoipa::path(get, path = "/metrics", tag = "service", operation_id = "getMetrics",
    responses((status = 200, body = String, content_type = "text/plain; version=0.0.4", description = "All metrics"),
        AnyRoute))]
pub(in crate::http) async fn show(Extract(state): Extract<State>) -> ([(HeaderName, &'static str); 1], String) {
    let (instances, waiting) = state.pool.counts();
    let gauges = Gauges { instances, waiting, deferred: state.deferred.waiting(), functions: state.registry.len() };
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics::render(gauges))
}

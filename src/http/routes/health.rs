//! Handlers for probes. They never wait for Docker.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::{HeaderMap, StatusCode};
use jiff::{Timestamp, Unit};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::openapi::Probe;
use crate::http::{State, request};

/// The state of the service.
#[derive(Serialize, ToSchema)]
#[schema(as = Health)]
pub(in crate::http) struct Body {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// The current time.
    #[schema(example = "2023-01-16T12:34:56Z")]
    pub(super) time: String,
    /// The reason why functions can't be executed now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
    /// The parts of the isolation that Docker does not give.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    isolation: Vec<String>,
    /// The reason why each instance keeps a docker client, in place of a socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    transport: Option<String>,
}

/// Readiness
///
/// Whether functions can be executed now. Needs no token.
#[utoipa::path(get, path = "/health", tag = "service", operation_id = "getReadiness", security(()),
    responses((status = 200, body = Body, description = "Functions can be executed"), (status = 503, body = Body,
        description = "Functions can't be executed"),
        Probe))]
pub(in crate::http) async fn ready(Extract(state): Extract<State>, headers: HeaderMap) -> (StatusCode, Json<Body>) {
    let body = shown(&state, request::is_authorized(&state, &headers));
    (if body.reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body))
}

/// The state of the service, in full for a client that may see all.
pub(super) fn shown(state: &State, is_authorized: bool) -> Body {
    let (mut isolation, mut transport) = (state.isolation.missing(), state.transport.reason());
    // Where there is a token, what is missing is for those only who have it.
    if !isolation.is_empty() && !is_authorized {
        isolation = vec!["not complete; with the token, or in the log, stands what is missing".to_owned()];
    }
    if transport.is_some() && !is_authorized {
        transport = Some("no sockets; with the token, or in the log, stands the reason".to_owned());
    }
    let cut_off = || state.nodes.check().err().map(|error| error.to_string());
    let leaving = || state.leaving.is_cancelled().then(|| "the service is about to stop".to_owned());
    let reason = state.health.trouble().or_else(cut_off).or_else(leaving);
    let status = if reason.is_none() { "ok" } else { "unavailable" };
    Body { status, time: now(), reason, isolation, transport }
}

/// Liveness
///
/// Whether the process lives. Needs no token.
#[utoipa::path(get, path = "/health/live", tag = "service", operation_id = "getLiveness", security(()),
    responses((status = 200, body = Body, description = "The process lives"), Probe))]
pub(in crate::http) async fn live() -> Json<Body> {
    Json(Body { status: "ok", time: now(), reason: None, isolation: Vec::new(), transport: None })
}

fn now() -> String {
    Timestamp::now().round(Unit::Second).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

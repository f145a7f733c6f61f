//! Handlers for probes. They never wait for Docker.

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use jiff::{Timestamp, Unit};
use serde::Serialize;

use super::State;

#[derive(Serialize)]
pub(super) struct Body {
    status: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Whether functions can be executed now.
pub(super) async fn ready(Extract(state): Extract<State>) -> (StatusCode, Json<Body>) {
    match state.health.trouble() {
        None => (StatusCode::OK, Json(Body { status: "ok", time: now(), reason: None })),
        reason => (StatusCode::SERVICE_UNAVAILABLE, Json(Body { status: "unavailable", time: now(), reason })),
    }
}

/// Whether the process lives.
pub(super) async fn live() -> Json<Body> {
    Json(Body { status: "ok", time: now(), reason: None })
}

fn now() -> String {
    Timestamp::now().round(Unit::Second).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

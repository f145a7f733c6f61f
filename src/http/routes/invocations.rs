//! Handlers that show and cancel invocations.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type, schema::SchemaType};
use utoipa::{IntoResponses, ToSchema};

use super::executions::{DestinedBody, milliseconds, text};
use crate::domain::{InvocationId, InvocationRecord, Outcome, UnknownInvocation};
use crate::http::State;
use crate::http::openapi::AnyRoute;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::request::FromNode;
use crate::nodes::PeerError;
use crate::tokens::Access;

/// The longest pause within another node's answer.
const MAX_SILENCE: Duration = Duration::from_secs(5);

/// An invocation without its input and output.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = InvocationSummary)]
pub(in crate::http) struct Summary {
    #[schema(format = Uuid)]
    invocation_id: String,
    #[schema(format = Uuid)]
    function_id: String,
    /// What the invocation was begun by: `api`; `http` for a request to the function's URL; or `schedule:NAME`.
    trigger: String,
    /// The number of the version that ran; null before the beginning.
    version: Option<u32>,
    /// `queued` or `running` for an asynchronous invocation; `cancelled` when the client left or cancelled the
    /// invocation; else an outcome.
    outcome: &'static str,
    /// The time of the request, in Unix seconds.
    created_at: u64,
    /// The time of the beginning, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    executed_at: Option<u64>,
    /// The HTTP status of a synchronous answer. Absent until the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status_code: Option<u16>,
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    truncated: bool,
    /// `warm`; `slot` when a container that ran already took the function's code; or `cold`.
    start: Option<String>,
    queued_ms: Option<f64>,
    duration_ms: Option<f64>,
    cpu_ms: Option<f64>,
    peak_memory_bytes: Option<u64>,
    /// What the program's connections did, where the program has made any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network: Vec<DestinedBody>,
}

/// An invocation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Invocation)]
pub(in crate::http) struct InvocationBody {
    #[serde(flatten)]
    summary: Summary,
    /// The input; null when the input was too long for the history.
    #[schema(schema_with = input_schema)]
    input: Option<Box<RawValue>>,
    /// The part of stdout that the history has, or that a running invocation has written.
    output: String,
    /// The part of stderr that the history has, or that a running invocation has written.
    stderr: String,
}

fn input_schema() -> RefOr<Schema> {
    let any = AdditionalProperties::<Schema>::FreeForm(true);
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .additional_properties(Some(any))
        .into()
}

/// A cancelled invocation.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Cancelled {
    /// A sentence for people.
    message: String,
}

/// The further answers of a route about one invocation.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(in crate::http) enum InvocationResponses {
    /// There is no such invocation, or the history does not have the invocation any more: `invocation_not_found`.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
}

/// The further answers of a cancellation.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum CancelResponses {
    /// The invocation has ended, or is not asynchronous: `invocation_ended`.
    #[response(status = 409, content_type = "application/problem+json")]
    Ended(ProblemBody<'static>),
}

/// An invocation
///
/// A running invocation has the output so far.
#[utoipa::path(get, path = "/api/invocations/{id}", tag = "invocations", operation_id = "getInvocation",
    params(("id" = Uuid, Path, description = "The invocation's id")),
    responses((status = 200, body = InvocationBody, description = "The invocation"), AnyRoute, InvocationResponses))]
pub(in crate::http) async fn show(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    from: Option<Extension<FromNode>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id: InvocationId = id?.parse()?;
    let record = state.history.get(id).await?.filter(|record| access.sees(record.function_id));
    let mut record = record.ok_or(UnknownInvocation(id))?;
    if record.outcome == Outcome::Running {
        if let Some((stdout, stderr)) = state.live.snapshot(id) {
            (record.stdout, record.stderr) = (stdout.into(), stderr.into());
        } else if from.is_none()
            && let Some(shown) = shown_elsewhere(&state, id).await
        {
            return Ok(shown);
        }
    }
    let input = String::from_utf8(record.input.to_vec()).ok().and_then(|json| RawValue::from_string(json).ok());
    let (output, stderr) = (text(&record.stdout, true), text(&record.stderr, true));
    Ok(Json(InvocationBody { summary: summary(&record), input, output, stderr }).into_response())
}

/// The answer of the node that runs the invocation, handed on as the answer comes. None where this node has to answer.
async fn shown_elsewhere(state: &State, id: InvocationId) -> Option<Response> {
    let peer = state.peers.find(id).await.ok()??.peer?;
    let answer = state.peers.json(&peer, &format!("/api/invocations/{id}")).await.ok()?;
    let mut head = vec![(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    // The client can tell from the length whether all has come.
    head.push((CONTENT_LENGTH, answer.length()?.into()));
    let pieces = stream::try_unfold(answer, async |mut answer| {
        Ok::<_, PeerError>(answer.next(MAX_SILENCE).await?.map(|piece| (piece, answer)))
    });
    let mut shown = Body::from_stream(pieces).into_response();
    shown.headers_mut().extend(head);
    Some(shown)
}

/// Cancel an asynchronous invocation
#[utoipa::path(delete, path = "/api/invocations/{id}", tag = "invocations", operation_id = "cancelInvocation",
    params(("id" = Uuid, Path, description = "The invocation's id")),
    responses((status = 200, body = Cancelled, description = "The invocation is cancelled"), AnyRoute,
        InvocationResponses, CancelResponses))]
pub(in crate::http) async fn cancel(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Cancelled>, Problem> {
    let id: InvocationId = id?.parse()?;
    state.check_invocation(&access, id).await?;
    state.deferred.cancel(id).await?;
    Ok(Json(Cancelled { message: format!("Invocation {id} cancelled") }))
}

pub(in crate::http) fn summary(record: &InvocationRecord) -> Summary {
    Summary {
        invocation_id: record.id.to_string(),
        function_id: record.function_id.to_string(),
        trigger: record.trigger.to_string(),
        version: record.version,
        outcome: record.outcome.name(),
        created_at: record.created_at / 1000,
        executed_at: record.executed_at.map(|at| at / 1000),
        status_code: record.outcome.http_status(),
        exit_code: record.exit_code,
        error: record.error.clone(),
        truncated: record.truncated,
        start: record.start.clone(),
        queued_ms: record.queued.map(milliseconds),
        duration_ms: record.duration.map(milliseconds),
        cpu_ms: record.cpu.map(milliseconds),
        peak_memory_bytes: record.peak_memory,
        network: DestinedBody::all_of(record),
    }
}

//! The handler that executes a function again, with the input of an earlier invocation.

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use utoipa::IntoResponses;

use super::executions::{Call, ExecutionResponses, QueuedResponses, execute_or_defer};
use super::invocations::InvocationResponses;
use crate::domain::{InvocationId, UnknownInvocation};
use crate::http::openapi::AnyRoute;
use crate::http::problem::{Problem, ProblemBody};
use crate::http::{State, idempotency};
use crate::tokens::Access;

/// The further answers of another execution.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum AgainResponses {
    /// The history has no input of the invocation: of a request to a function's URL, or longer than
    /// INVOCATION_OUTPUT_SIZE: `input_not_kept`.
    #[response(status = 409, content_type = "application/problem+json")]
    NoInput(ProblemBody<'static>),
}

/// Execute again
///
/// As `POST /api/functions/{name-or-id}/invoke`, with the input of an earlier invocation, and the version that the
/// function runs now.
#[utoipa::path(post, path = "/api/invocations/{id}/again", tag = "executions", operation_id = "executeAgain",
    params(
        ("id" = Uuid, Path, description = "The invocation's id"),
        ("prefer" = Option<String>, Header, description = "`respond-async` to not wait"),
        idempotency::KeyHeader,
    ),
    responses(AnyRoute, InvocationResponses, ExecutionResponses, QueuedResponses, AgainResponses))]
pub(in crate::http) async fn again(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id: InvocationId = id?.parse()?;
    state.nodes.check()?;
    let record = state.history.get(id).await?.filter(|record| access.sees(record.function_id));
    let record = record.ok_or(UnknownInvocation(id))?;
    let input = serde_json::from_slice(&record.input).map_err(|_| {
        let detail = format!(
            "the history has no input of invocation {id}: the invocation served a request over HTTP, or its input was \
             longer than INVOCATION_OUTPUT_SIZE; execute the function with the input"
        );
        Problem::new(StatusCode::CONFLICT, "input_not_kept", detail)
    })?;
    let function = record.function_id.to_string();
    execute_or_defer(&state, Call { id: record.function_id, function: &function, access, headers }, input).await
}

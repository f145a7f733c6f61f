//! Handlers that execute a function.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, Request, State as Extract};
use axum::http::header::ALLOW;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{Content, ObjectBuilder, Ref, RefOr, ResponseBuilder, Schema, Type, schema::SchemaType};
use utoipa::{IntoParams, IntoResponses, PartialSchema, ToSchema};

use crate::domain::{
    Destined, FunctionId, IdempotencyKey, InvocationId, InvocationRecord, Outcome, UnknownInvocation, UnknownName,
};
use crate::http::body::json::{BodyError, JsonBody};
use crate::http::openapi::{AnyRoute, FunctionResponses, WithBody};
use crate::http::problem::{Problem, ProblemBody};
use crate::http::{State, idempotency};
use crate::invocations::input::{Input, Object};
use crate::sandbox::pool::Start;
use crate::tokens::Access;

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct ByQuery {
    /// The function's id.
    #[param(format = Uuid)]
    function_id: String,
}

/// A function and its input.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = Execution)]
pub(in crate::http) struct ByBody {
    /// The function's id.
    #[schema(format = Uuid)]
    function_id: String,
    #[schema(schema_with = input_schema)]
    input: Option<Object>,
}

/// The input of a function.
#[derive(Deserialize)]
#[serde(transparent)]
pub(in crate::http) struct FunctionInput(Option<Object>);

impl PartialSchema for FunctionInput {
    fn schema() -> RefOr<Schema> {
        input_object().schema_type(Type::Object).into()
    }
}

impl ToSchema for FunctionInput {}

pub(in crate::http) fn input_schema() -> RefOr<Schema> {
    input_object().schema_type(SchemaType::from_iter([Type::Object, Type::Null])).into()
}

fn input_object() -> ObjectBuilder {
    let about = "Each key reaches the function as an environment variable with its name in upper case, `-` and `.` as \
                 `_`; \
                 all of it arrives on stdin as JSON, too. Some names are reserved; at most 64 KiB a value, 1 MiB in \
                 all.";
    let names = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z_.-][A-Za-z0-9_.-]*$"));
    // Said, though it is the default: generators take an object without properties for an empty one.
    let any = AdditionalProperties::<Schema>::FreeForm(true);
    ObjectBuilder::new().property_names(Some(names)).additional_properties(Some(any)).description(Some(about))
}

/// The receipt and the output of an execution.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Executed)]
pub(in crate::http) struct ExecutionBody {
    /// The output on stdout.
    output: String,
    /// The response's own status: 200 for `ok`, 504 for `timeout`, else 500.
    status_code: u16,
    /// The time of the beginning, in Unix seconds.
    executed_at: u64,
    #[schema(format = Uuid)]
    invocation_id: String,
    /// `ok`, `exit`, `signal`, `out_of_memory`, `timeout` or `lost`.
    outcome: &'static str,
    /// The exit status, where there is one.
    exit_code: Option<i32>,
    /// The reason for an outcome other than `ok`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    stderr: String,
    /// Whether a stream had more than MAX_OUTPUT_SIZE.
    truncated: bool,
    /// `warm`; `slot` when a container that ran already took the function's code; or `cold`.
    start: String,
    /// The wait for an instance, in milliseconds.
    queued_ms: f64,
    duration_ms: f64,
    /// The processor time, in milliseconds.
    cpu_ms: Option<f64>,
    peak_memory_bytes: Option<u64>,
    /// What the program's connections did, where the program has made any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network: Vec<DestinedBody>,
}

/// The connections of an invocation with one destination.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Destination)]
pub(in crate::http) struct DestinedBody {
    /// The host and port that the program asked for; `other` for all destinations beyond the first.
    to: String,
    /// The connections that came about.
    connections: u64,
    sent_bytes: u64,
    received_bytes: u64,
    /// The connections that were refused or failed.
    refused: u64,
    /// The last reason for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

impl DestinedBody {
    pub(in crate::http) fn all_of(record: &InvocationRecord) -> Vec<Self> {
        let body = |destined: Destined| {
            let Destined { to, connections, sent_bytes, received_bytes, refused, reason } = destined;
            Self { to, connections, sent_bytes, received_bytes, refused, reason }
        };
        record.network.iter().cloned().map(body).collect()
    }
}

/// The receipt of an execution, or a problem.
pub(super) struct ExecutionResponses;

impl IntoResponses for ExecutionResponses {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let schema = |name| Content::new(Some(Ref::from_schema_name(name)));
        let answers = [
            ("200", "The function ended with exit status 0"),
            ("500", "The function failed, as `outcome` says; or the service did: `internal`, `start_failed`"),
            ("504", "The function did not end within its time limit"),
        ];
        let answer = |(status, about): (&str, &str)| {
            let executed = ResponseBuilder::new().description(about).content("application/json", schema("Executed"));
            let response = match status {
                "500" => executed.content("application/problem+json", schema("Problem")),
                _ => executed,
            };
            (status.to_owned(), response.build().into())
        };
        answers.into_iter().map(answer).collect()
    }
}

/// An accepted invocation, which will be executed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Accepted {
    /// The id at which `/api/invocations/ID` shows the invocation, as in `location`.
    #[schema(format = Uuid)]
    invocation_id: String,
    /// `queued`, or the current state where the `Idempotency-Key` is known.
    outcome: &'static str,
}

impl Accepted {
    pub(in crate::http) fn new(id: InvocationId, outcome: Outcome) -> Self {
        Self { invocation_id: id.to_string(), outcome: outcome.name() }
    }
}

/// The further answers of an execution with an `Idempotency-Key` or without waiting.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) enum QueuedResponses {
    /// The invocation is on disk and will be executed, as `prefer: respond-async` asks; `location` has its address.
    #[response(status = 202)]
    Accepted(#[to_schema] Accepted),
    /// The invocation was cancelled while the client waited: `invocation_cancelled`.
    #[response(status = 409, content_type = "application/problem+json")]
    Cancelled(ProblemBody<'static>),
    /// The `Idempotency-Key` came with another request: `idempotency_key_reused`.
    #[response(status = 422, content_type = "application/problem+json")]
    KeyReused(ProblemBody<'static>),
}

/// Refuses HEAD: a request that a client may send ahead of another must execute no function.
pub(in crate::http) async fn without_head(request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::HEAD => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        _ => next.run(request).await,
    };
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET,POST"));
    }
    response
}

/// Execute without input
#[utoipa::path(
    get,
    path = "/api/execute",
    tag = "executions",
    operation_id = "executeByQuery",
    params(ByQuery),
    responses(AnyRoute, FunctionResponses, ExecutionResponses)
)]
pub(in crate::http) async fn by_query(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    query: Result<Query<ByQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let id: FunctionId = query?.function_id.parse()?;
    access.check_function(id)?;
    execute(&state, id, Input::parse(Object::default())?).await
}

/// Execute
///
/// Runs the function in a process of its own, and answers at the end of the process. A function that fails has a
/// result, too. With `prefer: respond-async` the answer is 202 as soon as the execution is on disk. With an
/// `Idempotency-Key` a client can send the request again: the service executes the function once, even if the client
/// leaves.
#[utoipa::path(post, path = "/api/execute", tag = "executions", operation_id = "executeFunction", request_body = ByBody,
    params(
        ("prefer" = Option<String>, Header, description = "`respond-async` to not wait"),
        idempotency::KeyHeader,
    ),
    responses(AnyRoute, FunctionResponses, WithBody, ExecutionResponses, QueuedResponses))]
pub(in crate::http) async fn by_body(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    body: Result<JsonBody<ByBody>, BodyError>,
) -> Result<Response, Problem> {
    let JsonBody(body) = body?;
    state.nodes.check()?;
    let call = Call { id: body.function_id.parse()?, function: &body.function_id, access, headers };
    execute_or_defer(&state, call, body.input.unwrap_or_default()).await
}

/// Execute by name
///
/// As `POST /api/execute`, for the function of this name or id. The body is the input. A name that several functions
/// share means the function that was submitted last.
#[utoipa::path(post, path = "/api/functions/{name-or-id}/invoke", tag = "executions", operation_id = "invokeFunction",
    request_body(content = Option<FunctionInput>, description = "The input; may be left out"),
    params(
        ("name-or-id" = String, Path, description = "The function's name, or its id"),
        ("prefer" = Option<String>, Header, description = "`respond-async` to not wait"),
        idempotency::KeyHeader,
    ),
    responses(AnyRoute, FunctionResponses, WithBody, ExecutionResponses, QueuedResponses))]
pub(in crate::http) async fn by_name(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    name: Result<Path<String>, PathRejection>,
    body: Result<Option<JsonBody<FunctionInput>>, BodyError>,
) -> Result<Response, Problem> {
    // A node whose lease has run out may know an old function by this name.
    state.nodes.check()?;
    let Path(name) = name?;
    let input = body?.and_then(|JsonBody(FunctionInput(input))| input);
    let id = match name.parse() {
        Ok(id) => id,
        // A token that is for some functions means the last of these.
        Err(_) => state.registry.by_name(&name, |id| access.sees(id)).ok_or_else(|| UnknownName(name.clone()))?.id,
    };
    let call = Call { id, function: &name, access, headers };
    execute_or_defer(&state, call, input.unwrap_or_default()).await
}

/// A request for an execution.
pub(super) struct Call<'a> {
    pub(super) id: FunctionId,
    /// The client's name for the function: a key stands for the request as the client sent the request, as a name may
    /// mean another function later.
    pub(super) function: &'a str,
    pub(super) access: Access,
    pub(super) headers: HeaderMap,
}

pub(super) async fn execute_or_defer(state: &State, call: Call<'_>, input: Object) -> Result<Response, Problem> {
    let Call { id, function, access, headers } = call;
    access.check_function(id)?;
    let input = Input::parse(input)?.within(state.budget.share())?;
    let key = idempotency::key(&headers, &access)?.map(|key| {
        let request_sha256 = idempotency::digest(&[function.as_bytes(), input.json()]);
        IdempotencyKey { key, request_sha256 }
    });
    let span = tracing::Span::current();
    if !prefers_async(&headers) {
        let Some(key) = key else { return execute(state, id, input).await };
        span.record("function.id", tracing::field::display(id));
        let record = state.deferred.execute(id, input, key).await?;
        span.record("invocation.id", tracing::field::display(record.id));
        return answer(&record);
    }
    span.record("function.id", tracing::field::display(id));
    let has_key = key.is_some();
    let id = state.deferred.accept(id, input, key).await?;
    span.record("invocation.id", tracing::field::display(id));
    let place = [("location", format!("/api/invocations/{id}")), ("preference-applied", "respond-async".to_owned())];
    // An invocation whose key came before may be further.
    let outcome =
        if has_key { state.history.get(id).await?.ok_or(UnknownInvocation(id))?.outcome } else { Outcome::Queued };
    Ok((StatusCode::ACCEPTED, place, Json(Accepted::new(id, outcome))).into_response())
}

/// Whether the client does not wait. By RFC 7240 commas separate tokens, in one field or several.
fn prefers_async(headers: &HeaderMap) -> bool {
    let fields = headers.get_all("prefer").iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|token| token.trim().eq_ignore_ascii_case("respond-async"))
}

async fn execute(state: &State, id: FunctionId, input: Input) -> Result<Response, Problem> {
    let span = tracing::Span::current();
    span.record("function.id", tracing::field::display(id));
    let record = state.invoker.invoke(id, input).await?;
    span.record("invocation.id", tracing::field::display(record.id));
    answer(&record)
}

/// The answer of an execution, with an `Idempotency-Key` or without. An execution that was cancelled has no status.
fn answer(record: &InvocationRecord) -> Result<Response, Problem> {
    let status_code = record.outcome.http_status().ok_or_else(|| Problem::cancelled(record.id))?;
    let executed = ExecutionBody {
        output: text(&record.stdout, record.truncated),
        status_code,
        executed_at: record.executed_at.unwrap_or(record.created_at) / 1000,
        invocation_id: record.id.to_string(),
        outcome: record.outcome.name(),
        exit_code: record.exit_code,
        error: record.error.clone(),
        stderr: text(&record.stderr, record.truncated),
        truncated: record.truncated,
        start: record.start.clone().unwrap_or_else(|| Start::Cold.name().to_owned()),
        queued_ms: record.queued.map_or(0.0, milliseconds),
        duration_ms: record.duration.map_or(0.0, milliseconds),
        cpu_ms: record.cpu.map(milliseconds),
        peak_memory_bytes: record.peak_memory,
        network: DestinedBody::all_of(record),
    };
    let status = StatusCode::from_u16(status_code).expect("an outcome has an HTTP status");
    let timing = format!("queue;dur={}, run;dur={}", executed.queued_ms, executed.duration_ms);
    Ok((status, [("server-timing", timing)], Json(executed)).into_response())
}

/// The stream as text. A cut in the middle of a character removes the character.
pub(in crate::http) fn text(bytes: &[u8], truncated: bool) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if truncated && error.error_len().is_none() => &bytes[..error.valid_up_to()],
        Ok(_) | Err(_) => bytes,
    };
    String::from_utf8_lossy(whole).into_owned()
}

/// Milliseconds, with the resolution of a microsecond.
pub(in crate::http) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_text() {
        assert_eq!(text("é".as_bytes(), false), "é");
        assert_eq!(text(b"a\xffb", false), "a\u{fffd}b");
        assert_eq!(text(&"aé".as_bytes()[..2], false), "a\u{fffd}");
        assert_eq!(text(&"aé".as_bytes()[..2], true), "a");
    }

    #[test]
    fn a_preference_is_one_of_several_tokens() {
        let prefers =
            |value: &str| prefers_async(&HeaderMap::from_iter([("prefer".parse().unwrap(), value.parse().unwrap())]));
        assert!(prefers("respond-async") && prefers("wait=10, Respond-Async"));
        assert!(!prefers("respond-sync") && !prefers("") && !prefers_async(&HeaderMap::new()));
    }
}

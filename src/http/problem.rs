//! Errors as clients see them: RFC 9457 problems.

mod errors;
mod images;
mod network;
mod schedules;
mod settings;
mod tokens;
mod trouble;

use std::any::Any;
use std::fmt::Display;

use axum::body::Body;
use axum::http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::MAX_HEAD;
use crate::domain::{InvocationId, InvocationRecord, Outcome};

/// The time after which a refused client should try again, in seconds.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

const NOT_HTTP: &str = "the request is not valid HTTP/1.1: check its method, its URL (quotes, spaces, `<`, `>` and \
                        backticks are sent as \
                        %22, %20, %3C, %3E and %60), its header fields and its length";

/// The mark of a response that is a function's own, whatever its status.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfFunction;

/// An error on its way to the client. [`finish`] gives the error its form.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    build_log: Option<String>,
    /// The invocation that failed, and its outcome.
    invocation: Option<(InvocationId, &'static str)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl ToString) -> Self {
        Self { status, code, detail: detail.to_string(), build_log: None, invocation: None }
    }

    pub(super) fn invalid_request(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub(super) fn too_large(detail: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn request_timeout() -> Self {
        let detail = "the request did not arrive whole in time (SERVER_READ_TIMEOUT)";
        Self::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", detail)
    }

    pub(super) fn unauthorized() -> Self {
        let detail = "this service needs the header `Authorization: Bearer TOKEN`, with the value of its API_TOKEN";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    pub(super) fn cross_site(detail: impl ToString) -> Self {
        Self::new(StatusCode::FORBIDDEN, "cross_site", detail)
    }

    /// A request that the HTTP parser can't read.
    pub(super) fn unreadable(status: StatusCode) -> Self {
        match status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
                let detail = format!(
                    "the request's head is larger than the limit of {} KiB, or has more than 100 header fields",
                    MAX_HEAD >> 10
                );
                Self::new(status, "too_large", detail)
            }
            _ => Self::new(status, "invalid_request", NOT_HTTP),
        }
    }

    /// A body in an encoding that the service does not know.
    pub(super) fn encoded(encoding: &str) -> Self {
        let encoding: String = encoding.chars().take(64).collect();
        let detail = format!(
            "the body has the `Content-Encoding` {encoding:?}; this service takes bodies as they are, without one"
        );
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }

    /// The problem of what a field of the request's body names.
    pub(super) fn of_field(self, field: &str) -> Self {
        Self { detail: format!("`{field}`: {}", self.detail), ..self }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn unknown_path(path: &str) -> Self {
        let path: String = path.chars().take(200).collect();
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {path}"))
    }

    pub(super) fn rate_limited(client: impl Display) -> Self {
        let detail = format!("too many requests from {client} (RATE_LIMIT); try again after the time in `retry-after`");
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail)
    }

    pub(super) fn overloaded(detail: impl ToString) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail)
    }

    /// A function that answers requests over HTTP has failed before its header was whole. What the function has
    /// written is for its owner, not for a client.
    pub(super) fn function_failed(record: &InvocationRecord) -> Self {
        let outcome = record.outcome.name();
        let detail = format!("the function failed before it had written a response ({outcome}); its history has more");
        let invocation = Some((record.id, outcome));
        Self { invocation, ..Self::new(StatusCode::BAD_GATEWAY, "function_failed", detail) }
    }

    /// A function has written a header that can't be one.
    pub(super) fn invalid_response(id: InvocationId, reason: &str) -> Self {
        let detail = format!("the function's response can't be sent on: {reason}");
        let invocation = Some((id, Outcome::Cancelled.name()));
        Self { invocation, ..Self::new(StatusCode::BAD_GATEWAY, "invalid_response", detail) }
    }

    /// A function takes requests with a token only, and there is none.
    pub(super) fn no_tokens() -> Self {
        let detail = "this function needs a token, and there is none while the platform has no API_TOKEN; have the \
                      operator set API_TOKEN, or make the function's `http` `public`";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    fn key_reused(error: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", error)
    }

    pub(super) fn cancelled(id: InvocationId) -> Self {
        Self::new(StatusCode::CONFLICT, "invocation_cancelled", format!("invocation {id} was cancelled"))
    }

    /// A fault of the service. The chain of causes goes to the log here, and nowhere else.
    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "request failed");
        let detail = "something went wrong inside the service; its log has more under this requestId";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// An instance does not start, though Docker answers.
    fn start_failed(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "a function's container does not start");
        let detail = "the function's container does not start; the service's log says why under this requestId. Where \
                      the log blames \
                      the image, submit the function again";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "start_failed", detail)
    }

    fn docker(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "docker is unavailable");
        let detail = "Docker does not answer; /health tells when it does again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "docker_unavailable", detail)
    }

    fn store(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "the database does not answer");
        let detail = "the database of the service does not answer; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", detail)
    }

    fn registry(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "the registry of images does not answer");
        let detail = "the registry that has the images of functions does not answer; try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "registry_unavailable", detail)
    }

    fn disk_full(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "a disk is full");
        Self::insufficient_storage("a disk of the service is full; make room and try again")
    }

    fn insufficient_storage(detail: impl ToString) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "insufficient_storage", detail)
    }

    fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the service is shutting down")
    }
}

/// An error in the form of RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem)]
pub(super) struct ProblemBody<'a> {
    /// The response's status.
    #[schema(example = 404)]
    pub(super) status: u16,
    /// The status in words.
    #[schema(example = "Not Found")]
    pub(super) title: &'a str,
    /// The kind of error, for programs.
    #[schema(example = "function_not_found")]
    pub(super) code: &'a str,
    /// The error, its input and a remedy, for people.
    pub(super) detail: &'a str,
    /// The id under which the service's log has more.
    pub(super) request_id: &'a str,
    /// The end of the compiler's or the installer's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) build_log: Option<&'a str>,
    /// How the invocation of a function that answers over HTTP ended. No answer of the API has this.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub(super) outcome: Option<&'a str>,
    /// The id of that invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(ignore)]
    pub(super) invocation_id: Option<String>,
}

impl Problem {
    /// Its body.
    pub(super) fn to_json(&self, request_id: &str) -> String {
        let body = ProblemBody {
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or("Error"),
            code: self.code,
            detail: &self.detail,
            request_id,
            build_log: self.build_log.as_deref(),
            outcome: self.invocation.map(|(_, outcome)| outcome),
            invocation_id: self.invocation.map(|(id, _)| id.to_string()),
        };
        serde_json::to_string(&body).expect("strings and numbers can be written as JSON")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every error its form, also the errors of the framework.
pub(super) fn finish(mut response: Response, request_id: &str) -> Response {
    if response.extensions().get::<OfFunction>().is_some() {
        return response;
    }
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let has_form = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_error && !has_form => framework(status),
        None => return response,
    };
    let body = problem.to_json(request_id);
    let (mut head, _) = response.into_parts();
    head.headers.remove("content-length");
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        head.headers.entry(RETRY_AFTER).or_insert(RETRY_AFTER_SECONDS);
    }
    if matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INSUFFICIENT_STORAGE)
    {
        // The rest of the request stays unread, so no other request can follow on this connection. The header says so.
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if status == StatusCode::UNAUTHORIZED {
        head.headers.insert("www-authenticate", HeaderValue::from_static("Bearer"));
    }
    Response::from_parts(head, Body::from(body))
}

fn framework(status: StatusCode) -> Problem {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => Problem::new(
            status,
            "method_not_allowed",
            "this path does not take that method; the header `allow` lists those it takes",
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Problem::new(status, "unsupported_media_type", "wrong content type"),
        _ if status.is_client_error() => Problem::new(status, "invalid_request", "the request is not valid"),
        _ => Problem::new(status, "internal", "something went wrong inside the service"),
    }
}

/// The answer to a path that does not exist.
pub(super) async fn unknown_route(uri: Uri) -> Problem {
    Problem::unknown_path(uri.path())
}

/// The answer of a handler that panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let error = anyhow::anyhow!("a handler panicked: {}", text.unwrap_or("no text"));
    Problem::internal(error.as_ref()).into_response()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

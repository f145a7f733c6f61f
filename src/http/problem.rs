//! Errors as clients see them: RFC 9457 problems. The only file that pairs errors with status codes.

use std::any::Any;

use axum::body::Body;
use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::upload::UploadError;
use crate::builder::BuildError;
use crate::deploy::{DeployError, UnknownFunction};
use crate::docker::DockerError;
use crate::instance::StartError;
use crate::invoke::input::InputError;
use crate::invoke::{Invocation, InvokeError};
use crate::package::{DetectError, PackageError};
use crate::pool::AcquireError;
use crate::runtime::RuntimeError;
use crate::types::NotAUuid;

/// Seconds after which a client that was turned away should try again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An error on its way to the client. [`finish`] gives it its form.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    build_log: Option<String>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl ToString) -> Self {
        Self { status, code, detail: detail.to_string(), build_log: None }
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

    /// Ours: the chain of causes goes to the log, here and nowhere else.
    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "request failed");
        let detail = "something went wrong inside the service; its log has more under this requestId";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    fn docker(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %chain(error), "docker is unavailable");
        let detail = "Docker does not answer; /health tells when it does again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "docker_unavailable", detail)
    }

    fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the service is shutting down")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives every error its form, those of the framework included, which have none of ours yet.
pub(super) fn finish(mut response: Response, request_id: &str) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body_<'a> {
        status: u16,
        title: &'a str,
        code: &'a str,
        detail: &'a str,
        request_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        build_log: Option<&'a str>,
    }
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let has_form = response.headers().get(CONTENT_TYPE).is_some_and(|value| value == "application/json");
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_error && !has_form => framework(status),
        None => return response,
    };
    let body = Body_ {
        status: status.as_u16(),
        title: status.canonical_reason().unwrap_or("Error"),
        code: problem.code,
        detail: &problem.detail,
        request_id,
        build_log: problem.build_log.as_deref(),
    };
    let body = serde_json::to_vec(&body).expect("strings and numbers can be written as JSON");
    let (mut head, _) = response.into_parts();
    head.headers.remove("content-length");
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        head.headers.insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
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

/// For paths that there are not.
pub(super) async fn unknown_route(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is nothing at {path}"))
}

/// For handlers that panicked.
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let error = anyhow::anyhow!("a handler panicked: {}", text.unwrap_or("no text"));
    Problem::internal(error.as_ref()).into_response()
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<NotAUuid> for Problem {
    fn from(error: NotAUuid) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_function_id", error)
    }
}

impl From<UnknownFunction> for Problem {
    fn from(error: UnknownFunction) -> Self {
        Self::new(StatusCode::NOT_FOUND, "function_not_found", error)
    }
}

impl From<InputError> for Problem {
    fn from(error: InputError) -> Self {
        match &error {
            InputError::TooLarge(..) => Self::too_large(error),
            InputError::Key(_)
            | InputError::Twice(..)
            | InputError::Reserved(..)
            | InputError::NotText(_)
            | InputError::Nul(_) => Self::new(StatusCode::BAD_REQUEST, "invalid_input", error),
        }
    }
}

impl From<InvokeError> for Problem {
    fn from(error: InvokeError) -> Self {
        match &error {
            InvokeError::UnknownFunction(_) => Self::new(StatusCode::NOT_FOUND, "function_not_found", error),
            InvokeError::Acquire(AcquireError::QueueFull { .. } | AcquireError::QueueTimeout { .. }) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", error)
            }
            InvokeError::Acquire(AcquireError::ShuttingDown) => Self::shutting_down(),
            InvokeError::Acquire(AcquireError::Deleted) => Self::new(StatusCode::NOT_FOUND, "function_not_found", error),
            InvokeError::Acquire(AcquireError::Start(start)) => match &**start {
                StartError::Docker(docker) if is_unavailable(docker) => Self::docker(&error),
                StartError::Timeout => Self::docker(&error),
                StartError::Docker(_) | StartError::Protocol(_) => Self::internal(&error),
            },
        }
    }
}

impl From<DeployError> for Problem {
    fn from(error: DeployError) -> Self {
        match error {
            DeployError::Package(error) => package(error),
            DeployError::Build(error) => build(error),
            DeployError::Io(_) | DeployError::Died(_) => Self::internal(&error),
        }
    }
}

fn package(error: PackageError) -> Problem {
    match &error {
        PackageError::TooManyEntries(_) | PackageError::TooLarge { .. } => Problem::too_large(error),
        PackageError::Detect(DetectError::Io(_)) | PackageError::Io(_) => Problem::internal(&error),
        PackageError::Detect(
            DetectError::Nothing { .. } | DetectError::Both { .. } | DetectError::NotThere { .. } | DetectError::Entry { .. },
        ) => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "language_not_detected", error),
        PackageError::NotAZip(_)
        | PackageError::Encrypted(_)
        | PackageError::Path { .. }
        | PackageError::Special(_)
        | PackageError::Duplicate(..)
        | PackageError::Repeated
        | PackageError::FileAsFolder(_)
        | PackageError::Overlap
        | PackageError::Damaged { .. } => Problem::new(StatusCode::BAD_REQUEST, "invalid_archive", error),
    }
}

fn build(error: BuildError) -> Problem {
    match error {
        BuildError::Failed { ref log } => {
            let build_log = Some(log.clone());
            Problem { build_log, ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "build_failed", error) }
        }
        BuildError::Timeout { .. } => Problem::new(StatusCode::GATEWAY_TIMEOUT, "build_timeout", error),
        BuildError::Cancelled => Problem::shutting_down(),
        BuildError::Runtime(RuntimeError::Docker { ref source, .. }) | BuildError::Docker(ref source)
            if is_unavailable(source) =>
        {
            Problem::docker(&error)
        }
        BuildError::Runtime(_) | BuildError::Docker(_) | BuildError::Io(_) => Problem::internal(&error),
    }
}

fn is_unavailable(error: &DockerError) -> bool {
    match error {
        DockerError::Spawn(_) | DockerError::Unavailable(_) | DockerError::Timeout { .. } => true,
        DockerError::Cancelled | DockerError::Failed { .. } | DockerError::Unexpected { .. } => false,
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Multipart(error) => error.into(),
            UploadError::TooLarge { .. } => Self::too_large(error),
            UploadError::Io(_) => Self::internal(&error),
            UploadError::Missing
            | UploadError::Twice(_)
            | UploadError::Unknown(_)
            | UploadError::NotText(_)
            | UploadError::Name(_)
            | UploadError::Language(_) => Self::invalid_request(error),
        }
    }
}

impl From<MultipartError> for Problem {
    fn from(error: MultipartError) -> Self {
        if is_late(&error) {
            return Self::request_timeout();
        }
        match error.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large("the upload is larger than MAX_FILE_SIZE allows"),
            _ => Self::invalid_request(format!("the multipart body is malformed: {}", error.body_text())),
        }
    }
}

impl From<MultipartRejection> for Problem {
    fn from(rejection: MultipartRejection) -> Self {
        let detail = format!("expected multipart/form-data with a boundary and a file field `code`: {}", rejection.body_text());
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        if is_late(&rejection) {
            return Self::request_timeout();
        }
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Self::too_large("the request is larger than the limit of 1 MiB"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "expected a JSON body with the header `Content-Type: application/json`",
            ),
            _ => Self::invalid_request(rejection.body_text()),
        }
    }
}

impl From<QueryRejection> for Problem {
    fn from(_: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_function_id", "give the function's id once, as ?functionId=UUID")
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_function_id", "the path does not hold a function's id, which is a UUID")
    }
}

fn is_late(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<super::request::Late>())
}

/// The status of an execution, which its body repeats.
pub(super) fn status_of(invocation: &Invocation) -> StatusCode {
    use crate::invoke::Outcome;
    match invocation.outcome {
        Outcome::Ok => StatusCode::OK,
        Outcome::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        Outcome::Exit(_) | Outcome::Signal(_) | Outcome::OutOfMemory { .. } | Outcome::Lost => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

//! Handlers that submit, list, show and delete functions.

use axum::Json;
use axum::extract::multipart::MultipartRejection;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Multipart, Path, State as Extract};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::openapi::{AnyRoute, FunctionResponses, WithBody};
use super::problem::{Problem, ProblemBody};
use super::request::RequestId;
use super::upload::{self, UploadError};
use super::versions::SettingsResponses;
use super::{MULTIPART_OVERHEAD, State, events, idempotency};
use crate::deployments::Upload;
use crate::domain::{Deployed, FunctionId, UnknownFunction};
use crate::functions::Function;

/// A function that was deployed.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Submitted {
    /// The id by which clients execute the function.
    #[schema(format = Uuid)]
    function_id: String,
    /// The id of the function's image in Docker.
    #[schema(example = "sha256:...")]
    image_id: String,
    /// For people.
    message: String,
    /// What the zip has and probably does not mean, for people; absent when there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, example = json!(["Pipfile is not read"]))]
    warnings: Vec<String>,
}

/// A function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Function)]
pub(super) struct FunctionBody {
    /// The id by which clients execute the function.
    #[schema(format = Uuid)]
    function_id: String,
    /// The id of the function's image in Docker.
    #[schema(example = "sha256:...")]
    image_id: String,
    /// `python` or `golang`.
    language: &'static str,
    /// Unix seconds.
    created_at: u64,
    /// Unix seconds; absent until the first execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_executed: Option<u64>,
    /// Not unique.
    name: String,
    /// The number of the version that is run.
    version: u32,
}

/// A function that is gone.
#[derive(Serialize, ToSchema)]
pub(super) struct Deleted {
    /// For people.
    message: String,
}

/// The form of a submit.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) struct Submission {
    /// The zip.
    #[schema(value_type = String, format = Binary, content_media_type = "application/octet-stream")]
    code: Vec<u8>,
    /// 1 to 63 of letters, digits, `.`, `_`, `-` and space; default: made of the file's name.
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 63,
        pattern = "^[A-Za-z0-9._ -]*[A-Za-z0-9._-][A-Za-z0-9._ -]*$"
    )]
    name: Option<String>,
    /// Settles what the zip leaves open.
    #[schema(nullable = false, value_type = Option<LanguageName>)]
    language: Option<String>,
    /// Of a container, such as `64MB`: at least 16 MB, at most MAX_FUNCTION_MEMORY; default: DOCKER_MEMORY_LIMIT.
    #[schema(nullable = false, example = "64MB")]
    memory: Option<String>,
    /// Of a container, in processors; at most MAX_FUNCTION_CPUS; default: DOCKER_CPU_LIMIT.
    #[schema(nullable = false, example = "0.5")]
    cpus: Option<String>,
    /// Of one invocation, such as `10s`; at most MAX_FUNCTION_TIMEOUT; default: DOCKER_RUN_TIMEOUT.
    #[schema(nullable = false, example = "10s")]
    timeout: Option<String>,
    /// A JSON object: variables for every invocation, unless its input has one of the name.
    #[schema(nullable = false, example = "{\"GREETING\": \"Hello\"}")]
    environment: Option<String>,
    /// A JSON object: the same, but never shown, and not for an input to replace.
    #[schema(nullable = false, example = "{\"API_KEY\": \"abc\"}")]
    secrets: Option<String>,
}

/// A language that functions can be written in.
#[derive(ToSchema)]
#[schema(as = Language, rename_all = "lowercase")]
#[expect(dead_code, reason = "only its derived description is used")]
enum LanguageName {
    Python,
    Golang,
}

/// What a build may answer, too.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) enum BuildResponses {
    /// A request with the same `Idempotency-Key` is being carried out: `in_progress`.
    #[response(status = 409, content_type = "application/problem+json")]
    InProgress(ProblemBody<'static>),
    /// No language was found (`language_not_detected`), the code does not build (`build_failed`), or the `Idempotency-Key` came
    /// with another request (`idempotency_key_reused`).
    #[response(status = 422, content_type = "application/problem+json")]
    Unbuildable(ProblemBody<'static>),
    /// The build took longer than DOCKER_BUILD_TIMEOUT: `build_timeout`.
    #[response(status = 504, content_type = "application/problem+json")]
    BodyTimeout(ProblemBody<'static>),
}

/// Submit
///
/// Builds a function from a zip with Python or Go code, and answers when the function can be executed. With an
/// `Idempotency-Key`, a client can send the request again: the service makes one function, even if the client
/// leaves, and gives the same answer. With `accept: text/event-stream` the answer is a stream of events: `log` for
/// each line that the build prints, and in the end `deployed`, with the JSON of the plain answer, or `problem`.
#[utoipa::path(post, path = "/api/submit", tag = "functions", operation_id = "submitFunction",
    params(("idempotency-key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "1 to 255 visible characters; kept for a day")),
    request_body(content = Submission, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The function can be executed", content((Submitted = "application/json"), (String = "text/event-stream"))),
        AnyRoute, WithBody, BuildResponses, SettingsResponses))]
pub(super) async fn submit(
    Extract(state): Extract<State>,
    headers: HeaderMap,
    Extension(request_id): Extension<RequestId>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Problem> {
    let key = idempotency::key(&headers)?;
    let upload = Upload { key, ..receive(&state, &headers, form).await? };
    if events::are_wanted(&headers) {
        return Ok(events::of_deployment(&state, None, upload, request_id));
    }
    Ok(Json(submitted(state.deployer.deploy(upload).await?)).into_response())
}

/// Receives the form of a submit or an update, where there is room for it.
pub(super) async fn receive(
    state: &State,
    headers: &HeaderMap,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Upload, Problem> {
    let limit = state.settings.max_file_size;
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit + MULTIPART_OVERHEAD) {
        return Err(UploadError::TooLarge { limit }.into());
    }
    state.deployer.check_room().await?;
    Ok(upload::receive(form?, &state.scratch, limit).await?)
}

pub(super) fn submitted(deployed: Deployed) -> Submitted {
    let message = format!("Function '{}' deployed successfully", deployed.name);
    let Deployed { function_id, image_id, warnings, .. } = deployed;
    Submitted { function_id, image_id, message, warnings }
}

/// List
#[utoipa::path(get, path = "/api/functions", tag = "functions", operation_id = "listFunctions",
    responses((status = 200, body = Vec<FunctionBody>, description = "All functions"), AnyRoute))]
pub(super) async fn list(Extract(state): Extract<State>) -> Json<Vec<FunctionBody>> {
    Json(state.registry.list().iter().map(|function| shown(function)).collect())
}

/// The instances of a function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instances {
    #[schema(format = Uuid)]
    function_id: String,
    /// Instances that start.
    starting: usize,
    /// Warm instances that wait for an invocation.
    idle: usize,
    /// Instances that run an invocation.
    busy: usize,
}

/// Instances
///
/// Of each function that has any.
#[utoipa::path(get, path = "/api/instances", tag = "functions", operation_id = "listInstances",
    responses((status = 200, body = Vec<Instances>, description = "Counts of instances by function"), AnyRoute))]
pub(super) async fn instances(Extract(state): Extract<State>) -> Json<Vec<Instances>> {
    let counts = state.pool.counts_by_function().into_iter();
    let shown = |(id, [starting, idle, busy]): (FunctionId, [usize; 3])| Instances {
        function_id: id.to_string(),
        starting,
        idle,
        busy,
    };
    Json(counts.map(shown).collect())
}

/// Show
#[utoipa::path(get, path = "/api/functions/{id}", tag = "functions", operation_id = "getFunction", params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = FunctionBody, description = "The function"), AnyRoute, FunctionResponses))]
pub(super) async fn show(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<FunctionBody>, Problem> {
    let id: FunctionId = id?.parse()?;
    let function = state.registry.get(id).ok_or(UnknownFunction(id))?;
    Ok(Json(shown(&function)))
}

/// Delete
///
/// Executions under way end by themselves; then its containers and its image go.
#[utoipa::path(delete, path = "/api/functions/{id}", tag = "functions", operation_id = "deleteFunction", params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = Deleted, description = "The function is deleted"), AnyRoute, FunctionResponses))]
pub(super) async fn delete(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Deleted>, Problem> {
    let id: FunctionId = id?.parse()?;
    state.deployer.delete(id).await?;
    Ok(Json(Deleted { message: format!("Function {id} deleted successfully") }))
}

pub(super) fn shown(function: &Function) -> FunctionBody {
    FunctionBody {
        function_id: function.id.to_string(),
        image_id: function.version.image().id.as_str().to_owned(),
        language: function.version.language.as_str(),
        created_at: function.created_at,
        last_executed: function.executions().last,
        name: function.name.to_string(),
        version: function.version.id.number,
    }
}

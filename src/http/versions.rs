//! Handlers that change a function: another version, other settings.

use axum::Json;
use axum::extract::multipart::MultipartRejection;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Extension, Multipart, Path, Query, State as Extract};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::body::{BodyError, JsonBody};
use super::functions::{BuildResponses, FunctionBody, Submission, receive, shown};
use super::openapi::{AnyRoute, FunctionResponses, WithBody};
use super::problem::{Problem, ProblemBody};
use super::request::RequestId;
use super::settings::{ChangeBody, ShownSettings};
use super::{State, events, idempotency};
use crate::deployments::Upload;
use crate::domain::{Deployed, FunctionId, UnknownFunction};

const NOT_A_CHANGE: &str = "the body is not a JSON object with any of `name` (a text), `memory`, `cpus`, `timeout`, `environment` and \
                            `secrets` (objects), and nothing else";

/// A function that runs another version from now on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Updated {
    #[schema(format = Uuid)]
    function_id: String,
    /// The id of the version's image in Docker.
    #[schema(example = "sha256:...")]
    image_id: String,
    /// The number of the version that the function runs.
    version: u32,
    /// For people.
    message: String,
    /// What the zip has and probably does not mean, for people; absent when there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false, example = json!(["Pipfile is not read"]))]
    warnings: Vec<String>,
}

/// A function with all that its owner has set.
#[derive(Serialize, ToSchema)]
#[schema(as = FunctionWithSettings)]
pub(super) struct Configured {
    #[serde(flatten)]
    function: FunctionBody,
    settings: ShownSettings,
}

/// A version of a function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    /// Its number, from 1 on.
    version: u32,
    /// Whether the function runs this version.
    is_current: bool,
    /// `python` or `golang`.
    language: &'static str,
    /// Unix seconds.
    created_at: u64,
    /// The size of the version's zip, in bytes.
    zip_bytes: u64,
    /// The SHA-256 of the version's zip, in hexadecimal.
    zip_sha256: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RollbackQuery {
    /// The number of a version that is kept; default: the one that was run before.
    #[param(nullable = false, minimum = 1)]
    version: Option<u32>,
}

/// What a request with settings may answer, too.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
pub(super) enum SettingsResponses {
    /// The request is not valid: `invalid_request`, or `invalid_archive`; or a setting is out of its range, or a variable can't be
    /// one: `invalid_settings`.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
}

/// What a rollback may answer, too.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum RollbackResponses {
    /// There is no such function, or no such version of it: `version_not_found`.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
    /// There was no version before this one: `no_former_version`.
    #[response(status = 409, content_type = "application/problem+json")]
    NoFormer(ProblemBody<'static>),
}

/// Update
///
/// Builds another version and runs it from then on: when it is built and an instance of it waits, it takes the place of the one
/// before at one moment. Until then, and when anything fails, the function stays as it was. `name` and settings may be changed with
/// it. As with a submit, the answer can be a stream of events.
#[utoipa::path(put, path = "/api/functions/{id}", tag = "functions", operation_id = "updateFunction",
    params(("id" = Uuid, Path, description = "The function's id"),
        ("idempotency-key" = Option<String>, Header, pattern = "^[!-~]{1,255}$", description = "1 to 255 visible characters; kept for a day")),
    request_body(content = Submission, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The function runs the version", content((Updated = "application/json"), (String = "text/event-stream"))),
        AnyRoute, FunctionResponses, WithBody, BuildResponses, SettingsResponses))]
pub(super) async fn update(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    Extension(request_id): Extension<RequestId>,
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response, Problem> {
    let id: FunctionId = id?.parse()?;
    let key = idempotency::key(&headers)?;
    // A request that was carried out has its answer, whatever has become of its function.
    if key.is_none() {
        state.registry.get(id).ok_or(UnknownFunction(id))?;
    }
    let upload = Upload { key, ..receive(&state, &headers, form).await? };
    if events::are_wanted(&headers) {
        return Ok(events::of_deployment(&state, Some(id), upload, request_id));
    }
    Ok(Json(updated(state.deployer.update(id, upload).await?)).into_response())
}

/// Roll back
///
/// Runs a version again that was run before. It takes the place of the one after at one moment, as with an update.
#[utoipa::path(post, path = "/api/functions/{id}/rollback", tag = "functions", operation_id = "rollBackFunction",
    params(("id" = Uuid, Path, description = "The function's id"), RollbackQuery),
    responses((status = 200, body = Updated, description = "The function runs the version"), AnyRoute, BuildResponses, RollbackResponses))]
pub(super) async fn roll_back(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
    target: Result<Query<RollbackQuery>, QueryRejection>,
) -> Result<Json<Updated>, Problem> {
    let id: FunctionId = id?.parse()?;
    let Query(target) = target.map_err(|error| Problem::invalid_request(error.body_text()))?;
    Ok(Json(updated(state.deployer.roll_back(id, target.version).await?)))
}

/// List versions
///
/// Those that are kept, the last first.
#[utoipa::path(get, path = "/api/functions/{id}/versions", tag = "functions", operation_id = "listVersions",
    params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = Vec<Version>, description = "The function's versions"), AnyRoute, FunctionResponses))]
pub(super) async fn list(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<Version>>, Problem> {
    let id: FunctionId = id?.parse()?;
    let function = state.registry.get(id).ok_or(UnknownFunction(id))?;
    let versions = state.deployer.versions(id).await?.into_iter();
    let shown = versions.map(|record| Version {
        version: record.number,
        is_current: record.number == function.version.id.number,
        language: record.language.as_str(),
        created_at: record.created_at,
        zip_bytes: record.zip_size,
        zip_sha256: record.zip_sha256,
    });
    Ok(Json(shown.collect()))
}

/// Settings
#[utoipa::path(get, path = "/api/functions/{id}/settings", tag = "functions", operation_id = "getFunctionSettings",
    params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = ShownSettings, description = "The function's own settings"), AnyRoute, FunctionResponses))]
pub(super) async fn settings(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ShownSettings>, Problem> {
    let id: FunctionId = id?.parse()?;
    let function = state.registry.get(id).ok_or(UnknownFunction(id))?;
    Ok(Json((&function.settings).into()))
}

/// Configure
///
/// Changes a function's name, limits, environment and secrets, as a merge patch (RFC 7396): what is not named stays, what is null goes.
/// With other limits an instance waits before they take effect.
#[utoipa::path(patch, path = "/api/functions/{id}", tag = "functions", operation_id = "configureFunction", params(("id" = Uuid, Path, description = "The function's id")),
    request_body = ChangeBody,
    responses((status = 200, body = Configured, description = "The function as it is now"), AnyRoute, FunctionResponses, WithBody, SettingsResponses))]
pub(super) async fn configure(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
    change: Result<JsonBody<Box<RawValue>>, BodyError>,
) -> Result<Json<Configured>, Problem> {
    let id: FunctionId = id?.parse()?;
    // What is wrong with a body is said without a word of it: it may hold a secret.
    let not_a_change = || Problem::invalid_request(NOT_A_CHANGE);
    let JsonBody(change) = change.map_err(|error| match error {
        BodyError::Json(JsonRejection::JsonDataError(_) | JsonRejection::JsonSyntaxError(_)) => not_a_change(),
        error => error.into(),
    })?;
    // An array would do for its fields in their order, too.
    let object = Some(change.get()).filter(|json| json.starts_with('{'));
    let change: ChangeBody = object.and_then(|json| serde_json::from_str(json).ok()).ok_or_else(not_a_change)?;
    let (name, settings) = change.parse().map_err(Problem::invalid_request)?;
    let function = state.deployer.configure(id, name, settings).await?;
    Ok(Json(Configured { function: shown(&function), settings: (&function.settings).into() }))
}

pub(super) fn updated(Deployed { function_id, image_id, version, name, warnings }: Deployed) -> Updated {
    Updated { function_id, image_id, version, message: format!("Function '{name}' runs version {version}"), warnings }
}

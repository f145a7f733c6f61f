//! Handlers that show and change a function's settings.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State as Extract};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::functions::{FunctionBody, shown};
use crate::config::Secret;
use crate::domain::FunctionId;
use crate::http::State;
use crate::http::body::json::{BodyError, JsonBody};
use crate::http::body::settings::{ChangeBody, ShownSettings};
use crate::http::openapi::{AnyRoute, FunctionResponses, SettingsResponses, WithBody};
use crate::http::problem::Problem;

const NOT_A_CHANGE: &str = "the body is not a JSON object with any of `name` (a text), `memory`, `cpus`, `timeout`, \
                            `concurrency`, `keepWarm`, `preload`, `network`, `http`, `notify`, `environment` and \
                            `secrets` (objects), and nothing else";

/// A function with its own settings.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FunctionWithSettings)]
pub(in crate::http) struct Configured {
    #[serde(flatten)]
    function: FunctionBody,
    settings: ShownSettings,
    /// The key that the function's notifications are signed by from now on. Absent unless this request has made the
    /// key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_...")]
    notify_secret: Option<String>,
}

/// Settings
#[utoipa::path(get, path = "/api/functions/{id}/settings", tag = "functions", operation_id = "getFunctionSettings",
    params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = ShownSettings, description = "The function's own settings"), AnyRoute,
        FunctionResponses))]
pub(in crate::http) async fn settings(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<ShownSettings>, Problem> {
    let id: FunctionId = id?.parse()?;
    let function = state.function(id)?;
    Ok(Json(ShownSettings::of(&function, state.preload)))
}

/// Configure
///
/// Changes a function's name, limits, network, notifications, environment and secrets, as a merge patch (RFC 7396): a
/// setting that is absent stays, and null removes a setting. Other limits and another network take effect when an
/// instance with these waits.
#[utoipa::path(patch, path = "/api/functions/{id}", tag = "functions", operation_id = "configureFunction",
    params(("id" = Uuid, Path, description = "The function's id")),
    request_body = ChangeBody,
    responses((status = 200, body = Configured, description = "The function as it is now"), AnyRoute, FunctionResponses,
        WithBody, SettingsResponses))]
pub(in crate::http) async fn configure(
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
    let (function, deployed) = state.deployer.configure(id, name, settings).await?;
    Ok(Json(Configured {
        function: shown(&function),
        settings: ShownSettings::of(&function, state.preload),
        notify_secret: deployed.notify_secret.map(|Secret(key)| key),
    }))
}

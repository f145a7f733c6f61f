//! The handler that lists a function's versions.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::FunctionId;
use crate::http::State;
use crate::http::openapi::{AnyRoute, FunctionResponses};
use crate::http::problem::Problem;

/// A version of a function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Version {
    /// The version's number, from 1 on.
    version: u32,
    /// Whether the function runs this version.
    is_current: bool,
    /// `python` or `golang`.
    language: &'static str,
    /// The time of the submit or update, in Unix seconds.
    created_at: u64,
    /// The size of the version's zip, in bytes.
    zip_bytes: u64,
    /// The SHA-256 of the version's zip, in hexadecimal.
    zip_sha256: String,
}

/// List versions
///
/// The versions that the platform keeps, the last first.
#[utoipa::path(get, path = "/api/functions/{id}/versions", tag = "functions", operation_id = "listVersions",
    params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = Vec<Version>, description = "The function's versions"), AnyRoute,
        FunctionResponses))]
pub(in crate::http) async fn list(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<Version>>, Problem> {
    let id: FunctionId = id?.parse()?;
    let function = state.function(id)?;
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

//! Handlers that list and show a function's versions, and send their code.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::domain::{FunctionId, VersionId, VersionRecord};
use crate::http::State;
use crate::http::openapi::{AnyRoute, FunctionResponses};
use crate::http::problem::{Problem, ProblemBody};

/// The size of the pieces in which code leaves, in bytes.
const PIECE: usize = 64 << 10;

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

/// A version of a function, with the log of its build.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct VersionWithLog {
    #[serde(flatten)]
    version: Version,
    /// The file that is run; null for a compiled program.
    entry: Option<String>,
    /// What the last build of the version has said, or the end of that.
    build_log: String,
}

/// The further answers of a route about one version.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum VersionResponses {
    /// There is no such function (`function_not_found`), or the function has no such version any more
    /// (`version_not_found`).
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
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
    Ok(Json(versions.map(|record| shown(record, function.version.id.number)).collect()))
}

/// Show a version
#[utoipa::path(get, path = "/api/functions/{id}/versions/{number}", tag = "functions", operation_id = "getVersion",
    params(("id" = Uuid, Path, description = "The function's id"),
        ("number" = u32, Path, description = "The version's number")),
    responses((status = 200, body = VersionWithLog, description = "The version"), AnyRoute, VersionResponses))]
pub(in crate::http) async fn show(
    Extract(state): Extract<State>,
    place: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<VersionWithLog>, Problem> {
    let id = version_id(place)?;
    let function = state.function(id.function)?;
    let (mut record, build_log) = state.deployer.version(id).await?;
    let entry = record.entry.take();
    Ok(Json(VersionWithLog { version: shown(record, function.version.id.number), entry, build_log }))
}

/// Get a version's code
///
/// The zip, as a client has sent the zip.
#[utoipa::path(get, path = "/api/functions/{id}/versions/{number}/code", tag = "functions",
    operation_id = "getVersionCode",
    params(("id" = Uuid, Path, description = "The function's id"),
        ("number" = u32, Path, description = "The version's number")),
    responses((status = 200, description = "The zip", content((Vec<u8> = "application/zip"))), AnyRoute,
        VersionResponses))]
pub(in crate::http) async fn code(
    Extract(state): Extract<State>,
    place: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let id = version_id(place)?;
    let function = state.function(id.function)?;
    let (record, _) = state.deployer.version(id).await?;
    // The zip counts as a request's body does, until its last piece leaves.
    let mut share = state.budget.share();
    share.take(record.zip_size)?;
    let zip = Bytes::from(state.deployer.code(id).await?);
    // A name has no quote and no backslash.
    let file = format!("attachment; filename=\"{}-{}.zip\"", function.name, id.number);
    let head = [
        (CONTENT_TYPE, "application/zip".to_owned()),
        (CONTENT_DISPOSITION, file),
        (CONTENT_LENGTH, zip.len().to_string()),
    ];
    let pieces = stream::unfold((zip, share), async |(mut rest, share)| {
        let piece = rest.split_to(PIECE.min(rest.len()));
        (!piece.is_empty()).then_some((Ok::<_, std::io::Error>(piece), (rest, share)))
    });
    Ok((head, Body::from_stream(pieces)).into_response())
}

/// The version that a path means. A text that is no number means a version that no function has.
fn version_id(place: Result<Path<(String, String)>, PathRejection>) -> Result<VersionId, Problem> {
    let Path((function, number)) = place?;
    let function: FunctionId = function.parse()?;
    match number.parse() {
        Ok(number) => Ok(VersionId { function, number }),
        Err(_) => Err(Problem::invalid_request(format!("{number:?} is not the number of a version"))),
    }
}

fn shown(record: VersionRecord, current: u32) -> Version {
    Version {
        version: record.number,
        is_current: record.number == current,
        language: record.language.as_str(),
        created_at: record.created_at,
        zip_bytes: record.zip_size,
        zip_sha256: record.zip_sha256,
    }
}

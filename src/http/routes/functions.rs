//! Handlers that list, show and delete functions, and list instances.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::FunctionId;
use crate::functions::Function;
use crate::http::State;
use crate::http::openapi::{AnyRoute, FunctionResponses};
use crate::http::problem::Problem;

/// A function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Function)]
pub(in crate::http) struct FunctionBody {
    /// The id by which clients execute the function.
    #[schema(format = Uuid)]
    function_id: String,
    /// The id of the function's image in Docker.
    #[schema(example = "sha256:...")]
    image_id: String,
    /// `python` or `golang`.
    language: &'static str,
    /// The time of the submit, in Unix seconds.
    created_at: u64,
    /// The time of the last execution, in Unix seconds. Absent until the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_executed: Option<u64>,
    /// The function's name, which other functions may share.
    name: String,
    /// The number of the version that runs.
    version: u32,
}

/// A deleted function.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Deleted {
    /// A sentence for people.
    message: String,
}

/// List
#[utoipa::path(get, path = "/api/functions", tag = "functions", operation_id = "listFunctions",
    responses((status = 200, body = Vec<FunctionBody>, description = "All functions"), AnyRoute))]
pub(in crate::http) async fn list(Extract(state): Extract<State>) -> Result<Json<Vec<FunctionBody>>, Problem> {
    state.nodes.check()?;
    Ok(Json(state.registry.list().iter().map(|function| shown(function)).collect()))
}

/// The instances of a function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Instances {
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
/// The number of instances of each function that has any.
#[utoipa::path(get, path = "/api/instances", tag = "functions", operation_id = "listInstances",
    responses((status = 200, body = Vec<Instances>, description = "Counts of instances by function"), AnyRoute))]
pub(in crate::http) async fn instances(Extract(state): Extract<State>) -> Json<Vec<Instances>> {
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
#[utoipa::path(get, path = "/api/functions/{id}", tag = "functions", operation_id = "getFunction", params(("id" = Uuid,
    Path, description = "The function's id")),
    responses((status = 200, body = FunctionBody, description = "The function"), AnyRoute, FunctionResponses))]
pub(in crate::http) async fn show(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<FunctionBody>, Problem> {
    let id: FunctionId = id?.parse()?;
    let function = state.function(id)?;
    Ok(Json(shown(&function)))
}

/// Delete
///
/// Executions under way go on to their end. Then the function's containers and image are removed.
#[utoipa::path(delete, path = "/api/functions/{id}", tag = "functions", operation_id = "deleteFunction",
    params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = Deleted, description = "The function is deleted"), AnyRoute, FunctionResponses))]
pub(in crate::http) async fn delete(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Deleted>, Problem> {
    let id: FunctionId = id?.parse()?;
    state.deployer.delete(id).await?;
    Ok(Json(Deleted { message: format!("Function {id} deleted successfully") }))
}

pub(in crate::http) fn shown(function: &Function) -> FunctionBody {
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

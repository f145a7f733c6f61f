//! Handlers that list, show and delete functions, and list instances.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State as Extract};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::FunctionId;
use crate::functions::Function;
use crate::http::State;
use crate::http::openapi::{AnyRoute, FunctionResponses};
use crate::http::problem::Problem;
use crate::sandbox::pool::Usage;
use crate::tokens::Access;

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
///
/// A token that is for some functions lists these.
#[utoipa::path(get, path = "/api/functions", tag = "functions", operation_id = "listFunctions",
    responses((status = 200, body = Vec<FunctionBody>, description = "All functions"), AnyRoute))]
pub(in crate::http) async fn list(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
) -> Result<Json<Vec<FunctionBody>>, Problem> {
    state.nodes.check()?;
    let functions = state.registry.list();
    let seen = functions.iter().filter(|function| access.sees(function.id));
    Ok(Json(seen.map(|function| shown(function)).collect()))
}

/// The instances of a function on this node, and what DOCKER_CONTAINER_LIMIT costs the function.
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
    /// Instances that ended within the last hour for lack of room.
    evictions_last_hour: u32,
    /// Starts of the last hour for which a caller waited, and which would not have been needed with a higher limit.
    cold_starts_after_eviction: u32,
    /// The average memory of an idle instance, in bytes. Absent where there is none, or where the service does not see
    /// the counters of the kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    idle_memory_bytes: Option<u64>,
}

impl Instances {
    /// Reads files of the kernel.
    fn of(usage: &Usage) -> Self {
        let [starting, idle, busy] = usage.counts;
        Self {
            function_id: usage.function.to_string(),
            starting,
            idle,
            busy,
            evictions_last_hour: usage.cost.evictions,
            cold_starts_after_eviction: usage.cost.starts,
            idle_memory_bytes: usage.idle_memory(),
        }
    }
}

/// Instances
///
/// The number of instances of each function that has any on this node, or that has had an instance evicted within the
/// last hour.
#[utoipa::path(get, path = "/api/instances", tag = "functions", operation_id = "listInstances",
    responses((status = 200, body = Vec<Instances>, description = "Instances by function"), AnyRoute))]
pub(in crate::http) async fn instances(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
) -> Result<Json<Vec<Instances>>, Problem> {
    let mut usage = state.pool.usage();
    usage.retain(|usage| access.sees(usage.function));
    // The counts of a deleted function are of no use to clients.
    usage.retain(|usage| usage.counts != [0; 3] || state.registry.get(usage.function).is_some());
    let shown = tokio::task::spawn_blocking(move || usage.iter().map(Instances::of).collect());
    Ok(Json(shown.await?))
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

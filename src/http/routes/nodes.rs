//! The handler that lists the nodes.

use axum::Json;
use axum::extract::State as Extract;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::State;
use crate::http::openapi::AnyRoute;
use crate::http::problem::Problem;

/// A process that serves this platform.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Node {
    /// The node's id, which stays at a new start.
    id: String,
    /// NODE_URL: where other nodes reach the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    url: Option<String>,
    /// The version of the program.
    version: String,
    /// The time of the node's last heartbeat, in Unix seconds.
    seen_at: u64,
    /// The number of the node's instances.
    instances: u32,
    /// Whether the node executes functions.
    ready: bool,
}

/// List nodes
///
/// The nodes that share the platform's database, this one included. A node that is gone is listed for an hour.
#[utoipa::path(get, path = "/api/nodes", tag = "service", operation_id = "listNodes",
    responses((status = 200, body = Vec<Node>, description = "The nodes"), AnyRoute))]
pub(in crate::http) async fn list(Extract(state): Extract<State>) -> Result<Json<Vec<Node>>, Problem> {
    Ok(Json(shown(&state).await?))
}

pub(super) async fn shown(state: &State) -> Result<Vec<Node>, Problem> {
    let nodes = state.nodes.list().await?.into_iter().map(|node| {
        let is_this = node.run == state.nodes.run();
        let instances = u32::try_from(state.pool.instances()).unwrap_or(u32::MAX);
        let is_ready = state.health.trouble().is_none() && state.nodes.check().is_ok();
        Node {
            id: node.id,
            url: node.url,
            version: node.version,
            seen_at: node.seen_at / 1000,
            instances: if is_this { instances } else { node.instances },
            ready: if is_this { is_ready } else { node.is_ready && node.is_live },
        }
    });
    Ok(nodes.collect())
}

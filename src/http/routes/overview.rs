//! The handler that shows how the platform does: once, or as a stream of what changes.

mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, State as Extract};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::executions::milliseconds;
use super::invocations::{Summary, summary};
use super::{health, nodes};
use crate::domain::{Outcome, Page};
use crate::http::openapi::AnyRoute;
use crate::http::problem::Problem;
use crate::http::{State, sse};
use crate::resources::clock;
use crate::telemetry::minutes;
use crate::tokens::Access;
use watch::Watch;

/// The largest number of failures, and of runs to come.
const MOST: u32 = 5;

/// How the platform does.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct Overview {
    #[serde(flatten)]
    now: Now,
    #[serde(flatten)]
    rest: Rest,
}

/// What is in memory.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Now {
    health: health::Body,
    /// The number of functions.
    functions: usize,
    /// The number of this node's containers in each phase.
    #[schema(value_type = Object)]
    instances: BTreeMap<&'static str, usize>,
    /// The port on which functions answer requests over HTTP. Null without FUNCTIONS_PORT.
    functions_port: Option<u16>,
    /// FUNCTIONS_DOMAIN, below which each function has a host of its own.
    functions_domain: Option<String>,
    /// DOCKER_CONTAINER_LIMIT.
    container_limit: u32,
    /// Executions that wait for an instance of this node.
    waiting: usize,
    /// Asynchronous executions that wait for their turn on this node.
    queued: usize,
    /// Starts of the last hour that would not have been needed with a higher DOCKER_CONTAINER_LIMIT.
    cold_starts_after_eviction: u32,
    /// This node's invocations of the last hour, minute by minute, the oldest first. Minutes without any are left out.
    minutes: Vec<Minute>,
}

/// What is not in memory.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Rest {
    /// The last invocations that failed.
    last_failures: Vec<Summary>,
    /// The next slots of schedules.
    next_runs: Vec<NextRun>,
    nodes: Vec<nodes::Node>,
    disks: Vec<Disk>,
}

/// What invocations came to within a minute.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Minute {
    /// The beginning of the minute, in Unix seconds.
    at: u64,
    /// The number of invocations that ended.
    invocations: u32,
    /// The number of these that failed.
    failures: u32,
    /// The number of these that waited for a container to start.
    cold_starts: u32,
    /// The duration that half of the invocations do not exceed, right to 9 percent.
    p50_ms: f64,
    /// The duration that 99 percent of the invocations do not exceed, right to 9 percent.
    p99_ms: f64,
}

/// A slot of a schedule that comes.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct NextRun {
    #[schema(format = Uuid)]
    function_id: String,
    /// The schedule's name.
    schedule: String,
    /// The slot, in Unix seconds.
    at: u64,
}

/// A disk that submits write to.
#[derive(Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Disk {
    /// The variable that names the folder, or `Docker`.
    place: &'static str,
    free_bytes: u64,
    /// MIN_FREE_DISK: below that, submits are refused.
    floor_bytes: u64,
}

/// Overview
///
/// How the platform does, as this node sees the platform. With `accept: text/event-stream` the answer is a stream of
/// events for as long as the client listens: `overview` has the overview whenever the overview changes, at most once a
/// second; `functions` has the functions that are new or changed, with the number of their instances in `warm`, and
/// the ids in `gone` of functions that are gone. A token that is for some functions gets only events about these.
#[utoipa::path(get, path = "/api/overview", tag = "service", operation_id = "getOverview",
    responses((status = 200, body = Overview, description = "The overview"), AnyRoute))]
pub(in crate::http) async fn show(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if sse::are_wanted(&headers) {
        return Ok(sse::answer(Watch::new(state, access).events()));
    }
    access.check_unlimited()?;
    let rest = rest_of(&state).await?;
    Ok(Json(Overview { now: now(&state), rest }).into_response())
}

fn now(state: &State) -> Now {
    let (instances, waiting) = state.pool.counts();
    Now {
        health: health::shown(state, true),
        functions: state.registry.len(),
        instances: instances.into_iter().collect(),
        functions_port: state.functions_port,
        functions_domain: state.functions_domain.clone(),
        container_limit: state.containers,
        waiting,
        queued: state.deferred.waiting(),
        cold_starts_after_eviction: state.pool.usage().iter().map(|usage| usage.cost.starts).sum(),
        minutes: minutes::last_hour(clock::unix_seconds()).iter().map(Minute::of).collect(),
    }
}

async fn rest_of(state: &State) -> Result<Rest, Problem> {
    let failed = Page { outcomes: Outcome::FAILED.to_vec(), ..Page::last(MOST) };
    let failures = state.history.list(&failed).await?;
    let next = state.schedules.next(MOST).await?;
    let floor_bytes = state.disks.floor();
    let disks = state.disks.all().await.into_iter();
    Ok(Rest {
        last_failures: failures.iter().map(|(_, record)| summary(record)).collect(),
        next_runs: next
            .into_iter()
            .map(|due| NextRun {
                function_id: due.function_id.to_string(),
                schedule: due.name.to_string(),
                at: due.slot,
            })
            .collect(),
        nodes: nodes::shown(state).await?,
        disks: disks.map(|(place, free_bytes)| Disk { place, free_bytes, floor_bytes }).collect(),
    })
}

impl Minute {
    fn of(minute: &minutes::Minute) -> Self {
        let ms = |part| milliseconds(minute.percentile(part).unwrap_or(Duration::ZERO));
        Self {
            at: minute.number * 60,
            invocations: minute.invocations,
            failures: minute.failures,
            cold_starts: minute.cold_starts,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        }
    }
}

//! Handlers that list invocations: those of a function, and those of all functions.

mod begins;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::invocations::{Summary, summary};
use crate::domain::{FunctionId, Outcome, Page, Place, TriggerKind, UnknownName};
use crate::http::openapi::{AnyRoute, FunctionResponses};
use crate::http::problem::Problem;
use crate::http::{State, sse};
use crate::tokens::Access;
use begins::Begins;

/// The largest number of invocations in an answer.
const MAX_LIMIT: u32 = 500;
/// The latest time that a client may name, in Unix seconds: some three thousand years from now.
const MAX_TIME: u64 = 100_000_000_000;
/// What stands for all outcomes of invocations that failed.
const FAILED: &str = "failed";

/// A part of the history, the last invocation first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct History {
    invocations: Vec<Summary>,
    /// The cursor of the next part. Absent in the last part.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next_cursor: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct HistoryQuery {
    /// The largest number of invocations in the answer.
    #[param(nullable = false, minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// The `nextCursor` of the previous part.
    #[param(nullable = false, pattern = "^[0-9]{1,18}-[0-9]{1,18}$")]
    cursor: Option<String>,
    /// An outcome, or `failed` for all outcomes of invocations that failed: the answer has only such invocations.
    #[param(
        nullable = false,
        pattern = "^(failed|queued|running|cancelled|lost|ok|exit|signal|out_of_memory|timeout)$"
    )]
    outcome: Option<String>,
    /// `api`, `http`, `schedule` or `schedule:NAME`: the answer has only invocations that were begun by that.
    #[param(nullable = false, pattern = "^(api|http|schedule(:[A-Za-z0-9][A-Za-z0-9._-]{0,62})?)$")]
    trigger: Option<String>,
    /// A time in Unix seconds: the answer has only invocations from then on.
    #[param(nullable = false, minimum = 0, maximum = 100_000_000_000_u64)]
    since: Option<u64>,
    /// A time in Unix seconds: the answer has only invocations before that.
    #[param(nullable = false, minimum = 0, maximum = 100_000_000_000_u64)]
    until: Option<u64>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct FunctionQuery {
    /// A function's name or id. A name stands for all functions of that name.
    #[param(nullable = false)]
    function: Option<String>,
}

/// A function's history
///
/// With `accept: text/event-stream` the answer is a stream for as long as the client listens: `listening` comes first;
/// `began` has the `invocationId` of each invocation that begins from then on, and of those that run or wait at that
/// time. The query counts for nothing then.
#[utoipa::path(get, path = "/api/functions/{id}/invocations", tag = "invocations", operation_id = "listInvocations",
    params(("id" = Uuid, Path, description = "The function's id"), HistoryQuery),
    responses((status = 200, body = History, description = "A part of the history"), AnyRoute, FunctionResponses))]
pub(in crate::http) async fn of_function(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
    part: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let id: FunctionId = id?.parse()?;
    state.function(id)?;
    if sse::are_wanted(&headers) {
        return Ok(sse::answer(Begins::new(state, access, id).events()));
    }
    Ok(part_of(&state, Some(vec![id]), part).await?.into_response())
}

/// The history of all functions
///
/// A token that is for some functions sees the invocations of these.
#[utoipa::path(get, path = "/api/invocations", tag = "invocations", operation_id = "listAllInvocations",
    params(FunctionQuery, HistoryQuery),
    responses((status = 200, body = History, description = "A part of the history"), AnyRoute, FunctionResponses))]
pub(in crate::http) async fn of_all(
    Extract(state): Extract<State>,
    Extension(access): Extension<Access>,
    of: Result<Query<FunctionQuery>, QueryRejection>,
    part: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<History>, Problem> {
    state.nodes.check()?;
    let Query(of) = of.map_err(|error| Problem::invalid_request(error.body_text()))?;
    let functions = match of.function {
        Some(name) => Some(named(&state, &access, name)?),
        None => access.functions().map(|functions| functions.iter().copied().collect()),
    };
    part_of(&state, functions, part).await
}

/// The functions that a client means by a name or an id.
fn named(state: &State, access: &Access, name: String) -> Result<Vec<FunctionId>, Problem> {
    if let Ok(id) = name.parse::<FunctionId>() {
        access.check_function(id)?;
        return Ok(vec![state.function(id)?.id]);
    }
    let all = state.registry.list();
    let found = all.iter().filter(|function| function.name.as_str() == name && access.sees(function.id));
    let found: Vec<FunctionId> = found.map(|function| function.id).collect();
    if found.is_empty() { Err(UnknownName(name).into()) } else { Ok(found) }
}

async fn part_of(
    state: &State,
    functions: Option<Vec<FunctionId>>,
    part: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<History>, Problem> {
    let Query(part) = part.map_err(|error| Problem::invalid_request(error.body_text()))?;
    let limit = part.limit.unwrap_or(50);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::invalid_request(format!("`limit` is {limit}; it can be 1 to {MAX_LIMIT}")));
    }
    let not_a_cursor = || Problem::invalid_request("`cursor` is not the `nextCursor` of an earlier answer");
    let before = part.cursor.map(|cursor| Place::parse(&cursor).ok_or_else(not_a_cursor)).transpose()?;
    let (outcomes, trigger) = (outcomes(part.outcome)?, trigger(part.trigger)?);
    let (since, until) = (millis("since", part.since)?, millis("until", part.until)?);
    // One more tells whether there is a next part.
    let page = Page { functions, before, outcomes, trigger, since, until, limit: limit + 1 };
    let mut found = state.history.list(&page).await?;
    let has_more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| has_more).map(|(place, _)| place.to_string());
    Ok(Json(History { invocations: found.into_iter().map(|(_, record)| summary(&record)).collect(), next_cursor }))
}

/// A time in Unix milliseconds, from seconds.
fn millis(name: &str, seconds: Option<u64>) -> Result<Option<u64>, Problem> {
    match seconds {
        Some(seconds) if seconds > MAX_TIME => {
            Err(Problem::invalid_request(format!("`{name}` is {seconds}; it is a time in Unix seconds")))
        }
        seconds => Ok(seconds.map(|seconds| seconds * 1000)),
    }
}

fn outcomes(name: Option<String>) -> Result<Vec<Outcome>, Problem> {
    let Some(name) = name else { return Ok(Vec::new()) };
    if name == FAILED {
        return Ok(Outcome::FAILED.to_vec());
    }
    Outcome::from_name(&name).map(|outcome| vec![outcome]).ok_or_else(|| {
        let names = Outcome::ALL.map(Outcome::name).join(", ");
        Problem::invalid_request(format!("`outcome` is {name:?}; it can be {FAILED}, {names}"))
    })
}

fn trigger(name: Option<String>) -> Result<Option<TriggerKind>, Problem> {
    let Some(name) = name else { return Ok(None) };
    let kind = TriggerKind::from_name(&name).ok_or_else(|| {
        Problem::invalid_request(format!("`trigger` is {name:?}; it can be api, http, schedule or schedule:NAME"))
    });
    kind.map(Some)
}

//! Handlers of a function's schedules.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoResponses, ToSchema};

use super::executions::{Accepted, input_schema};
use crate::domain::{FunctionId, Missed, Outcome, Overlap, ScheduleName};
use crate::http::State;
use crate::http::body::json::{BodyError, JsonBody};
use crate::http::openapi::{AnyRoute, FunctionResponses, WithBody};
use crate::http::problem::{Problem, ProblemBody};
use crate::invocations::input::{Input, Object};
use crate::schedules::{Request, Shown};

/// What is asked of a schedule.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ScheduleDefinition)]
pub(in crate::http) struct DefinitionBody {
    /// Five fields as in crontab(5): minute, hour, day of month, month, day of week. Or `@hourly`, `@daily`,
    /// `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.
    #[schema(example = "0 3 * * *")]
    cron: String,
    /// A time zone of the IANA database. The default is `UTC`. Null is the default, here and in the other fields.
    #[schema(example = "Europe/Berlin")]
    timezone: Option<String>,
    /// The input of each run. The default is `{}`.
    #[schema(schema_with = input_schema)]
    input: Option<Object>,
    /// False for a schedule that pauses. The default is true.
    enabled: Option<bool>,
    /// `skip` (default): a slot is skipped while an earlier run has not ended. `queue`: the run is accepted and waits.
    #[schema(pattern = "^(skip|queue)$")]
    overlap: Option<String>,
    /// `skip` (default): slots that no node has begun within a minute are forgotten. `once`: one run makes up for them.
    #[schema(pattern = "^(skip|once)$")]
    missed: Option<String>,
}

/// A schedule of a function.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Schedule)]
pub(in crate::http) struct ScheduleBody {
    #[schema(format = Uuid)]
    function_id: String,
    name: String,
    cron: String,
    timezone: String,
    #[schema(value_type = Object)]
    input: Option<Box<RawValue>>,
    enabled: bool,
    /// `skip` or `queue`.
    overlap: &'static str,
    /// `skip` or `once`.
    missed: &'static str,
    /// Whether the schedule is one of the version's function.toml, and goes with the version.
    declared: bool,
    /// The next slot, in Unix seconds; null while the schedule pauses.
    next_at: Option<u64>,
    /// The next five slots, in Unix seconds; empty while the schedule pauses.
    upcoming: Vec<u64>,
    /// The last run; null before the first.
    #[schema(format = Uuid)]
    last_invocation_id: Option<String>,
    /// What the last run came to, or how far the run is.
    last_outcome: Option<&'static str>,
    /// The last slot that had no run; null where each had one.
    last_skipped: Option<SkippedBody>,
}

/// A slot without a run.
#[derive(Serialize, ToSchema)]
#[schema(as = SkippedSlot)]
pub(in crate::http) struct SkippedBody {
    /// The slot, in Unix seconds. Of several that were missed together, the first.
    slot: u64,
    /// `overlap`: an earlier run had not ended. `missed`: no node has begun the slot in time.
    reason: &'static str,
}

/// A deleted schedule.
#[derive(Serialize, ToSchema)]
pub(in crate::http) struct DeletedSchedule {
    /// A sentence for people.
    message: String,
}

/// The further answers of a route about one schedule.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum ScheduleResponses {
    /// There is no such function (`function_not_found`), or the function has no such schedule (`schedule_not_found`).
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(ProblemBody<'static>),
}

/// The further answers of a route that makes a schedule.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only its derived description is used")]
enum PutResponses {
    /// The request is not valid: `invalid_request`; or the name, the times, the zone or a policy can't be one:
    /// `invalid_schedule`; or the function does not take the input: `invalid_input`.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(ProblemBody<'static>),
    /// The function has 20 schedules already: `too_many_schedules`.
    #[response(status = 409, content_type = "application/problem+json")]
    TooMany(ProblemBody<'static>),
}

/// Make or replace a schedule
///
/// The function runs at the times of the schedule, each time as an accepted asynchronous execution.
#[utoipa::path(put, path = "/api/functions/{id}/schedules/{name}", tag = "schedules", operation_id = "putSchedule",
    params(("id" = Uuid, Path, description = "The function's id"),
        ("name" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description = "The schedule's name")),
    request_body = DefinitionBody,
    responses((status = 200, body = ScheduleBody, description = "The schedule"), AnyRoute, FunctionResponses, WithBody,
        PutResponses))]
pub(in crate::http) async fn put(
    Extract(state): Extract<State>,
    path: Result<Path<(String, String)>, PathRejection>,
    body: Result<JsonBody<DefinitionBody>, BodyError>,
) -> Result<Json<ScheduleBody>, Problem> {
    let (id, name) = parsed(path)?;
    let JsonBody(body) = body?;
    let function = state.function(id)?;
    let request = Request {
        cron: body.cron,
        timezone: body.timezone.unwrap_or_else(|| "UTC".to_owned()),
        input: Input::parse(body.input.unwrap_or_default())?.within(state.budget.share())?,
        is_enabled: body.enabled.unwrap_or(true),
        overlap: policy("overlap", body.overlap, Overlap::from_name, "`skip` or `queue`")?,
        missed: policy("missed", body.missed, Missed::from_name, "`skip` or `once`")?,
    };
    Ok(Json(shown(state.schedules.put(function.id, &name, request).await?)))
}

/// A schedule
#[utoipa::path(get, path = "/api/functions/{id}/schedules/{name}", tag = "schedules", operation_id = "getSchedule",
    params(("id" = Uuid, Path, description = "The function's id"),
        ("name" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description = "The schedule's name")),
    responses((status = 200, body = ScheduleBody, description = "The schedule"), AnyRoute, ScheduleResponses))]
pub(in crate::http) async fn show(
    Extract(state): Extract<State>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<ScheduleBody>, Problem> {
    let (id, name) = parsed(path)?;
    state.function(id)?;
    Ok(Json(shown(state.schedules.get(id, &name).await?)))
}

/// A function's schedules
#[utoipa::path(get, path = "/api/functions/{id}/schedules", tag = "schedules", operation_id = "listSchedules",
    params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = Vec<ScheduleBody>, description = "The schedules, by their names"), AnyRoute,
        FunctionResponses))]
pub(in crate::http) async fn list(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<ScheduleBody>>, Problem> {
    let id: FunctionId = id?.parse()?;
    state.function(id)?;
    Ok(Json(state.schedules.list(id).await?.into_iter().map(shown).collect()))
}

/// Delete a schedule
///
/// Runs that were accepted go on.
#[utoipa::path(delete, path = "/api/functions/{id}/schedules/{name}", tag = "schedules",
    operation_id = "deleteSchedule",
    params(("id" = Uuid, Path, description = "The function's id"),
        ("name" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description = "The schedule's name")),
    responses((status = 200, body = DeletedSchedule, description = "The schedule is deleted"), AnyRoute,
        ScheduleResponses))]
pub(in crate::http) async fn delete(
    Extract(state): Extract<State>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<DeletedSchedule>, Problem> {
    let (id, name) = parsed(path)?;
    state.function(id)?;
    state.schedules.delete(id, &name).await?;
    Ok(Json(DeletedSchedule { message: format!("Schedule {name} of function {id} deleted successfully") }))
}

/// Run now
///
/// Accepts a run apart from the slots, whether the schedule pauses or not, as `prefer: respond-async` does for an
/// execution.
#[utoipa::path(post, path = "/api/functions/{id}/schedules/{name}/run", tag = "schedules",
    operation_id = "runSchedule",
    params(("id" = Uuid, Path, description = "The function's id"),
        ("name" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", description = "The schedule's name")),
    responses((status = 202, body = Accepted, description = "The run is on disk; `location` has its address"), AnyRoute,
        ScheduleResponses))]
pub(in crate::http) async fn run(
    Extract(state): Extract<State>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, Problem> {
    let (id, name) = parsed(path)?;
    state.function(id)?;
    let span = tracing::Span::current();
    span.record("function.id", tracing::field::display(id));
    let id = state.schedules.run(id, &name).await?;
    span.record("invocation.id", tracing::field::display(id));
    let place = [(LOCATION, format!("/api/invocations/{id}"))];
    Ok((StatusCode::ACCEPTED, place, Json(Accepted::new(id, Outcome::Queued))).into_response())
}

fn parsed(path: Result<Path<(String, String)>, PathRejection>) -> Result<(FunctionId, ScheduleName), Problem> {
    let Path((id, name)) = path?;
    Ok((id.parse()?, name.parse()?))
}

fn policy<T: Default>(
    field: &str,
    name: Option<String>,
    from_name: fn(&str) -> Option<T>,
    names: &str,
) -> Result<T, Problem> {
    let Some(name) = name else { return Ok(T::default()) };
    let name: String = name.chars().take(64).collect();
    from_name(&name).ok_or_else(|| Problem::invalid_schedule(format!("`{field}` is {name:?}; it can be {names}")))
}

fn shown(Shown { schedule, upcoming }: Shown) -> ScheduleBody {
    let definition = schedule.definition;
    let input = String::from_utf8(definition.input.to_vec()).ok();
    ScheduleBody {
        function_id: schedule.function_id.to_string(),
        name: schedule.name.to_string(),
        cron: definition.cron,
        timezone: definition.timezone,
        input: input.and_then(|json| RawValue::from_string(json).ok()),
        enabled: definition.is_enabled,
        overlap: definition.overlap.name(),
        missed: definition.missed.name(),
        declared: schedule.is_declared,
        next_at: schedule.next_at,
        upcoming,
        last_invocation_id: schedule.last_invocation.map(|id| id.to_string()),
        last_outcome: schedule.last_outcome.map(Outcome::name),
        last_skipped: schedule
            .last_skipped
            .map(|skipped| SkippedBody { slot: skipped.slot, reason: skipped.reason.name() }),
    }
}

//! The handler that lists a function's notifications.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::settings::notify::Event;
use crate::domain::{Delivery, FunctionId, WebhookId};
use crate::http::State;
use crate::http::openapi::{AnyRoute, FunctionResponses};
use crate::http::problem::Problem;

/// A notification, and how far its delivery is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Notification {
    #[schema(format = Uuid)]
    invocation_id: String,
    /// The value of `webhook-id`, the same in each try.
    #[schema(example = "msg_123e4567-e89b-42d3-a456-426614174000")]
    webhook_id: String,
    /// `invocation.failed` or `invocation.succeeded`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// `pending`, `delivered`, or `failed` where no further try comes.
    state: &'static str,
    /// The number of tries so far, one that is under way included.
    tries: u32,
    /// The time of the invocation's end, in Unix seconds.
    ended_at: u64,
    /// The time of the last try, in Unix seconds; null before the first.
    last_try_at: Option<u64>,
    /// The time of the next try, in Unix seconds; null where no further try comes.
    next_try_at: Option<u64>,
    /// The HTTP status of the receiver's answer to the last try; null without an answer.
    last_status: Option<u16>,
    /// Why the last try has failed, in words; null for none.
    last_error: Option<String>,
}

impl From<Delivery> for Notification {
    fn from(delivery: Delivery) -> Self {
        Self {
            invocation_id: delivery.invocation_id.to_string(),
            webhook_id: WebhookId(delivery.invocation_id).to_string(),
            // The store has no notification of another outcome.
            kind: Event::of(delivery.outcome).unwrap_or(Event::Failure).kind(),
            state: delivery.state.name(),
            tries: delivery.tries,
            ended_at: delivery.ended_at / 1000,
            last_try_at: delivery.last_try_at.map(|millis| millis / 1000),
            next_try_at: delivery.next_try_at.map(|millis| millis / 1000),
            last_status: delivery.last_status,
            last_error: delivery.last_error,
        }
    }
}

/// List notifications
///
/// The last 50 notifications of the function, the last first.
#[utoipa::path(get, path = "/api/functions/{id}/notifications", tag = "functions", operation_id = "listNotifications",
    params(("id" = Uuid, Path, description = "The function's id")),
    responses((status = 200, body = Vec<Notification>, description = "The function's notifications"), AnyRoute,
        FunctionResponses))]
pub(in crate::http) async fn list(
    Extract(state): Extract<State>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Vec<Notification>>, Problem> {
    let id: FunctionId = id?.parse()?;
    state.function(id)?;
    let notifications = state.notifications.list(id).await?;
    Ok(Json(notifications.into_iter().map(Notification::from).collect()))
}

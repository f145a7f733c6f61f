//! Notifications of the ends of invocations, and how far their delivery is.

use std::fmt;
use std::time::Duration;

use super::settings::notify::{Event, Notify};
use super::{FunctionId, InvocationId, Outcome, Trigger};

/// The end of an invocation, as the receiver of a notification learns of the end: neither input nor output.
#[derive(Clone, Debug, PartialEq)]
pub struct Notification {
    /// The invocation's id.
    pub invocation_id: InvocationId,
    /// The id of the function.
    pub function_id: FunctionId,
    /// The function's name at the time of the end.
    pub function_name: String,
    /// How the invocation ended.
    pub outcome: Outcome,
    /// The exit status, where there is one.
    pub exit_code: Option<i32>,
    /// The reason for an outcome other than `ok`, for people.
    pub error: Option<String>,
    /// What the invocation was begun by.
    pub trigger: Trigger,
    /// The number of the version that ran; None where the invocation did not begin.
    pub version: Option<u32>,
    /// The time of the beginning, in Unix milliseconds.
    pub executed_at: Option<u64>,
    /// The run time.
    pub duration: Option<Duration>,
    /// The time of the end by the clock of the store, in Unix milliseconds.
    pub ended_at: u64,
}

/// The id of a notification, the same in each try: a receiver that has seen the id has seen the notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WebhookId(pub InvocationId);

impl Notification {
    /// The notification's id.
    pub fn id(&self) -> WebhookId {
        WebhookId(self.invocation_id)
    }

    /// The event that the receiver is told of.
    pub fn event(&self) -> Event {
        // The store writes no notification of another outcome.
        Event::of(self.outcome).unwrap_or(Event::Failure)
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msg_{}", self.0)
    }
}

/// How far a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// The receiver is still to take the notification.
    Pending,
    /// The receiver has taken the notification.
    Delivered,
    /// No further try comes.
    Failed,
}

impl DeliveryState {
    /// All states.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The state's name in the API and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

/// The delivery of a notification, as clients see the delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The invocation's id.
    pub invocation_id: InvocationId,
    /// How the invocation ended.
    pub outcome: Outcome,
    /// The time of the end, in Unix milliseconds.
    pub ended_at: u64,
    /// How far the delivery is.
    pub state: DeliveryState,
    /// The number of tries.
    pub tries: u32,
    /// The time of the last try, in Unix milliseconds; None before the first.
    pub last_try_at: Option<u64>,
    /// The time of the next try, in Unix milliseconds; None where no further try comes.
    pub next_try_at: Option<u64>,
    /// The HTTP status of the last answer; None where the last try has got none.
    pub last_status: Option<u16>,
    /// Why the last try has failed, in words.
    pub last_error: Option<String>,
}

/// The next notification of a function that is to be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The invocation's id.
    pub invocation_id: InvocationId,
    /// The number of tries so far.
    pub tries: u32,
    /// The time until the next try; zero where the try is due.
    pub wait: Duration,
    /// The URL of the receiver; None where the function has no receiver any more.
    pub url: Option<String>,
}

/// A try of a delivery that belongs to this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    /// The notification.
    pub notification: Notification,
    /// The number of the try, from 1 on.
    pub attempt: u32,
    /// The time since the end of the invocation.
    pub age: Duration,
    /// The receiver; None where the function has no receiver any more.
    pub notify: Option<Notify>,
}

/// What a try of a delivery came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// How far the delivery is.
    pub state: DeliveryState,
    /// The HTTP status of the answer, where there was an answer.
    pub status: Option<u16>,
    /// Why the try has failed, in words; None where the receiver has taken the notification.
    pub error: Option<String>,
    /// The time until the next try, where the delivery is pending.
    pub pause: Duration,
}

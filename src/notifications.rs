//! Notifications: the ends of asynchronous invocations, told to the receivers that functions name, by the convention of
//! Standard Webhooks.
//!
//! ```text
//! end of an invocation ──one transaction──> outbox of the store ──claim──> a try ──> delivered
//!                                                └─────────── pause ─────────┴─────> failed, after a day
//! ```
//! A notification is in the store from the moment of the end. A try belongs to one node, by a claim in the store. A
//! node that dies frees its claims. So a notification reaches its receiver at least once, mostly once, and with one id.
//!
//! This folder knows no functions and no invocations: what is told is in the store's rows.

mod message;
mod post;
mod schedule;
mod signature;
mod turns;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::docker::health::Health;
use crate::docker::retry::Retries;
use crate::domain::{Claimed, Delivery, DeliveryState, FunctionId, Tried};
use crate::egress::Egress;
use crate::nodes::Membership;
use crate::resources::tls::Tls;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics;
use post::Failed;
use turns::{Turn, Turns};

/// The pause before a node whose lease has run out looks again, and between two looks for what other nodes have left.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
const LOOK_ELSEWHERE: Duration = Duration::from_secs(5);
/// The longest text of an error in the store, in characters.
const MAX_ERROR: usize = 500;

/// The HTTP status by which a receiver says that no further try is wanted.
const GONE: u16 = 410;

/// Delivers notifications, and lists the last ones.
#[derive(Debug)]
pub struct Notifier {
    store: Store,
    egress: Egress,
    nodes: Arc<Membership>,
    /// Made at the first need.
    tls: OnceCell<Tls>,
    /// Looks and claims that fail.
    looks: Retries,
    /// Results of tries that can't be written down.
    writes: Retries,
}

/// What wakes the notifier.
enum Event {
    /// A try has ended.
    Ended(Result<(Id, bool), JoinError>),
    /// A notification may be due.
    Due,
    Stop,
}

impl Notifier {
    /// A notifier, which does nothing yet. Receivers are reached by `egress`.
    pub fn new(store: Store, egress: Egress, nodes: Arc<Membership>) -> Arc<Self> {
        Arc::new(Self {
            store,
            egress,
            nodes,
            tls: OnceCell::new(),
            looks: Retries::new("notifications can't be looked for", Health::default()),
            writes: Retries::new("what tries of notifications came to can't be written down", Health::default()),
        })
    }

    /// The last notifications of a function, the last first.
    pub async fn list(&self, function: FunctionId) -> Result<Vec<Delivery>, StoreError> {
        self.store.notifications(function).await
    }

    /// Delivers notifications. No try begins after the cancellation of `stop`. Tries under way may go on until the
    /// cancellation of `end`; a try that is cut off begins again at the next start.
    pub async fn run(self: Arc<Self>, stop: CancellationToken, end: CancellationToken) {
        let (mut turns, mut tries) = (Turns::default(), JoinSet::new());
        let mut running: HashMap<Id, Turn> = HashMap::new();
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.until_done(|| self.store.free_notifications()) => {}
        }
        loop {
            let wait = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                wait = self.start(&mut turns, &mut tries, &mut running) => wait,
            };
            let due = async {
                match wait {
                    Some(wait) => time::sleep_until(Instant::now() + wait).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => Event::Stop,
                Some(ended) = tries.join_next_with_id() => Event::Ended(ended),
                () = self.store.notification_written() => Event::Due,
                () = due => Event::Due,
            };
            match event {
                Event::Ended(ended) => {
                    let (id, is_taken) = ended.unwrap_or_else(|error| {
                        tracing::error!(%error, "a try of a notification died");
                        (error.id(), false)
                    });
                    if let Some(turn) = running.remove(&id) {
                        turns.end(&turn, is_taken);
                    }
                }
                Event::Due => {}
                Event::Stop => break,
            }
        }
        tokio::select! {
            () = async { while tries.join_next().await.is_some() {} } => {}
            () = end.cancelled() => tries.shutdown().await,
        }
    }

    /// Begins the tries that are due and may begin. Returns the time until the next look; None to wait for news.
    async fn start(
        self: &Arc<Self>,
        turns: &mut Turns,
        tries: &mut JoinSet<bool>,
        running: &mut HashMap<Id, Turn>,
    ) -> Option<Duration> {
        loop {
            if self.nodes.check().is_err() {
                return Some(LOOK_AGAIN);
            }
            let due = self.until_done(|| self.store.due_notifications()).await;
            let next = due.iter().map(|due| due.wait).filter(|wait| !wait.is_zero()).min();
            let mut has_begun = false;
            for (due, turn) in turns.choose(due) {
                match self.until_done(|| self.store.claim_notification(&due)).await {
                    Some(claimed) => {
                        let this = Arc::clone(self);
                        let id = tries.spawn(async move { this.deliver(claimed).await }).id();
                        running.insert(id, turn);
                        has_begun = true;
                    }
                    // Another node was faster, or the function is gone.
                    None => turns.give_back(&turn),
                }
            }
            // A function may have further notifications that are due.
            if !has_begun {
                let elsewhere = self.nodes.is_shared().then_some(LOOK_ELSEWHERE);
                return next.into_iter().chain(elsewhere).min();
            }
        }
    }

    /// What the store answers, asked again until the store does.
    async fn until_done<T, F>(&self, question: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut retry = self.looks.begin();
        loop {
            match question().await {
                Ok(answer) => {
                    retry.done();
                    return answer;
                }
                Err(error) => retry.failed(&error).await,
            }
        }
    }

    /// Makes one try, and writes down what the try came to. Returns whether the receiver answers well.
    async fn deliver(&self, claimed: Claimed) -> bool {
        let tried = match self.attempt(&claimed).await {
            Ok(status) => {
                let (state, pause) = (DeliveryState::Delivered, Duration::ZERO);
                Tried { state, status: Some(status), error: None, pause }
            }
            Err(failed) => after(failed, &claimed),
        };
        note(&claimed, &tried);
        let mut retry = self.writes.begin();
        while let Err(error) = self.store.end_try(&claimed, &tried).await {
            retry.failed(&error).await;
        }
        retry.done();
        tried.state == DeliveryState::Delivered
    }

    async fn attempt(&self, claimed: &Claimed) -> Result<u16, Failed> {
        let Some(notify) = &claimed.notify else {
            return Err(Failed::for_good("the function has no `notify` any more"));
        };
        if schedule::is_too_late(claimed.attempt, claimed.age) {
            return Err(Failed::for_good("no try was possible in time"));
        }
        self.post(&claimed.notification, notify).await
    }
}

/// What a failed try means: a pause before the next one, or the end of the tries.
fn after(failed: Failed, claimed: &Claimed) -> Tried {
    let Failed { status, reason, is_final } = failed;
    let pause = schedule::pause(claimed.attempt).filter(|_| !is_final && status != Some(GONE));
    Tried {
        state: if pause.is_some() { DeliveryState::Pending } else { DeliveryState::Failed },
        status,
        error: Some(reason.chars().take(MAX_ERROR).collect()),
        pause: pause.unwrap_or_default(),
    }
}

/// Notes a try in the log and in the metrics. The log has the host, and not the URL: a URL may be as good as a
/// password.
fn note(claimed: &Claimed, tried: &Tried) {
    let to = claimed.notify.as_ref().map(|notify| notify.target.rule().to_string());
    let (function, invocation) = (claimed.notification.function_id, claimed.notification.invocation_id);
    let result = match tried.state {
        DeliveryState::Delivered => "delivered",
        DeliveryState::Pending => "failed",
        DeliveryState::Failed => "given_up",
    };
    metrics::notification_try(result);
    let Some(error) = &tried.error else {
        tracing::debug!(function.id = %function, invocation.id = %invocation, notify.to = to, "notification delivered");
        return;
    };
    tracing::warn!(
        function.id = %function,
        invocation.id = %invocation,
        notify.to = to,
        notify.attempt = claimed.attempt,
        error,
        "a notification could not be delivered"
    );
    if tried.state == DeliveryState::Failed {
        tracing::info!(function.id = %function, invocation.id = %invocation, "gave up a notification");
    }
}

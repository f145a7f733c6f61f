//! The task that begins slots. Each node has one; the store lets one node have each slot.
//!
//! The task sleeps until the next slot, by the clock of the store, and looks again after [`LOOK`] at the latest: so
//! that another node's schedules, and a clock that was set, are seen while a slot is still on time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::turn::{Conditions, Turn};
use crate::docker::health::Health;
use crate::invocations::queue::{AcceptError, InvocationQueue};
use crate::nodes::Membership;
use crate::store::{Store, StoreError};

/// The longest time between two looks.
const LOOK: Duration = Duration::from_secs(30);
/// The pause after a look that failed, and while slots wait for room.
const AGAIN: Duration = Duration::from_secs(5);
/// A node whose Docker is away leaves slots to other nodes for this long.
const RESERVE: Duration = Duration::from_secs(20);

/// Begins the slots of schedules.
#[derive(Debug)]
pub struct Scheduler {
    store: Store,
    queue: Arc<InvocationQueue>,
    nodes: Arc<Membership>,
    health: Health,
    wake: Notify,
}

/// What keeps slots from their runs, so that the log has the beginning and the end once.
#[derive(Debug, Default)]
struct Trouble(bool);

impl Scheduler {
    /// A scheduler, which does nothing yet.
    pub(crate) fn new(store: Store, queue: Arc<InvocationQueue>, nodes: Arc<Membership>, health: Health) -> Arc<Self> {
        Arc::new(Self { store, queue, nodes, health, wake: Notify::new() })
    }

    /// Looks again at once, as a schedule has changed.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Begins slots until the cancellation of `stop`. A step that is under way then is finished.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut trouble = Trouble::default();
        while !stop.is_cancelled() {
            let wait = match self.look(&stop).await {
                Ok((wait, hindrance)) => {
                    trouble.note(hindrance.as_ref());
                    wait
                }
                Err(error) => {
                    trouble.note(Some(&error.into()));
                    Some(AGAIN)
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.wake.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Takes a turn. Returns how long to wait for the next one, and what kept slots from their runs.
    async fn look(&self, stop: &CancellationToken) -> Result<(Option<Duration>, Option<AcceptError>), StoreError> {
        // A node whose lease has run out begins nothing: other nodes do.
        if self.nodes.check().is_err() {
            return Ok((Some(AGAIN), None));
        }
        let now = self.store.time().await?;
        let is_reserved = self.nodes.is_shared() && self.health.trouble().is_some();
        let conditions = Conditions { now, reserve: if is_reserved { RESERVE } else { Duration::ZERO } };
        let mut turn = Turn::begin(&self.store, conditions).await?;
        while let Some(step) = turn.next().await? {
            if stop.is_cancelled() {
                break;
            }
            let accepted = self.queue.accept_slot(&step).await;
            turn.note(&step, accepted);
        }
        let hindrance = turn.end();
        let next = self.store.next_slot(now / 1000).await?;
        let now = self.store.time().await?;
        let until = next.map(|next| Duration::from_millis((next * 1000).saturating_sub(now)));
        let wait = match (until, &hindrance) {
            _ if is_reserved || hindrance.is_some() => Some(AGAIN),
            (Some(until), _) => Some(until.min(LOOK)),
            // Nobody else can add a schedule.
            (None, _) if !self.nodes.is_shared() => None,
            (None, _) => Some(LOOK),
        };
        Ok((wait, hindrance))
    }
}

impl Trouble {
    fn note(&mut self, hindrance: Option<&AcceptError>) {
        let was_there = std::mem::replace(&mut self.0, hindrance.is_some());
        match hindrance {
            Some(error) if !was_there => {
                let error = chain(error);
                tracing::warn!(error, "slots of schedules wait, and are missed after a minute");
            }
            None if was_there => tracing::info!("slots of schedules go on"),
            Some(_) | None => {}
        }
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

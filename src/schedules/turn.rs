//! A turn of the scheduler: each slot that has come is begun, skipped, or left for the next turn.

use std::time::Duration;

use super::plan::{self, CORRECTION, ON_TIME};
use super::times::Times;
use crate::domain::{DueSlot, SkipReason, Skipped, Step, Taken};
use crate::invocations::queue::AcceptError;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics;

/// The number of schedules that are read at a time.
const PAGE: u32 = 500;

/// The time of a turn and what the node may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    /// The time in Unix milliseconds, by the clock that all nodes go by.
    pub(super) now: u64,
    /// Slots that are younger than this are left to other nodes.
    pub(super) reserve: Duration,
}

/// The slots that have come. A turn makes steps without a run itself, and hands out the others.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    store: &'a Store,
    conditions: Conditions,
    last: Option<DueSlot>,
    planned: std::vec::IntoIter<Step>,
    /// What kept a slot from its run.
    hindrance: Option<AcceptError>,
}

impl<'a> Turn<'a> {
    /// Begins a turn.
    pub(super) async fn begin(store: &'a Store, conditions: Conditions) -> Result<Self, StoreError> {
        correct(store, conditions.now).await?;
        Ok(Self { store, conditions, last: None, planned: Vec::new().into_iter(), hindrance: None })
    }

    /// The next step with a run, to be accepted by the caller. None at the end of the turn.
    pub(super) async fn next(&mut self) -> Result<Option<Step>, StoreError> {
        let Conditions { now, reserve } = self.conditions;
        loop {
            for step in self.planned.by_ref() {
                if step.run.is_none() {
                    let taken = self.store.make_step(&step).await?;
                    tell(&step, taken, now);
                } else if self.hindrance.is_none() {
                    return Ok(Some(step));
                }
                // What hinders one run hinders all: no queue and no disk is asked again in this turn.
            }
            let until = (now / 1000).saturating_sub(reserve.as_secs());
            let due = self.store.due_schedules(until, self.last.as_ref(), PAGE).await?;
            let Some(last) = due.last() else { return Ok(None) };
            self.last = Some(last.clone());
            self.planned = planned(due, move |due, times| plan::step(due, times, now)).await.into_iter();
        }
    }

    /// Notes what became of a step. A step that was not accepted is due again in the next turn.
    pub(super) fn note(&mut self, step: &Step, accepted: Result<Taken, AcceptError>) {
        match accepted {
            Ok(taken) => tell(step, taken, self.conditions.now),
            Err(error) => self.hindrance = Some(error),
        }
    }

    /// Ends the turn. Returns what kept a slot from its run, if anything did.
    pub(super) fn end(self) -> Option<AcceptError> {
        self.hindrance
    }
}

/// Sets schedules right that went ahead while the clock was wrong.
async fn correct(store: &Store, now: u64) -> Result<(), StoreError> {
    let ahead = store.schedules_ahead(now / 1000 + CORRECTION.as_secs(), PAGE).await?;
    for step in planned(ahead, move |due, times| plan::correction(due, times, now)).await {
        if store.make_step(&step).await? == Taken::Made {
            tracing::warn!(function.id = %step.function_id, schedule = %step.name, next_at = step.next_at,
                "the clock was wrong: a schedule goes on by the time of now");
        }
    }
    Ok(())
}

/// The steps of these schedules. A schedule that this node can't read is left out: only a database that others have
/// changed has such a schedule, or one whose zone this node does not know.
async fn planned(due: Vec<DueSlot>, plan: impl Fn(&DueSlot, &Times) -> Step + Send + 'static) -> Vec<Step> {
    if due.is_empty() {
        return Vec::new();
    }
    // Time zones are files.
    let planned = tokio::task::spawn_blocking(move || {
        let step = |due: &DueSlot| match Times::new(&due.cron, &due.timezone) {
            Ok(times) => Some(plan(due, &times)),
            Err(error) => {
                tracing::error!(function.id = %due.function_id, schedule = %due.name, %error,
                    "a schedule can't be read");
                None
            }
        };
        due.iter().filter_map(step).collect()
    });
    planned.await.unwrap_or_default()
}

/// Notes what became of a slot.
fn tell(step: &Step, taken: Taken, now: u64) {
    let Step { function_id, name, skipped, .. } = step;
    if taken == Taken::Elsewhere {
        return;
    }
    if let Some(Skipped { slot, reason: SkipReason::Missed }) = *skipped {
        metrics::schedule_slot("missed");
        tracing::warn!(function.id = %function_id, schedule = %name, slot, until = step.settled_at,
            "slots of a schedule were missed and are skipped");
    }
    let Some(slot) = step.run else { return };
    let late = Duration::from_millis(now.saturating_sub(slot * 1000));
    match taken {
        Taken::Made => {
            let is_on_time = late < ON_TIME;
            metrics::schedule_slot(if is_on_time { "run" } else { "made_up" });
            metrics::schedule_delay(late);
        }
        Taken::Overlapped => {
            metrics::schedule_slot("overlap");
            tracing::info!(function.id = %function_id, schedule = %name, slot,
                "a slot of a schedule is skipped: an earlier run has not ended");
        }
        Taken::Elsewhere => {}
    }
}

#[cfg(test)]
mod tests;

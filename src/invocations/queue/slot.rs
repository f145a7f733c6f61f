//! Accepts the runs of schedules: as the store says, at most one for each slot.

use std::sync::Arc;

use super::InvocationQueue;
use super::error::AcceptError;
use crate::domain::{FunctionId, InvocationId, InvocationRecord, ScheduleName, Step, Taken, Trigger};
use crate::resources::clock;

impl InvocationQueue {
    /// Makes a step of a schedule, and accepts the run that the step has: both are on disk when this returns, or
    /// neither is. Without room for the run the step is not made. The caller must wait for the answer.
    pub(crate) async fn accept_slot(&self, step: &Step) -> Result<Taken, AcceptError> {
        let record = scheduled(step.function_id, &step.name);
        let taken = self.accept_scheduled(&record, &step.name, Some(step)).await?;
        if taken == Taken::Made {
            tracing::info!(function.id = %step.function_id, schedule = %step.name, slot = step.run,
                invocation.id = %record.id, "a schedule's run is accepted");
        }
        Ok(taken)
    }

    /// Accepts a run of a schedule apart from its slots. None where there is no such schedule.
    pub(crate) async fn accept_run(
        self: &Arc<Self>,
        function: FunctionId,
        name: ScheduleName,
    ) -> Result<Option<InvocationId>, AcceptError> {
        let this = Arc::clone(self);
        // A task of its own: an invocation on disk must be in the queue, too, when the caller has left meanwhile.
        let accepted = self.tasks.spawn(async move {
            let record = scheduled(function, &name);
            let taken = this.accept_scheduled(&record, &name, None).await?;
            Ok((taken == Taken::Made).then_some(record.id))
        });
        accepted.await?
    }

    async fn accept_scheduled(
        &self,
        record: &InvocationRecord,
        name: &ScheduleName,
        step: Option<&Step>,
    ) -> Result<Taken, AcceptError> {
        self.invoker.check_lease()?;
        // As for any accepted invocation: what ended before comes before in the history, too.
        let _ = self.history.flush().await;
        self.room.check().await?;
        let _accepting = self.place()?;
        let taken = match step {
            Some(step) => self.store.take_slot(step, record).await?,
            None => self.store.run_schedule(name, record).await?,
        };
        if taken == Taken::Made {
            let mut state = self.lock();
            let entry = state.waiting.entry(&record.open());
            state.waiting.push(entry);
            drop(state);
            self.wake.notify_one();
        }
        Ok(taken)
    }

    /// A place in the queue for an invocation that is being written down.
    fn place(&self) -> Result<Accepting<'_>, AcceptError> {
        let mut state = self.lock();
        if state.waiting.len() + state.accepting >= self.limit {
            return Err(AcceptError::Full(self.limit));
        }
        state.accepting += 1;
        Ok(Accepting(self))
    }
}

/// Holds a place in the queue until the drop.
struct Accepting<'a>(&'a InvocationQueue);

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        self.0.lock().accepting -= 1;
    }
}

/// The store fills in the input.
fn scheduled(function: FunctionId, name: &ScheduleName) -> InvocationRecord {
    let trigger = Trigger::Schedule(name.to_string());
    InvocationRecord { trigger, ..InvocationRecord::queued(function, clock::unix_millis(), "{}".into()) }
}

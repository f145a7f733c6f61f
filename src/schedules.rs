//! Schedules of functions: made, shown and removed by clients, and begun by the scheduler.
//!
//! ```text
//! cron, times (pure) ──> plan (pure) ──> turn ──> the store, and the queue of `invocations`
//!                                         └── scheduler: one task on each node
//! ```
//! The store decides: a schedule's row has the next slot, and whoever moves the row on has the slot
//! (`store::schedules`).

mod cron;
mod plan;
mod scheduler;
mod times;
mod turn;

use std::sync::Arc;

use thiserror::Error;

pub use cron::CronError;
pub use scheduler::Scheduler;
pub use times::TimesError;

use crate::domain::{
    DeclaredSchedule, Definition, DueSlot, FunctionId, InvocationId, MAX_SCHEDULES, Manifest, Missed, Overlap,
    Schedule, ScheduleName, UnknownFunction, UnknownSchedule,
};
use crate::functions::Registry;
use crate::invocations::input::{Input, InputError};
use crate::invocations::queue::{AcceptError, InvocationQueue};
use crate::store::{Put, Store, StoreError};
use times::Times;

/// The number of slots that a client is shown.
const SHOWN_SLOTS: usize = 5;

/// Makes, shows, runs and removes schedules.
#[derive(Debug)]
pub struct Schedules {
    store: Store,
    registry: Arc<Registry>,
    queue: Arc<InvocationQueue>,
    scheduler: Arc<Scheduler>,
}

/// What a client asks of a schedule.
#[derive(Debug)]
pub struct Request {
    /// Five fields, or a name such as `@daily`.
    pub cron: String,
    /// The name of a time zone.
    pub timezone: String,
    /// The input of each run.
    pub input: Input,
    /// False for a schedule that pauses.
    pub is_enabled: bool,
    /// The policy for slots that come before the end of an earlier run.
    pub overlap: Overlap,
    /// The policy for slots that were missed.
    pub missed: Missed,
}

/// A schedule with its next slots.
#[derive(Debug)]
pub struct Shown {
    /// The schedule.
    pub schedule: Schedule,
    /// The next slots, in Unix seconds; none while the schedule pauses.
    pub upcoming: Vec<u64>,
}

/// Why a schedule is not made, shown, run or removed.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// There is no such function.
    #[error(transparent)]
    Function(#[from] UnknownFunction),
    /// There is no such schedule.
    #[error(transparent)]
    Schedule(#[from] UnknownSchedule),
    /// The times or the zone can't be read.
    #[error(transparent)]
    Times(#[from] TimesError),
    /// The function does not take the input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The function has as many schedules as may be.
    #[error("function {0} has {MAX_SCHEDULES} schedules, which is the limit; remove one first")]
    TooMany(FunctionId),
    /// The run is not accepted.
    #[error(transparent)]
    Accept(#[from] AcceptError),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task panicked or was aborted.
    #[error("a task that reads time zones died")]
    Died(#[from] tokio::task::JoinError),
}

impl Schedules {
    /// The schedules of these functions.
    pub(crate) fn new(
        store: Store,
        registry: Arc<Registry>,
        queue: Arc<InvocationQueue>,
        scheduler: Arc<Scheduler>,
    ) -> Self {
        Self { store, registry, queue, scheduler }
    }

    /// Makes or replaces a schedule. Slots from before are not missed: the next slot is the first from now on, or the
    /// one that is on its way where the times stay the same.
    pub async fn put(&self, id: FunctionId, name: &ScheduleName, request: Request) -> Result<Shown, ScheduleError> {
        let function = self.registry.get(id).ok_or(UnknownFunction(id))?;
        let Request { cron, timezone, input, is_enabled, overlap, missed } = request;
        input.check(&function.settings)?;
        let (json, _share) = input.into_json();
        let now = self.store.time().await? / 1000;
        let (cron, timezone, next_at) = tokio::task::spawn_blocking(move || {
            let times = Times::new(&cron, &timezone)?;
            Ok::<_, TimesError>((cron.trim().to_owned(), times.zone_name().to_owned(), times.next(now)))
        })
        .await??;
        let definition = Definition { cron, timezone, input: json.into(), is_enabled, overlap, missed };
        let next = (now, next_at.filter(|_| is_enabled));
        match self.store.put_schedule(id, name, &definition, next).await? {
            Put::Done => {}
            Put::TooMany => return Err(ScheduleError::TooMany(id)),
            Put::NoFunction => return Err(UnknownFunction(id).into()),
        }
        self.scheduler.wake();
        self.get(id, name).await
    }

    /// A function's schedule.
    pub async fn get(&self, id: FunctionId, name: &ScheduleName) -> Result<Shown, ScheduleError> {
        let schedule = self.store.schedule(id, name).await?.ok_or_else(|| UnknownSchedule(id, name.clone()))?;
        let mut shown = shown(vec![schedule]).await?;
        Ok(shown.remove(0))
    }

    /// A function's schedules, by their names.
    pub async fn list(&self, id: FunctionId) -> Result<Vec<Shown>, ScheduleError> {
        shown(self.store.schedules(id).await?).await
    }

    /// The next slots of all schedules, the first slot first, at most this many.
    pub async fn next(&self, most: u32) -> Result<Vec<DueSlot>, ScheduleError> {
        Ok(self.store.next_schedules(most).await?)
    }

    /// Removes a schedule. Runs that were accepted go on.
    pub async fn delete(&self, id: FunctionId, name: &ScheduleName) -> Result<(), ScheduleError> {
        let is_deleted = self.store.delete_schedule(id, name).await?;
        Ok(is_deleted.then_some(()).ok_or_else(|| UnknownSchedule(id, name.clone()))?)
    }

    /// Accepts a run now, apart from the slots, whether the schedule pauses or not.
    pub async fn run(&self, id: FunctionId, name: &ScheduleName) -> Result<InvocationId, ScheduleError> {
        let accepted = self.queue.accept_run(id, name.clone()).await?;
        Ok(accepted.ok_or_else(|| UnknownSchedule(id, name.clone()))?)
    }
}

/// The times and the time zone of a schedule, as schedules have both. Fails where either can't be. Reads files.
pub fn times(cron: &str, timezone: &str) -> Result<(String, String), TimesError> {
    let times = Times::new(cron, timezone)?;
    Ok((cron.trim().to_owned(), times.zone_name().to_owned()))
}

/// The schedules that a version declares, with their first slots after `now`, in Unix seconds. Reads files.
pub(crate) fn declared(manifest: &Manifest, now: u64) -> Result<Vec<DeclaredSchedule>, TimesError> {
    let find = |(name, definition): &(ScheduleName, Definition)| {
        let next_at = Times::new(&definition.cron, &definition.timezone)?.next(now);
        let next_at = next_at.filter(|_| definition.is_enabled);
        Ok(DeclaredSchedule { name: name.clone(), definition: definition.clone(), now, next_at })
    };
    manifest.schedules.iter().map(find).collect()
}

/// Finds the next slots. Time zones are files.
async fn shown(schedules: Vec<Schedule>) -> Result<Vec<Shown>, ScheduleError> {
    let find = move || {
        let show = |schedule: Schedule| {
            let times = Times::new(&schedule.definition.cron, &schedule.definition.timezone).ok();
            let slots = schedule.next_at.into_iter().flat_map(|first| {
                let later = times.iter().flat_map(move |times| times.upcoming(first));
                std::iter::once(first).chain(later).take(SHOWN_SLOTS)
            });
            let upcoming = slots.collect();
            Shown { schedule, upcoming }
        };
        schedules.into_iter().map(show).collect()
    };
    Ok(tokio::task::spawn_blocking(find).await?)
}

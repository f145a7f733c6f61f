//! Counts of the pool's books: for the policy, for metrics and for clients.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, Queue, State};
use crate::config::HttpMode;
use crate::domain::FunctionId;
use crate::functions::Revision;
use crate::sandbox::pool::policy::Demand;

/// The number of a revision's permits by phase.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) starting: usize,
    pub(super) busy: usize,
    pub(super) idle: usize,
    /// How long the longest running invocation has run so far.
    longest: Duration,
}

impl Count {
    /// The instances that there are or will be.
    pub(super) fn live(self) -> usize {
        self.starting + self.busy + self.idle
    }
}

impl<I, S, G> State<I, S, G> {
    /// The number of permits in each phase.
    pub(in crate::sandbox::pool) fn phases(&self) -> [(&'static str, usize); 5] {
        let mut phases = [("starting", 0), ("idle", 0), ("busy", 0), ("ending", 0), ("slot", 0)];
        for (_, phase) in self.permits.values() {
            let at = match phase {
                Phase::Starting => 0,
                Phase::Idle => 1,
                Phase::Busy(_) => 2,
                Phase::Ending | Phase::Cut => 3,
            };
            phases[at].1 += 1;
        }
        for (at, count) in [0, 4, 3].into_iter().zip(self.slots.phases()) {
            phases[at].1 += count;
        }
        phases
    }

    /// For each function the number of permits that are starting, idle and busy, in this order.
    pub(in crate::sandbox::pool) fn counts_by_function(&self) -> HashMap<FunctionId, [usize; 3]> {
        let mut counts: HashMap<FunctionId, [usize; 3]> = HashMap::new();
        for (revision, phase) in self.permits.values() {
            let at = match phase {
                Phase::Starting => 0,
                Phase::Idle => 1,
                Phase::Busy(_) => 2,
                Phase::Ending | Phase::Cut => continue,
            };
            counts.entry(revision.function).or_default()[at] += 1;
        }
        counts
    }

    /// The idle instances with their functions.
    pub(in crate::sandbox::pool) fn idle(&self) -> impl Iterator<Item = (FunctionId, &I)> {
        self.queues
            .iter()
            .flat_map(|(revision, queue)| queue.idle.iter().map(|(_, instance, _)| (revision.function, instance)))
    }

    /// The number of waiters with a client for which no instance starts.
    pub(in crate::sandbox::pool) fn uncovered(&self) -> usize {
        if self.waiting == 0 {
            return 0;
        }
        self.queues.iter().map(|(&revision, queue)| self.uncovered_in(revision, queue)).sum()
    }

    /// The same waiters, of public functions only: anybody can make these wait.
    pub(in crate::sandbox::pool) fn uncovered_strangers(&self) -> usize {
        let public = self.queues.iter().filter(|(_, queue)| queue.function.settings.http == HttpMode::Public);
        public.map(|(&revision, queue)| self.uncovered_in(revision, queue)).sum()
    }

    fn uncovered_in(&self, revision: Revision, queue: &Queue<I, G>) -> usize {
        // Background waiters come last in the queue.
        let urgent = queue.waiters.partition_point(|waiter| !waiter.is_background);
        urgent.saturating_sub(self.count(revision).starting)
    }

    /// The number of permits that become free soon.
    pub(in crate::sandbox::pool) fn ending(&self) -> usize {
        let [.., slots] = self.slots.phases();
        slots + self.permits.values().filter(|(_, phase)| matches!(phase, Phase::Ending | Phase::Cut)).count()
    }

    pub(super) fn count(&self, revision: Revision) -> Count {
        let (mut count, now) = (Count::default(), self.now());
        for (_, phase) in self.permits.values().filter(|&&(function, _)| function == revision) {
            match phase {
                Phase::Starting => count.starting += 1,
                Phase::Idle => count.idle += 1,
                Phase::Busy(since) => {
                    count.busy += 1;
                    count.longest = count.longest.max(now.saturating_duration_since(*since));
                }
                Phase::Ending | Phase::Cut => {}
            }
        }
        count
    }

    /// The instances and callers of all functions.
    pub(in crate::sandbox::pool) fn demands(&self) -> Vec<Demand<Revision>> {
        let now = self.now();
        let demand = |(&revision, queue): (&Revision, &Queue<I, G>)| {
            let demand = self.demand(revision, queue, now);
            if !queue.takes_slots {
                return demand;
            }
            let language = queue.function.version.language;
            let coming = self.slots.coming(language, now).map(|coming| (language, coming));
            Demand { slots: self.slots.ready(language), coming, ..demand }
        };
        self.queues.iter().map(demand).collect()
    }

    /// The instances and callers of a revision, which takes no slot.
    pub(super) fn demand(&self, revision: Revision, queue: &Queue<I, G>, now: Instant) -> Demand<Revision> {
        let count = self.count(revision);
        let since = |instant: Instant| now.saturating_duration_since(instant);
        let limit = queue.limit(self.limit);
        Demand {
            function: revision,
            waiting: queue.waiters.len(),
            is_urgent: queue.waiters.front().is_some_and(|waiter| !waiter.is_background),
            oldest_wait: queue.waiters.front().map_or(Duration::ZERO, |waiter| since(waiter.since)),
            pressed_for: queue.pressed_since.map_or(Duration::ZERO, since),
            starting: count.starting,
            busy: count.busy,
            idle: count.idle,
            oldest_idle: queue.idle.front().map_or(Duration::ZERO, |&(_, _, instant)| since(instant)),
            service_time: queue.service_time.max(count.longest),
            slots: 0,
            coming: None,
            is_paused: queue.starts_again.is_some_and(|again| now < again),
            limit,
            running: if limit.is_some() { self.running(revision.function) } else { count.busy },
            kept: queue.warmth.kept,
        }
    }
}

//! How many invocations of a function run at one time, and which instances are kept whatever idles.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, Queue, State};
use crate::domain::{FunctionId, Language};
use crate::functions::{Function, Revision};
use crate::sandbox::pool::Key;
use crate::sandbox::pool::refill::Callers;

/// The first and the longest pause after an instance to keep that did not start, or that died while the instance idled.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The instances of a revision that are kept.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    /// How many instances the function asks for.
    pub(super) asked: usize,
    /// How many instances are kept: fewer, where all functions together ask for too many.
    pub(super) kept: usize,
    /// Failures in a row, and the last one.
    failures: u32,
    failed_at: Option<Instant>,
}

impl Warmth {
    fn pause(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.failed_at.is_some_and(|failed| now < failed + self.pause())
    }

    fn note_failure(&mut self, now: Instant) {
        let is_new = self.failed_at.is_none_or(|failed| failed + 2 * LONGEST_PAUSE < now);
        self.failures = if is_new { 1 } else { self.failures.saturating_add(1) };
        self.failed_at = Some(now);
    }
}

impl<I, G> Queue<I, G> {
    /// The function's own limit on invocations at one time, among this many containers.
    pub(super) fn limit(&self, containers: usize) -> Option<usize> {
        let containers = u32::try_from(containers).unwrap_or(u32::MAX);
        self.function.settings.concurrency(containers).map(|most| most as usize)
    }
}

impl<I, S, G> State<I, S, G> {
    /// The invocations of a function that run, on instances of all its revisions.
    pub(super) fn running(&self, function: FunctionId) -> usize {
        let runs = |phase: &Phase| matches!(phase, Phase::Busy(_) | Phase::Cut);
        self.permits.values().filter(|(revision, phase)| revision.function == function && runs(phase)).count()
    }

    /// Whether a further invocation of the revision may begin.
    pub(in crate::sandbox::pool) fn may_run(&self, revision: Revision) -> bool {
        self.queues.get(&revision).is_none_or(|queue| self.is_within_limit(revision, queue))
    }

    fn is_within_limit(&self, revision: Revision, queue: &Queue<I, G>) -> bool {
        queue.limit(self.limit).is_none_or(|limit| self.running(revision.function) < limit)
    }

    /// Whether the revision's first waiter may have an instance.
    fn may_serve(&self, revision: Revision, queue: &Queue<I, G>) -> bool {
        // A caller that only warms the revision up runs nothing.
        queue.waiters.front().is_some_and(|first| first.is_warm_up || self.is_within_limit(revision, queue))
    }

    /// Takes the revision's first waiter, if that waiter may have an instance.
    pub(in crate::sandbox::pool) fn pop_servable(&mut self, revision: Revision) -> Option<G> {
        let may_serve = self.queues.get(&revision).is_some_and(|queue| self.may_serve(revision, queue));
        if may_serve { self.pop_waiter(revision) } else { None }
    }

    /// A revision with an idle instance, and with a waiter that may have the instance.
    pub(in crate::sandbox::pool) fn servable(&self) -> Option<Revision> {
        if self.waiting == 0 {
            return None;
        }
        let mut idle = self.queues.iter().filter(|(_, queue)| !queue.idle.is_empty());
        idle.find(|&(&revision, queue)| self.may_serve(revision, queue)).map(|(&revision, _)| revision)
    }

    /// Whether a caller waits that a further instance would help.
    pub(in crate::sandbox::pool) fn is_pressed(&self) -> bool {
        self.waiting > 0 && self.queues.iter().any(|(&revision, queue)| self.may_serve(revision, queue))
    }

    /// The callers that come before slots. An instance to keep that has no room yet is like such a caller.
    pub(super) fn callers(&self, now: Instant) -> Callers {
        let lacking: usize = self.lacks(now).map(|(_, lacking)| lacking).sum();
        if lacking > 0 && self.free_permits() <= lacking {
            return Callers::Uncovered;
        }
        if !self.is_pressed() {
            return Callers::None;
        }
        let is_covered = |(&revision, queue): (&Revision, &Queue<I, G>)| {
            !self.may_serve(revision, queue) || queue.waiters.len() <= self.count(revision).starting
        };
        // A slot that starts is for the first caller that can take the slot.
        let mut coming = Language::ALL.map(|language| self.slots.coming(language, now).unwrap_or(0));
        let is_promised = |(_, queue): (&Revision, &Queue<I, G>)| {
            let coming = &mut coming[queue.function.version.language as usize];
            let is_promised = queue.takes_slots && *coming > 0;
            *coming -= usize::from(is_promised);
            is_promised
        };
        let mut others = self.queues.iter().filter(|queue| !is_covered((queue.0, queue.1)));
        if others.all(is_promised) { Callers::Covered } else { Callers::Uncovered }
    }

    /// Takes over the settings of a function's state. Returns true when fewer of the instances that functions ask for
    /// can be kept than before.
    pub(in crate::sandbox::pool) fn configure(&mut self, function: &Arc<Function>) -> bool {
        let (before, asked) = (self.shortage(), function.settings.kept() as usize);
        if asked > 0 {
            self.ensure_queue(function);
        }
        if let Some(queue) = self.queues.get_mut(&function.revision)
            && queue.function.generation <= function.generation
        {
            queue.function = Arc::clone(function);
            queue.warmth.asked = asked;
        }
        self.allot();
        self.shortage() > before
    }

    /// How many instances functions ask for that can't be kept.
    fn shortage(&self) -> usize {
        self.queues.values().map(|queue| queue.warmth.asked.saturating_sub(queue.warmth.kept)).sum()
    }

    /// Decides how many instances of each function are kept. One permit is left for the other functions.
    pub(super) fn allot(&mut self) {
        let asking = |(_, queue): &(&Revision, &Queue<I, G>)| queue.warmth.asked > 0 || queue.warmth.kept > 0;
        let mut revisions: Vec<Revision> = self.queues.iter().filter(asking).map(|(&revision, _)| revision).collect();
        revisions.sort_unstable_by_key(|revision| revision.function);
        let mut room = self.limit.saturating_sub(1);
        for revision in revisions {
            if let Some(queue) = self.queues.get_mut(&revision) {
                queue.warmth.kept = queue.warmth.asked.min(room);
                room -= queue.warmth.kept;
            }
        }
    }

    /// The revisions that lack instances to keep, and how many. Revisions that pause after a failure lack none.
    fn lacks(&self, now: Instant) -> impl Iterator<Item = (Revision, usize)> {
        let asking = self.queues.iter().filter(move |(_, queue)| queue.warmth.kept > 0 && !queue.warmth.is_paused(now));
        let lacking =
            asking.map(|(&revision, queue)| (revision, queue.warmth.kept.saturating_sub(self.count(revision).live())));
        lacking.filter(|&(_, lacking)| lacking > 0)
    }

    /// The function with the fewest failures that lacks most instances to keep.
    pub(in crate::sandbox::pool) fn next_to_keep(&self, now: Instant) -> Option<Arc<Function>> {
        // A function whose instances can't start must not hold up those of others.
        let failures = |revision: &Revision| self.queues.get(revision).map_or(0, |queue| queue.warmth.failures);
        let order = |&(revision, lacking): &(Revision, usize)| {
            (std::cmp::Reverse(failures(&revision)), lacking, revision.function)
        };
        let (revision, _) = self.lacks(now).max_by_key(order)?;
        self.queues.get(&revision).map(|queue| Arc::clone(&queue.function))
    }

    /// Whether the revision lacks an instance to keep.
    pub(in crate::sandbox::pool) fn lacks_one(&self, revision: Revision, now: Instant) -> bool {
        self.lacks(now).any(|(lacking, _)| lacking == revision)
    }

    /// Whether instances are kept.
    pub(in crate::sandbox::pool) fn keeps_any(&self) -> bool {
        self.queues.values().any(|queue| queue.warmth.kept > 0)
    }

    /// Notes that an instance to keep did not start. The next one starts after a pause.
    pub(in crate::sandbox::pool) fn note_keep_failure(&mut self, revision: Revision, now: Instant) {
        if let Some(queue) = self.queues.get_mut(&revision) {
            queue.warmth.note_failure(now);
        }
    }

    /// Takes the idle instances of functions with kept instances that are not alive. The caller must drop these
    /// instances, which removes the containers.
    pub(in crate::sandbox::pool) fn take_dead(&mut self, is_alive: impl Fn(&mut I) -> bool) -> Vec<I> {
        let now = self.now();
        let mut dead: Vec<(Key, I)> = Vec::new();
        for queue in self.queues.values_mut().filter(|queue| queue.warmth.kept > 0) {
            let before = dead.len();
            for _ in 0..queue.idle.len() {
                let Some((key, mut instance, since)) = queue.idle.pop_front() else { break };
                if is_alive(&mut instance) {
                    queue.idle.push_back((key, instance, since));
                } else {
                    dead.push((key, instance));
                }
            }
            if dead.len() > before {
                queue.warmth.note_failure(now);
            }
        }
        let ended = dead.into_iter().map(|(key, instance)| {
            self.set_phase(key, Phase::Ending);
            instance
        });
        ended.collect()
    }

    /// The longest idle instance of all that may make room: the time since which the instance is idle, and its
    /// revision.
    pub(in crate::sandbox::pool) fn longest_idle(&self) -> Option<(Instant, Revision)> {
        let now = self.now();
        let may_end = |revision: Revision, queue: &Queue<I, G>| {
            let is_simple = queue.warmth.kept == 0 && queue.waiters.is_empty();
            is_simple || self.demand(revision, queue, now).evictable() > 0
        };
        let idle = self.queues.iter().filter_map(|(&revision, queue)| {
            let (_, _, since) = queue.idle.front()?;
            may_end(revision, queue).then_some((*since, revision))
        });
        idle.min_by_key(|&(since, _)| since)
    }

    /// The longest idle instance of all that is not kept.
    pub(super) fn first_to_expire(&self) -> Option<(Instant, Revision)> {
        let idle = self.queues.iter().filter_map(|(&revision, queue)| {
            let (_, _, since) = queue.idle.front()?;
            let is_kept = queue.warmth.kept > 0 && self.count(revision).live() <= queue.warmth.kept;
            (!is_kept).then_some((*since, revision))
        });
        idle.min_by_key(|&(since, _)| since)
    }

    /// Takes a revision's longest idle instance for lack of room. The caller must drop the instance, which removes the
    /// container.
    pub(in crate::sandbox::pool) fn evict_for_room(&mut self, revision: Revision) -> Option<I> {
        let since = self.queues.get(&revision)?.idle.front()?.2;
        let now = self.now();
        self.evictions.note(revision.function, since, now);
        self.evict(revision)
    }

    /// Takes the longest idle instance of all for lack of room. The caller must drop the instance, which removes the
    /// container.
    pub(in crate::sandbox::pool) fn evict_longest_idle(&mut self) -> Option<I> {
        let (_, revision) = self.longest_idle()?;
        self.evict_for_room(revision)
    }
}

#[cfg(test)]
mod tests;

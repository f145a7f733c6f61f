//! The pool's books: the permits and their phases, the callers that wait, and the idle instances. Synchronous and
//! without Docker.

mod counts;
#[cfg(test)]
mod simulation;
mod slots;
mod warmth;

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::evictions::Evictions;
use super::policy::{self, Room, Step};
use super::residents::Residents;
use super::slots::Slots;
use super::uids::Uids;
use super::{Key, Wait};
use crate::functions::{Function, Revision};
use warmth::Warmth;

/// The phase of the instance that holds a permit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Starting,
    Idle,
    Busy(Instant),
    Ending,
    /// The invocation was cut off, and may run until the container is gone.
    Cut,
}

#[derive(Debug)]
pub(super) struct State<I, S, G> {
    pub(super) closed: bool,
    /// How far the clock of the books is ahead, as a test skips time.
    skipped: Duration,
    limit: usize,
    permits: HashMap<Key, (Revision, Phase)>,
    uids: Uids,
    pub(super) slots: Slots<S>,
    pub(super) evictions: Evictions,
    residents: Residents,
    /// When a function may take a slot again after a slot that did not become the function's instance.
    slots_again: HashMap<Revision, Instant>,
    queues: HashMap<Revision, Queue<I, G>>,
    waiting: usize,
    spares: usize,
    next_number: u64,
}

/// The waiters and the idle instances of one revision of a function.
#[derive(Debug)]
struct Queue<I, G> {
    function: Arc<Function>,
    /// Background waiters come last.
    waiters: VecDeque<Waiter<G>>,
    /// The longest idle instance comes first.
    idle: VecDeque<(Key, I, Instant)>,
    /// The time since which there have been waiters, or the time of the last start for these waiters.
    pressed_since: Option<Instant>,
    service_time: Duration,
    wants_spare: bool,
    /// Whether the callers could take a slot at the last look.
    takes_slots: bool,
    /// When the next instance may start after a start that has failed.
    starts_again: Option<Instant>,
    warmth: Warmth,
}

#[derive(Debug)]
struct Waiter<G> {
    number: u64,
    since: Instant,
    is_background: bool,
    is_warm_up: bool,
    grant: G,
}

impl<I, S, G> State<I, S, G> {
    /// A state without permits in use. Each permit gets one of the users in `uids`.
    pub(super) fn new(limit: usize, uids: RangeInclusive<u32>, slots: Slots<S>, evictions: Evictions) -> Self {
        Self {
            closed: false,
            skipped: Duration::ZERO,
            limit,
            permits: HashMap::new(),
            uids: Uids::new(uids),
            slots,
            evictions,
            residents: Residents::default(),
            slots_again: HashMap::new(),
            queues: HashMap::new(),
            waiting: 0,
            spares: 0,
            next_number: 0,
        }
    }

    fn now(&self) -> Instant {
        Instant::now() + self.skipped
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds an empty queue for a function's revision if there is no queue yet. A queue has the latest settings that are
    /// known: a caller may have waited long for the image, and know older settings.
    pub(super) fn ensure_queue(&mut self, function: &Arc<Function>) {
        let queue = self.queues.entry(function.revision).or_insert_with(|| Queue {
            function: Arc::clone(function),
            waiters: VecDeque::new(),
            idle: VecDeque::new(),
            pressed_since: None,
            service_time: Duration::ZERO,
            wants_spare: false,
            takes_slots: false,
            starts_again: None,
            warmth: Warmth::default(),
        });
        if queue.function.generation < function.generation {
            queue.function = Arc::clone(function);
        }
    }

    pub(super) fn push_waiter(&mut self, function: &Arc<Function>, wait: Wait, grant: G) -> u64 {
        let Wait { since, is_background, is_warm_up, .. } = wait;
        self.ensure_queue(function);
        let now = self.now();
        self.next_number += 1;
        let number = self.next_number;
        let queue = self.queues.get_mut(&function.revision).expect("the queue was just made");
        queue.pressed_since.get_or_insert(now);
        let place = if is_background {
            queue.waiters.len()
        } else {
            queue.waiters.partition_point(|waiter| !waiter.is_background)
        };
        queue.waiters.insert(place, Waiter { number, since, is_background, is_warm_up, grant });
        self.waiting += 1;
        number
    }

    pub(super) fn remove_waiter(&mut self, revision: Revision, number: u64) {
        let Some(queue) = self.queues.get_mut(&revision) else { return };
        if let Some(at) = queue.waiters.iter().position(|waiter| waiter.number == number) {
            queue.waiters.remove(at);
            self.waiting -= 1;
            queue.relieve();
        }
    }

    pub(super) fn pop_waiter(&mut self, revision: Revision) -> Option<G> {
        let queue = self.queues.get_mut(&revision)?;
        let waiter = queue.waiters.pop_front()?;
        self.waiting -= 1;
        queue.relieve();
        Some(waiter.grant)
    }

    /// Whether an instance starts for this waiter.
    pub(super) fn is_covered(&self, revision: Revision, number: u64) -> bool {
        let position = self
            .queues
            .get(&revision)
            .and_then(|queue| queue.waiters.iter().position(|waiter| waiter.number == number));
        // A waiter that is no longer in the queue has its lease on the way. A slot that starts is for the first waiter.
        position.is_none_or(|position| {
            position < self.count(revision).starting || (position == 0 && self.awaits_slot(revision))
        })
    }

    /// Takes all waiters of a revision when no instance is left that could serve these waiters. Otherwise the next
    /// instance starts after a pause.
    pub(super) fn waiters_without_hope(&mut self, revision: Revision, pause: Duration) -> Vec<G> {
        let count = self.count(revision);
        if count.starting + count.busy + count.idle > 0 {
            let again = self.now() + pause;
            self.queues.entry(revision).and_modify(|queue| queue.starts_again = Some(again));
            return Vec::new();
        }
        self.take_waiters(revision)
    }

    /// Takes all waiters of a revision.
    pub(super) fn take_waiters(&mut self, revision: Revision) -> Vec<G> {
        std::iter::from_fn(|| self.pop_waiter(revision)).collect()
    }

    /// The function of a revision that has a queue.
    pub(super) fn function(&self, revision: Revision) -> Option<&Arc<Function>> {
        self.queues.get(&revision).map(|queue| &queue.function)
    }

    /// Whether a caller waits for an instance of this revision.
    pub(super) fn waits_for(&self, revision: Revision) -> bool {
        self.queues.get(&revision).is_some_and(|queue| !queue.waiters.is_empty())
    }

    /// Whether an invocation waits for an instance of this revision. An update's look at the new code is none.
    fn has_call(&self, revision: Revision) -> bool {
        self.queues.get(&revision).is_some_and(|queue| queue.waiters.iter().any(|waiter| !waiter.is_warm_up))
    }

    pub(super) fn has_idle(&self, revision: Revision) -> bool {
        self.queues.get(&revision).is_some_and(|queue| !queue.idle.is_empty())
    }

    /// Takes the idle instance that was used last. The caller must set the phase of the instance's permit.
    pub(super) fn take_idle(&mut self, revision: Revision) -> Option<(Key, I)> {
        let (key, instance, _) = self.queues.get_mut(&revision)?.idle.pop_back()?;
        Some((key, instance))
    }

    pub(super) fn park(&mut self, key: Key, instance: I) {
        self.set_phase(key, Phase::Idle);
        let now = self.now();
        let revision = self.permits[&key].0;
        let queue = self.queues.get_mut(&revision).expect("a function that is kept has a queue");
        queue.idle.push_back((key, instance, now));
    }

    /// Takes a revision's longest idle instance. The caller must drop the instance, which removes the container.
    pub(super) fn evict(&mut self, revision: Revision) -> Option<I> {
        let (key, instance, _) = self.queues.get_mut(&revision)?.idle.pop_front()?;
        self.set_phase(key, Phase::Ending);
        Some(instance)
    }

    /// Ends all instances that have been idle for this long, but for those that are kept.
    pub(super) fn drop_idle_since(&mut self, now: Instant, timeout: Duration) {
        self.forget_residents(now, timeout);
        while let Some((_, revision)) = self.first_to_expire().filter(|&(since, _)| since + timeout <= now) {
            drop(self.evict(revision));
        }
        self.forget_unused();
    }

    pub(super) fn next_expiry(&self, timeout: Duration) -> Option<Instant> {
        self.first_to_expire().map(|(since, _)| since + timeout)
    }

    /// Takes a permit and a user for a new instance. No other permit has the same user. `takes_slot` says that a slot
    /// would have done, had a slot been ready.
    pub(super) fn begin_start(&mut self, revision: Revision, takes_slot: bool) -> Option<(Key, u32, Arc<Function>)> {
        self.next_number += 1;
        let key = self.next_number;
        let function = self.begin_instance(revision, key, takes_slot)?;
        Some((key, self.uids.take(key), function))
    }

    /// Has an instance of a revision start with this permit.
    fn begin_instance(&mut self, revision: Revision, key: Key, takes_slot: bool) -> Option<Arc<Function>> {
        let now = self.now();
        let queue = self.queues.get_mut(&revision)?;
        let function = Arc::clone(&queue.function);
        if queue.pressed_since.is_some() {
            queue.pressed_since = Some(now);
        }
        self.permits.insert(key, (revision, Phase::Starting));
        self.note_start(&function, takes_slot);
        Some(function)
    }

    /// Sets the phase of a permit. A permit that is already free stays free.
    pub(super) fn set_phase(&mut self, key: Key, phase: Phase) {
        let now = self.now();
        let Some((revision, current)) = self.permits.get_mut(&key) else { return };
        if let (Phase::Busy(since), Phase::Ending | Phase::Idle | Phase::Busy(_)) = (*current, phase)
            && let Some(queue) = self.queues.get_mut(revision)
        {
            // A moving average over the latest invocations: the duration may change with the input.
            queue.service_time = (queue.service_time * 7 + now.saturating_duration_since(since)) / 8;
        }
        if matches!(phase, Phase::Busy(_)) {
            self.residents.note_use(*revision, now);
        }
        *current = match (*current, phase) {
            (Phase::Busy(_) | Phase::Cut, Phase::Ending) => Phase::Cut,
            (_, phase) => phase,
        };
    }

    /// Frees a permit and its user. The permit's container must be gone.
    pub(super) fn free(&mut self, key: Key) {
        self.permits.remove(&key);
        self.slots.free(key, self.now());
        self.uids.give_back(key);
    }

    /// Whether the pool keeps instances of this revision.
    pub(super) fn keeps(&self, revision: Revision) -> bool {
        !self.closed && self.queues.get(&revision).is_some_and(|queue| !queue.function.is_retired())
    }

    /// Forgets a revision. Its idle instances end when the caller drops the returned instances. Its waiters see a
    /// closed channel.
    pub(super) fn retire(&mut self, revision: Revision) -> Vec<I> {
        self.residents.remove(revision);
        self.slots_again.remove(&revision);
        let Some(queue) = self.queues.remove(&revision) else { return Vec::new() };
        self.waiting -= queue.waiters.len();
        self.spares -= usize::from(queue.wants_spare);
        self.allot();
        for (key, ..) in &queue.idle {
            self.set_phase(*key, Phase::Ending);
        }
        queue.idle.into_iter().map(|(_, instance, _)| instance).collect()
    }

    /// Forgets all revisions. Nothing is handed out any more.
    pub(super) fn close(&mut self) -> (Vec<I>, Vec<S>) {
        self.closed = true;
        let ids: Vec<Revision> = self.queues.keys().copied().collect();
        (ids.into_iter().flat_map(|revision| self.retire(revision)).collect(), self.slots.close())
    }

    /// The number of permits that no container holds.
    pub(super) fn free_permits(&self) -> usize {
        self.limit.saturating_sub(self.permits.len() + self.slots.len())
    }

    /// Asks for an instance for which no caller waits. The instance starts once there is room, unless the revision has
    /// an idle or starting instance then.
    pub(super) fn want_spare(&mut self, revision: Revision) {
        if let Some(queue) = self.queues.get_mut(&revision)
            && !queue.wants_spare
        {
            queue.wants_spare = true;
            self.spares += 1;
        }
    }

    /// The policy's next step.
    pub(super) fn next_step(&mut self, may_take: &dyn Fn(&Function) -> bool) -> Option<Step<Revision>> {
        if self.waiting > 0 {
            self.note_takers(may_take);
            let ([_, slots, _], spare_slots) = (self.slots.phases(), self.slots.spare(self.now()));
            let room = Room { free: self.free_permits(), ending: self.ending(), slots, spare_slots };
            let step = policy::next(&self.demands(), room);
            if step.is_some() {
                return step;
            }
        }
        if self.spares == 0 || self.free_permits() == 0 {
            return None;
        }
        let revision = *self.queues.iter().find(|(_, queue)| queue.wants_spare)?.0;
        let count = self.count(revision);
        self.queues.get_mut(&revision)?.wants_spare = false;
        self.spares -= 1;
        if count.starting + count.idle == 0 { Some(Step::Start(revision)) } else { self.next_step(may_take) }
    }

    pub(super) fn should_yield(&self, revision: Revision) -> bool {
        let own = self.queues.get(&revision).map_or(0, |queue| queue.waiters.len());
        // The common case needs no look at all functions.
        if self.waiting == own {
            return false;
        }
        let demands = self.demands();
        policy::should_yield(&demands, revision, self.limit, self.free_permits(), self.ending())
    }

    /// Drops the queues of revisions without instances, waiters, wishes for a spare and instances to keep.
    fn forget_unused(&mut self) {
        let used: std::collections::HashSet<Revision> = self.permits.values().map(|&(revision, _)| revision).collect();
        self.queues.retain(|revision, queue| {
            used.contains(revision) || !queue.waiters.is_empty() || queue.wants_spare || queue.warmth.asked > 0
        });
    }
}

impl<I, G> Queue<I, G> {
    fn relieve(&mut self) {
        if self.waiters.is_empty() {
            self.pressed_since = None;
        }
    }
}

//! The part of the pool's books that is about slots: takes, starts of slots, and who would have had room without slots.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Phase, State};
use crate::domain::Language;
use crate::functions::{Function, Revision};
use crate::sandbox::pool::Key;
use crate::sandbox::pool::refill::{self, Refill, Room};
use crate::sandbox::pool::residents::Held;

impl<I, S, G> State<I, S, G> {
    /// Takes a permit and a user for a new slot. No other permit has the same user.
    pub(in crate::sandbox::pool) fn begin_slot(&mut self, language: Language) -> (Key, u32) {
        self.next_number += 1;
        self.slots.begin(language, self.next_number);
        (self.next_number, self.uids.take(self.next_number))
    }

    /// Takes a ready slot for a revision. The slot's permit and user are the revision's from now on.
    pub(in crate::sandbox::pool) fn begin_take(&mut self, revision: Revision) -> Option<(Key, S, Arc<Function>)> {
        let language = self.queues.get(&revision)?.function.version.language;
        let (key, slot) = self.slots.take(language)?;
        let function = self.begin_instance(revision, key, true)?;
        Some((key, slot, function))
    }

    /// Notes that a slot did not become an instance of this revision. The next instances start without a slot.
    pub(in crate::sandbox::pool) fn note_failed_take(&mut self, revision: Revision, key: Key, pause: Duration) {
        self.set_phase(key, Phase::Ending);
        self.pause_slots(revision, pause);
    }

    /// Lets a revision take no slot for a while.
    pub(in crate::sandbox::pool) fn pause_slots(&mut self, revision: Revision, pause: Duration) {
        if self.keeps(revision) {
            let again = self.now() + pause;
            self.slots_again.insert(revision, again);
        }
    }

    /// Notes which callers can take a slot that is ready or starts, as far as `may_take` says.
    pub(super) fn note_takers(&mut self, may_take: &dyn Fn(&Function) -> bool) {
        let now = self.now();
        let has_slot =
            Language::ALL.map(|language| self.slots.ready(language) > 0 || self.slots.coming(language, now).is_some());
        for (revision, queue) in &mut self.queues {
            let is_paused = || self.slots_again.get(revision).is_some_and(|&again| now < again);
            queue.takes_slots = !queue.waiters.is_empty()
                && has_slot[queue.function.version.language as usize]
                && !is_paused()
                && may_take(&queue.function);
        }
    }

    /// Whether a slot starts that the revision's first caller can take.
    pub(super) fn awaits_slot(&self, revision: Revision) -> bool {
        let Some(queue) = self.queues.get(&revision).filter(|queue| queue.takes_slots) else { return false };
        self.count(revision).live() == 0 && self.slots.coming(queue.function.version.language, self.now()) > Some(0)
    }

    /// Notes that an instance starts. A start for which nobody waits says nothing about slots.
    pub(super) fn note_start(&mut self, function: &Function, takes_slot: bool) {
        let (now, limit) = (self.now(), self.limit);
        if self.has_call(function.revision) {
            self.evictions.note_start(function.revision.function, now);
        }
        let mut residents = std::mem::take(&mut self.residents);
        let is_short = residents.note_start(function.revision, now, limit, |revision| self.held(revision));
        self.residents = residents;
        if takes_slot && self.waits_for(function.revision) {
            self.slots.note_use(function.version.language, is_short, now);
        }
    }

    /// Forgets the functions whose instances would have ended by now, and pauses that are over.
    pub(super) fn forget_residents(&mut self, now: Instant, timeout: Duration) {
        self.slots_again.retain(|_, again| now < *again);
        if let Some(time) = now.checked_sub(timeout) {
            let mut residents = std::mem::take(&mut self.residents);
            residents.forget_before(time, |revision| self.held(revision));
            self.residents = residents;
        }
    }

    fn held(&self, revision: Revision) -> Held {
        let count = self.count(revision);
        Held { count: count.starting + count.busy + count.idle, is_busy: count.starting + count.busy > 0 }
    }

    /// The next step for slots.
    pub(in crate::sandbox::pool) fn next_refill(&self) -> Option<Refill> {
        if self.closed {
            return None;
        }
        let now = self.now();
        let [slots, ..] = self.slots.phases();
        let room = Room {
            free: self.free_permits(),
            ending: self.ending(),
            starting: slots + self.permits.values().filter(|(_, phase)| matches!(phase, Phase::Starting)).count(),
            callers: self.callers(now),
            oldest_idle: self.longest_idle().map(|(since, _)| now.saturating_duration_since(since)),
        };
        refill::next(&self.slots.supplies(now), room)
    }

    /// Whether the next step for slots may change without an event.
    pub(in crate::sandbox::pool) fn is_refill_pending(&self) -> bool {
        refill::is_pending(&self.slots.supplies(self.now()), self.free_permits())
    }
}

//! Which functions would have an instance if there were no slots. Synchronous and without Docker.
//!
//! A slot is a help only where functions need more containers than there are. An instance that ended for a slot is no
//! reason for more slots: otherwise each slot would end an instance, whose function takes a slot at its next call, and
//! so on, where all functions had room.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::functions::Revision;

/// The functions that would have an instance, each with the time of its last use.
#[derive(Debug, Default)]
pub(super) struct Residents(HashMap<Revision, Instant>);

/// The instances that a function has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    /// All instances.
    pub(super) count: usize,
    /// Some instance starts or runs an invocation, so the function can't lose all its instances.
    pub(super) is_busy: bool,
}

impl Residents {
    /// Notes that an invocation of the function begins.
    pub(super) fn note_use(&mut self, revision: Revision, now: Instant) {
        self.0.insert(revision, now);
    }

    /// Notes that the function gets one more instance, which `held` counts. Returns whether the functions need more
    /// than `limit` containers now. Then the function that was not used for the longest time would lose its instances.
    pub(super) fn note_start(
        &mut self,
        revision: Revision,
        now: Instant,
        limit: usize,
        held: impl Fn(Revision) -> Held,
    ) -> bool {
        self.0.insert(revision, now);
        let mut used: Vec<(Instant, Revision, Held)> =
            self.0.iter().map(|(&revision, &used)| (used, revision, held(revision))).collect();
        let mut total: usize = used.iter().map(|(_, _, held)| held.count.max(1)).sum();
        let is_short = total > limit;
        used.sort_unstable_by_key(|&(used, ..)| used);
        for (_, other, held) in used.into_iter().filter(|&(_, other, held)| other != revision && !held.is_busy) {
            if total <= limit {
                break;
            }
            total -= held.count.max(1);
            self.0.remove(&other);
        }
        is_short
    }

    /// Forgets a function that has gone.
    pub(super) fn remove(&mut self, revision: Revision) {
        self.0.remove(&revision);
    }

    /// Forgets the functions whose instances would have ended by now, as the last use was before this time.
    pub(super) fn forget_before(&mut self, time: Instant, held: impl Fn(Revision) -> Held) {
        self.0.retain(|&revision, used| time < *used || held(revision).count > 0);
    }
}

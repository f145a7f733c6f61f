//! Decides from a snapshot of the pool which containers start and which containers end. Pure.

use std::time::Duration;

use crate::domain::Language;

/// The approximate cost of a start. When an instance becomes free in less than this time, no further instance starts.
pub(super) const START_COST: Duration = Duration::from_millis(250);
/// A queue that has not been empty for this long is no burst, so a further instance starts.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// An instance that has been idle for less than this time is in use: its function's next request may be on its way.
pub(super) const IN_USE: Duration = Duration::from_secs(1);

/// The instances of one function, and the callers that wait for an instance.
#[derive(Clone, Debug, Default)]
pub(super) struct Demand<K> {
    pub(super) function: K,
    /// Callers without an instance.
    pub(super) waiting: usize,
    /// A client waits for one of these callers.
    pub(super) is_urgent: bool,
    /// How long the first caller in the queue has waited.
    pub(super) oldest_wait: Duration,
    /// How long the queue has not been empty, or the time since the last start for this queue when that is shorter.
    pub(super) pressed_for: Duration,
    /// Instances that start.
    pub(super) starting: usize,
    /// Instances that run an invocation.
    pub(super) busy: usize,
    /// Instances that wait for an invocation.
    pub(super) idle: usize,
    /// How long the longest idle instance has been idle.
    pub(super) oldest_idle: Duration,
    /// How long an invocation takes: the average of the latest invocations, or the longest running invocation so far.
    pub(super) service_time: Duration,
    /// The slots that are ready and that the function can take.
    pub(super) slots: usize,
    /// Where functions miss slots, and this function can take a slot: the language, and how many slots start.
    pub(super) coming: Option<(Language, usize)>,
    /// A start has just failed, so no further instance starts for a moment.
    pub(super) is_paused: bool,
    /// The function's own limit on invocations at one time.
    pub(super) limit: Option<usize>,
    /// Invocations that run, those of the function's other revisions included.
    pub(super) running: usize,
    /// Instances that are kept whatever idles.
    pub(super) kept: usize,
}

impl<K> Demand<K> {
    fn live(&self) -> usize {
        self.starting + self.busy + self.idle
    }

    /// How many further instances could run an invocation within the function's own limit.
    fn room(&self) -> usize {
        self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(self.starting + self.idle + self.running))
    }

    /// How many idle instances may end, to make room.
    pub(super) fn evictable(&self) -> usize {
        if self.waiting == 0 {
            return self.idle.min(self.live().saturating_sub(self.kept));
        }
        // A function with waiting callers is about to use its idle instances, but for those over its own limit.
        let surplus = self.limit.map_or(0, |limit| (self.starting + self.idle + self.running).saturating_sub(limit));
        self.idle.min(surplus).min(self.live().saturating_sub(self.kept.max(1)))
    }

    /// How many further instances this function should have if there were room.
    pub(super) fn wanted(&self) -> usize {
        let uncovered = self.waiting.saturating_sub(self.starting);
        if uncovered == 0 {
            return 0;
        }
        if self.live() == 0 {
            // All callers share one instance at first. If invocations take long, the next decision starts more
            // instances. An instance may start while an old revision's invocation still uses up the function's limit.
            return 1;
        }
        let instances = u32::try_from(self.busy + self.idle).unwrap_or(u32::MAX).max(1);
        let drained_in = self.service_time.saturating_mul(u32::try_from(uncovered).unwrap_or(u32::MAX)) / instances;
        let wanted = if drained_in > START_COST {
            uncovered
        } else {
            usize::from(self.pressed_for >= PATIENCE && self.starting == 0)
        };
        wanted.min(self.room())
    }

    /// Whether the function takes a slot now. Callers for which no client waits leave the last slot to the others,
    /// while a container can start.
    fn takes_slot(&self, free: usize) -> bool {
        self.slots > usize::from(!self.is_urgent && free > 0)
    }
}

impl<K> Demand<K> {
    /// The slots that the function's first caller waits for, in place of a container of the function's own. Where
    /// functions miss slots, such containers would take the processors from slots: calls that come as fast as
    /// containers start would never find a slot again.
    fn missed_slot(&self) -> Option<(Language, usize)> {
        self.coming.filter(|_| self.is_urgent && self.live() == 0)
    }

    /// Whether a slot starts for the function's first caller. Each slot is promised once.
    fn awaits_slot(&self, promised: &mut [usize; Language::ALL.len()]) -> bool {
        let Some((language, coming)) = self.missed_slot() else { return false };
        let promised = &mut promised[language as usize];
        *promised += 1;
        *promised <= coming
    }
}

/// The next action of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step<K> {
    /// Make a slot an instance of this function.
    Take(K),
    /// Start an instance of this function, as there is room.
    Start(K),
    /// Start a slot of this language for a caller that waits, as there is room.
    StartSlot(Language),
    /// End the slot that is missed least, to make room.
    EndSlot,
    /// End this function's longest idle instance, to make room.
    Evict(K),
}

/// The room for containers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// The permits that can be used now.
    pub(super) free: usize,
    /// The permits that become free soon.
    pub(super) ending: usize,
    /// The slots that are ready.
    pub(super) slots: usize,
    /// The ready slots that functions do not miss.
    pub(super) spare_slots: usize,
}

/// The next step, if any.
pub(super) fn next<K: Copy>(demands: &[Demand<K>], room: Room) -> Option<Step<K>> {
    let Room { free, ending, slots, spare_slots } = room;
    // Functions with a waiting client come first, then the functions with the fewest instances, and among these
    // functions the function that has waited longest.
    let order = |demand: &&Demand<K>| (!demand.is_urgent, demand.live(), std::cmp::Reverse(demand.oldest_wait));
    let wanting = demands.iter().filter(|demand| demand.wanted() > 0 && !demand.is_paused);
    // A slot needs no further room, and takes a tenth of the time of a start.
    if let Some(first) = wanting.clone().filter(|demand| demand.takes_slot(free)).min_by_key(order) {
        return Some(Step::Take(first.function));
    }
    let mut wanting: Vec<_> = wanting.collect();
    wanting.sort_by_key(order);
    let all = wanting.len();
    let mut promised = [0; Language::ALL.len()];
    wanting.retain(|demand| !demand.awaits_slot(&mut promised));
    let first = *wanting.first()?;
    if free > 0 {
        return Some(
            first.missed_slot().map_or(Step::Start(first.function), |(language, _)| Step::StartSlot(language)),
        );
    }
    let wanted = demands.iter().map(Demand::wanted).sum::<usize>().saturating_sub(all - wanting.len());
    if wanted <= ending {
        return None;
    }
    if spare_slots > 0 {
        return Some(Step::EndSlot);
    }
    let mut evictable: Vec<_> = demands.iter().filter(|demand| demand.evictable() > 0).collect();
    if first.live() > 0 {
        // A function that has an instance must not take an instance that another function uses regularly.
        evictable.retain(|demand| demand.oldest_idle >= IN_USE);
    }
    let oldest = evictable.into_iter().max_by_key(|demand| demand.oldest_idle);
    match oldest {
        // A slot makes room before an instance in use.
        Some(demand) if demand.oldest_idle >= IN_USE || slots == 0 => Some(Step::Evict(demand.function)),
        Some(_) | None => (slots > 0).then_some(Step::EndSlot),
    }
}

/// Whether an instance of the function `own` that becomes free should end, to make room for a function with less than
/// its share.
pub(super) fn should_yield<K: Copy + PartialEq>(
    demands: &[Demand<K>],
    own: K,
    limit: usize,
    free: usize,
    ending: usize,
) -> bool {
    let Some(mine) = demands.iter().find(|demand| demand.function == own) else { return false };
    if mine.live() <= mine.kept {
        return false;
    }
    let active = demands.iter().filter(|demand| demand.waiting > 0 || demand.busy > 0 || demand.starting > 0).count();
    // What is kept is nobody's to share.
    let kept: usize = demands.iter().map(|demand| demand.kept.min(demand.live())).sum();
    let share = limit.saturating_sub(kept) / active.max(1);
    let shared = |demand: &Demand<K>| demand.live().saturating_sub(demand.kept);
    let is_background = mine.waiting > 0 && !mine.is_urgent;
    let starved = demands.iter().filter(|demand| {
        let comes_before = demand.is_urgent && is_background;
        let is_behind =
            demand.live() == 0 || (shared(demand) < share && (demand.is_urgent || !mine.is_urgent)) || comes_before;
        // With more functions than containers, functions take turns in the order of their requests.
        let order = (demand.is_urgent, demand.oldest_wait).cmp(&(mine.is_urgent, mine.oldest_wait));
        let is_first = share > 0 || mine.waiting == 0 || order.is_gt();
        // A function without a waiting client keeps one instance, so that its invocations go on.
        let least = if comes_before { share.min(1) } else { share };
        demand.function != own && demand.wanted() > 0 && is_behind && is_first && shared(mine) > least
    });
    starved.count() > free + ending
}

#[cfg(test)]
mod tests;

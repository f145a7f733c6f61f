//! Decides when slots start and end. Pure.

use std::time::Duration;

use super::policy::IN_USE;
use crate::domain::Language;

/// From this sum on, slots are missed: an idle instance ends to make room for a slot. Two functions in about forty
/// seconds make this sum.
const OFTEN: f64 = 1.5;

/// The slots of one language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supply {
    pub(super) language: Language,
    /// The language's image is there.
    pub(super) has_image: bool,
    /// The last start has just failed.
    pub(super) is_paused: bool,
    pub(super) ready: usize,
    pub(super) starting: usize,
    /// The most slots.
    pub(super) limit: usize,
    /// How many functions wanted a slot lately.
    pub(super) uses: f64,
    /// How many of these functions had no instance for want of room, were there no slots.
    pub(super) misses: f64,
}

impl Supply {
    /// Whether functions miss the slots, so that idle instances make room for slots.
    pub(super) fn is_missed(&self) -> bool {
        self.misses >= OFTEN
    }

    /// How many slots are to be ready. Where there is room, one slot is held also where no function has wanted a slot
    /// lately.
    fn wanted(&self) -> usize {
        (self.uses.ceil() as usize).clamp(1, self.limit.max(1)).min(self.limit)
    }

    fn is_short(&self) -> bool {
        self.has_image && !self.is_paused && self.starting == 0 && self.ready < self.wanted()
    }
}

/// The next step for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refill {
    /// Start a slot, as there is room.
    Start(Language),
    /// End the longest idle instance, to make room for a slot.
    Evict,
    /// End a slot that is one too many, or that nobody misses where another language's slots are missed.
    End(Language),
}

/// The next step, if any. `free` permits can be used now, `ending` permits soon. A start takes processor time, so no
/// slot starts while a caller waits.
pub(super) fn next(
    supplies: &[Supply],
    (free, ending): (usize, usize),
    has_waiters: bool,
    oldest_idle: Option<Duration>,
) -> Option<Refill> {
    if let Some(surplus) = supplies.iter().find(|supply| supply.ready > supply.wanted()) {
        return Some(Refill::End(surplus.language));
    }
    if has_waiters {
        return None;
    }
    let short = supplies.iter().filter(|supply| supply.is_short());
    // The languages whose slots are missed come first, and among these the language with the fewest slots.
    let first = short.min_by_key(|supply| (!supply.is_missed(), supply.ready))?;
    if free > 0 {
        return Some(Refill::Start(first.language));
    }
    if ending > 0 || !first.is_missed() {
        return None;
    }
    if let Some(spare) = supplies.iter().find(|supply| supply.ready > 0 && !supply.is_missed()) {
        return Some(Refill::End(spare.language));
    }
    oldest_idle.is_some_and(|idle| idle >= IN_USE).then_some(Refill::Evict)
}

/// Whether the decision may change without an event, or waits for Docker, which is away. `free` permits can be used
/// now.
pub(super) fn is_pending(supplies: &[Supply], free: usize) -> bool {
    let may_start = |supply: &Supply| {
        supply.has_image && supply.ready < supply.wanted() && (supply.is_paused || supply.is_missed() || free > 0)
    };
    supplies.iter().any(|supply| supply.ready > 1 || may_start(supply))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON: Supply = Supply {
        language: Language::Python,
        has_image: true,
        is_paused: false,
        ready: 0,
        starting: 0,
        limit: 2,
        uses: 5.0,
        misses: 5.0,
    };
    const GO: Supply = Supply { language: Language::Go, ..PYTHON };
    const IDLE: Option<Duration> = Some(IN_USE);

    #[test]
    fn slots_start_one_at_a_time_where_there_is_room() {
        let next = |supply| next(&[supply], (1, 0), false, None);
        assert_eq!(next(PYTHON), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { starting: 1, ..PYTHON }), None);
        assert_eq!(next(Supply { ready: 1, ..PYTHON }), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { ready: 2, ..PYTHON }), None);
        assert_eq!(next(Supply { has_image: false, ..PYTHON }), None);
        assert_eq!(next(Supply { is_paused: true, ..PYTHON }), None);
        assert_eq!(next(Supply { limit: 0, ..PYTHON }), None);
    }

    #[test]
    fn no_slot_starts_while_a_caller_waits() {
        assert_eq!(next(&[PYTHON], (1, 0), true, None), None);
    }

    #[test]
    fn the_language_without_a_slot_comes_first() {
        let go = Some(Refill::Start(Language::Go));
        assert_eq!(next(&[Supply { ready: 1, ..PYTHON }, GO], (1, 0), false, None), go);
    }

    #[test]
    fn an_idle_instance_makes_room_only_where_slots_are_missed() {
        let next = |supply, room, idle| next(&[supply], room, false, idle);
        assert_eq!(next(PYTHON, (0, 0), IDLE), Some(Refill::Evict));
        assert_eq!(next(PYTHON, (0, 1), IDLE), None, "a container ends already");
        assert_eq!(next(PYTHON, (0, 0), Some(IN_USE / 2)), None, "the instance is in use");
        assert_eq!(next(Supply { misses: 1.0, ..PYTHON }, (0, 0), IDLE), None, "one function has missed a slot");
    }

    #[test]
    fn a_slot_that_nobody_misses_makes_room_before_an_instance() {
        let go = Supply { ready: 1, uses: 0.1, misses: 0.1, ..GO };
        assert_eq!(next(&[PYTHON, go], (0, 0), false, IDLE), Some(Refill::End(Language::Go)));
        assert_eq!(next(&[PYTHON, Supply { misses: 2.0, ..go }], (0, 0), false, IDLE), Some(Refill::Evict));
        assert_eq!(
            next(&[PYTHON, Supply { ready: 0, ..go }], (1, 0), false, None),
            Some(Refill::Start(Language::Python))
        );
    }

    #[test]
    fn slots_that_no_function_wants_end_but_for_one() {
        let next = |ready, uses| next(&[Supply { ready, uses, ..PYTHON }], (0, 0), true, None);
        assert_eq!(next(2, 0.7), Some(Refill::End(Language::Python)));
        assert_eq!(next(2, 1.1), None);
        assert_eq!(next(1, 0.0), None);
    }

    #[test]
    fn the_time_changes_what_is_missed_and_what_is_paused() {
        let unmissed = Supply { uses: 0.0, misses: 0.0, ..PYTHON };
        let is_pending = |supply| is_pending(&[supply], 0);
        assert!(is_pending(PYTHON) && is_pending(Supply { ready: 2, ..unmissed }));
        assert!(is_pending(Supply { is_paused: true, ..unmissed }));
        assert!(!is_pending(unmissed) && super::is_pending(&[unmissed], 1), "there is room once Docker is back");
        assert!(!super::is_pending(&[Supply { ready: 1, ..unmissed }], 1));
        assert!(!super::is_pending(&[Supply { has_image: false, is_paused: true, ..PYTHON }], 1));
    }
}

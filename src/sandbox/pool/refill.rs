//! Decides when slots start and end. Pure.

use std::time::Duration;

use super::policy::IN_USE;
use crate::domain::Language;

/// From this rate on, an idle instance ends to make room for a slot: functions miss slots often.
const OFTEN: f64 = 1.0;

/// The slots of one language.
#[derive(Clone, Copy, Debug)]
pub(super) struct Supply {
    pub(super) language: Language,
    /// The language's image is there, and the last start did not just fail.
    pub(super) can_start: bool,
    pub(super) ready: usize,
    pub(super) starting: usize,
    /// The most slots.
    pub(super) limit: usize,
    /// How many functions wanted a slot lately.
    pub(super) rate: f64,
}

impl Supply {
    /// How many slots are to be ready. One slot is held also where no function has wanted a slot lately.
    fn wanted(&self) -> usize {
        (self.rate.ceil() as usize).clamp(1, self.limit.max(1)).min(self.limit)
    }

    fn is_short(&self) -> bool {
        self.can_start && self.starting == 0 && self.ready < self.wanted()
    }
}

/// The next step for slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refill {
    /// Start a slot, as there is room.
    Start(Language),
    /// End the longest idle instance, to make room for a slot.
    Evict,
    /// End a slot that is one too many.
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
    // The language with the fewest slots comes first.
    let first = short.min_by_key(|supply| supply.ready)?;
    if free > 0 {
        return Some(Refill::Start(first.language));
    }
    let is_worth_it = first.rate >= OFTEN && oldest_idle.is_some_and(|idle| idle >= IN_USE);
    (ending == 0 && is_worth_it).then_some(Refill::Evict)
}

/// Whether the decision may change without an event.
pub(super) fn is_pending(supplies: &[Supply]) -> bool {
    supplies.iter().any(|supply| supply.limit > 0 && (supply.ready > 1 || supply.ready < supply.wanted()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON: Supply =
        Supply { language: Language::Python, can_start: true, ready: 0, starting: 0, limit: 2, rate: 5.0 };
    const GO: Supply = Supply { language: Language::Go, ..PYTHON };
    const IDLE: Option<Duration> = Some(IN_USE);

    #[test]
    fn slots_start_one_at_a_time_where_there_is_room() {
        let next = |supply| next(&[supply], (1, 0), false, None);
        assert_eq!(next(PYTHON), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { starting: 1, ..PYTHON }), None);
        assert_eq!(next(Supply { ready: 1, ..PYTHON }), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { ready: 2, ..PYTHON }), None);
        assert_eq!(next(Supply { can_start: false, ..PYTHON }), None);
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
        assert_eq!(next(Supply { rate: 0.9, ..PYTHON }, (0, 0), IDLE), None);
    }

    #[test]
    fn slots_that_no_function_wants_end_but_for_one() {
        let next = |ready, rate| next(&[Supply { ready, rate, ..PYTHON }], (0, 0), true, None);
        assert_eq!(next(2, 0.7), Some(Refill::End(Language::Python)));
        assert_eq!(next(2, 1.1), None);
        assert_eq!(next(1, 0.0), None);
        assert!(
            is_pending(&[Supply { ready: 2, ..PYTHON }]) && !is_pending(&[Supply { ready: 1, rate: 0.0, ..PYTHON }])
        );
    }
}

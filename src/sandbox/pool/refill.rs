//! Decides when slots start and end. Pure.

use std::time::Duration;

use super::policy::IN_USE;
use crate::domain::Language;

/// From this sum on, slots are missed: an idle instance ends to make room for a slot. One function makes this sum for
/// some seconds, and functions that come more often than once a minute make this sum for good.
const OFTEN: f64 = 0.9;
/// The most containers that start at one time when a slot starts. With 1 to 4 starts at one time Docker starts 2.9,
/// 4.8, 5.6 and 5.8 containers a second (measured on two processors), and a caller's start takes longer by each.
const MAX_STARTS: usize = 3;

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

    /// How many slots of the language start at one time.
    fn most_starts(&self) -> usize {
        if self.is_missed() { 2 } else { 1 }
    }

    /// Whether one more slot is to start, now or after the slot that starts.
    fn is_short(&self) -> bool {
        self.has_image && !self.is_paused && self.ready + self.starting < self.wanted()
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

/// The callers that wait for an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// No caller waits.
    None,
    /// An instance starts for each caller that waits.
    Covered,
    /// A caller waits for room.
    Uncovered,
}

/// What slots share with instances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// The permits that can be used now.
    pub(super) free: usize,
    /// The permits that become free soon.
    pub(super) ending: usize,
    /// The instances and slots that start.
    pub(super) starting: usize,
    pub(super) callers: Callers,
    /// How long the longest idle instance has been idle.
    pub(super) oldest_idle: Option<Duration>,
}

/// The next step, if any. A start takes processor time. So no slot starts while a caller waits for room, and while
/// other callers wait only slots start that functions miss: otherwise calls that come as fast as containers start would
/// never find a slot.
pub(super) fn next(supplies: &[Supply], room: Room) -> Option<Refill> {
    if let Some(surplus) = supplies.iter().find(|supply| supply.ready > supply.wanted()) {
        return Some(Refill::End(surplus.language));
    }
    if room.callers == Callers::Uncovered {
        return None;
    }
    let may_start = |supply: &&Supply| room.callers == Callers::None || supply.is_missed();
    let short = supplies.iter().filter(|supply| supply.is_short()).filter(may_start);
    // The languages whose slots are missed come first, and among these the language with the fewest slots.
    let order = |supply: &&Supply| (!supply.is_missed(), supply.ready + supply.starting);
    if room.free > 0 {
        let next = short.filter(|supply| supply.starting < supply.most_starts()).min_by_key(order)?;
        return (room.starting < MAX_STARTS).then_some(Refill::Start(next.language));
    }
    // Room for the next slot is made while slots start.
    let first = short.min_by_key(order)?;
    if room.ending > 0 || !first.is_missed() {
        return None;
    }
    if let Some(spare) = supplies.iter().find(|supply| supply.ready > 0 && !supply.is_missed()) {
        return Some(Refill::End(spare.language));
    }
    room.oldest_idle.is_some_and(|idle| idle >= IN_USE).then_some(Refill::Evict)
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
    const ROOM: Room = Room { free: 1, ending: 0, starting: 0, callers: Callers::None, oldest_idle: None };
    const FULL: Room = Room { free: 0, oldest_idle: IDLE, ..ROOM };

    #[test]
    fn slots_start_where_there_is_room() {
        let next = |supply| next(&[supply], ROOM);
        assert_eq!(next(PYTHON), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { ready: 1, ..PYTHON }), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { ready: 2, ..PYTHON }), None);
        assert_eq!(next(Supply { has_image: false, ..PYTHON }), None);
        assert_eq!(next(Supply { is_paused: true, ..PYTHON }), None);
        assert_eq!(next(Supply { limit: 0, ..PYTHON }), None);
    }

    #[test]
    fn two_slots_start_at_one_time_only_where_slots_are_missed() {
        let next = |supply, starting| next(&[supply], Room { starting, ..ROOM });
        let starts = Supply { starting: 1, limit: 4, ..PYTHON };
        assert_eq!(next(starts, 1), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { misses: 0.0, ..starts }, 1), None);
        assert_eq!(next(Supply { starting: 2, ..starts }, 2), None);
        assert_eq!(next(PYTHON, MAX_STARTS), None, "instances start");
        assert_eq!(next(Supply { limit: 1, ..starts }, 1), None, "that slot is enough");
    }

    #[test]
    fn while_callers_wait_only_missed_slots_start() {
        let next = |supply, callers| next(&[supply], Room { callers, ..ROOM });
        assert_eq!(next(PYTHON, Callers::Uncovered), None);
        assert_eq!(next(PYTHON, Callers::Covered), Some(Refill::Start(Language::Python)));
        assert_eq!(next(Supply { misses: 0.0, ..PYTHON }, Callers::Covered), None);
    }

    #[test]
    fn the_language_without_a_slot_comes_first() {
        let go = Some(Refill::Start(Language::Go));
        assert_eq!(next(&[Supply { ready: 1, ..PYTHON }, GO], ROOM), go);
        let python = Supply { starting: 2, limit: 4, ..PYTHON };
        assert_eq!(next(&[python, Supply { ready: 3, limit: 4, ..GO }], ROOM), go, "Python has its starts");
    }

    #[test]
    fn an_idle_instance_makes_room_only_where_slots_are_missed() {
        let next = |supply, room| next(&[supply], room);
        assert_eq!(next(PYTHON, FULL), Some(Refill::Evict));
        assert_eq!(next(PYTHON, Room { callers: Callers::Covered, ..FULL }), Some(Refill::Evict));
        assert_eq!(next(PYTHON, Room { ending: 1, ..FULL }), None, "a container ends already");
        assert_eq!(next(PYTHON, Room { oldest_idle: Some(IN_USE / 2), ..FULL }), None, "the instance is in use");
        assert_eq!(next(Supply { misses: 0.8, ..PYTHON }, FULL), None, "a function missed a slot long ago");
        let starts = Supply { starting: 1, ..PYTHON };
        assert_eq!(next(starts, FULL), Some(Refill::Evict), "the next slot will need room");
        assert_eq!(next(Supply { ready: 1, ..starts }, FULL), None, "the slots are enough");
    }

    #[test]
    fn a_slot_that_nobody_misses_makes_room_before_an_instance() {
        let go = Supply { ready: 1, uses: 0.1, misses: 0.1, ..GO };
        assert_eq!(next(&[PYTHON, go], FULL), Some(Refill::End(Language::Go)));
        assert_eq!(next(&[PYTHON, Supply { misses: 2.0, ..go }], FULL), Some(Refill::Evict));
        assert_eq!(next(&[PYTHON, Supply { ready: 0, ..go }], ROOM), Some(Refill::Start(Language::Python)));
    }

    #[test]
    fn slots_that_no_function_wants_end_but_for_one() {
        let room = Room { callers: Callers::Uncovered, ..FULL };
        let next = |ready, uses| next(&[Supply { ready, uses, ..PYTHON }], room);
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

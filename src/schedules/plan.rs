//! Decides what becomes of a schedule's slots that have come: pure, by the time that is given.

use std::time::Duration;

use super::times::Times;
use crate::domain::{DueSlot, Missed, SkipReason, Skipped, Step};

/// A slot that a node finds within this time is on time. The time is that between two slots of the densest schedule,
/// so no schedule has two slots that are on time.
pub(super) const ON_TIME: Duration = Duration::from_secs(60);

/// A schedule whose slots are decided on further ahead than this was at work while the clock was wrong. As in cron,
/// smaller steps of the clock are no reason to have a slot twice.
pub(super) const CORRECTION: Duration = Duration::from_secs(3 * 3600);

/// The step of a schedule whose next slot has come at `now`, in Unix milliseconds.
///
/// The slot that is on time gets a run. Earlier slots are missed: they get one run together where the policy says so.
/// A slot that is on time at the same moment makes up for them, too.
pub(super) fn step(due: &DueSlot, times: &Times, now: u64) -> Step {
    let now_seconds = now / 1000;
    let is_on_time = |slot: u64| now < slot * 1000 + millis(ON_TIME);
    let on_time = if is_on_time(due.slot) {
        Some(due.slot)
    } else {
        let late = now.saturating_sub(millis(ON_TIME)) / 1000;
        times.next(late.max(due.slot)).filter(|&slot| slot <= now_seconds)
    };
    let missed = (on_time != Some(due.slot)).then_some(due.slot);
    let makes_up = missed.filter(|_| due.missed == Missed::Once);
    let run = on_time.or(makes_up);
    let settled_at = on_time.unwrap_or(now_seconds);
    Step {
        function_id: due.function_id,
        name: due.name.clone(),
        revision: due.revision,
        from: due.slot,
        settled_at,
        next_at: times.next(settled_at),
        skipped: missed.filter(|_| makes_up.is_none()).map(|slot| Skipped { slot, reason: SkipReason::Missed }),
        run,
        overlap: due.overlap,
    }
}

/// The step of a schedule whose slots were decided on while the clock was wrong: its next slot is the first after
/// `now`, in Unix milliseconds.
pub(super) fn correction(ahead: &DueSlot, times: &Times, now: u64) -> Step {
    let settled_at = now / 1000;
    Step {
        function_id: ahead.function_id,
        name: ahead.name.clone(),
        revision: ahead.revision,
        from: ahead.slot,
        settled_at,
        next_at: times.next(settled_at),
        skipped: None,
        run: None,
        overlap: ahead.overlap,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FunctionId, Overlap};

    const HOUR: u64 = 3600;
    /// A slot of `@hourly`.
    const SLOT: u64 = 1_800_000_000;

    fn at(cron: &str, missed: Missed, after_slot: Duration) -> (Option<u64>, Option<u64>, u64, Option<u64>) {
        let due = DueSlot {
            function_id: FunctionId::random(),
            name: "one".parse().unwrap(),
            revision: 1,
            cron: cron.to_owned(),
            timezone: "UTC".to_owned(),
            overlap: Overlap::Skip,
            missed,
            slot: SLOT,
        };
        let times = Times::new(cron, "UTC").unwrap();
        let Step { run, skipped, settled_at, next_at, .. } = step(&due, &times, SLOT * 1000 + millis(after_slot));
        (run, skipped.map(|skipped| skipped.slot), settled_at, next_at)
    }

    #[test]
    fn a_slot_is_on_time_for_a_minute_and_missed_then() {
        assert_eq!(SLOT % HOUR, 0);
        let (next, skip, once) = (Some(SLOT + HOUR), Missed::Skip, Missed::Once);
        for missed in [skip, once] {
            for late in [0, 1, 59_999] {
                let found = at("@hourly", missed, Duration::from_millis(late));
                assert_eq!(found, (Some(SLOT), None, SLOT, next), "{late}");
            }
        }
        let late = Duration::from_secs(60);
        assert_eq!(at("@hourly", skip, late), (None, Some(SLOT), SLOT + 60, next));
        assert_eq!(at("@hourly", once, late), (Some(SLOT), None, SLOT + 60, next));
    }

    #[test]
    fn slots_that_were_missed_have_one_run_or_none() {
        let days = Duration::from_secs(3 * 24 * HOUR + 600);
        let now = SLOT + days.as_secs();
        let next = Some(SLOT + 73 * HOUR);
        assert_eq!(at("@hourly", Missed::Skip, days), (None, Some(SLOT), now, next));
        assert_eq!(at("@hourly", Missed::Once, days), (Some(SLOT), None, now, next));
    }

    #[test]
    fn a_slot_on_time_makes_up_for_those_before() {
        let hours = Duration::from_secs(5 * HOUR + 2);
        let (slot, next) = (SLOT + 5 * HOUR, Some(SLOT + 6 * HOUR));
        assert_eq!(at("@hourly", Missed::Skip, hours), (Some(slot), Some(SLOT), slot, next));
        assert_eq!(at("@hourly", Missed::Once, hours), (Some(slot), None, slot, next));
        // Each minute.
        let minutes = Duration::from_secs(60);
        let (slot, next) = (SLOT + 60, Some(SLOT + 120));
        assert_eq!(at("* * * * *", Missed::Once, minutes), (Some(slot), None, slot, next));
        let minutes = Duration::from_millis(119_999);
        assert_eq!(at("* * * * *", Missed::Skip, minutes), (Some(slot), Some(SLOT), slot, next));
    }
}

//! When a notification is tried again. Pure, but for the random part.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The pauses between the tries, the first as Standard Webhooks suggests. Together, a day.
const PAUSES: [Duration; 7] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3600),
    Duration::from_secs(5 * 3600),
    Duration::from_secs(7 * 3600),
    Duration::from_secs(9 * 3600),
];
/// A random part makes a pause up to this share longer, so that what failed at one time is not tried again at one time.
const JITTER: f64 = 0.1;
/// All pauses with their random parts are shorter. A later try comes only where the service was away.
const TRIED_FOR: Duration = Duration::from_secs(27 * 3600);
/// A notification that is so old is not even tried once: the service was away, or the receiver is slower than the
/// function.
const KEPT_FOR: Duration = Duration::from_secs(48 * 3600);

/// The pause after a try with this number, from 1 on. None after the last try.
pub(super) fn pause(attempt: u32) -> Option<Duration> {
    let pause = PAUSES.get(usize::try_from(attempt).ok()?.checked_sub(1)?)?;
    Some(pause.mul_f64(1.0 + JITTER * share()))
}

/// Whether a try comes too late for a notification of this age.
pub(super) fn is_too_late(attempt: u32, age: Duration) -> bool {
    age > if attempt > 1 { TRIED_FOR } else { KEPT_FOR }
}

/// A random number from 0 to 1.
fn share() -> f64 {
    let mut bytes = [0; 4];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random numbers");
    f64::from(u32::from_ne_bytes(bytes)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_differ_and_end_after_a_day() {
        let all: Vec<Duration> = (1..=8).map_while(pause).collect();
        assert_eq!(all.len(), PAUSES.len(), "eight tries");
        assert!(all.is_sorted() && all[0] < Duration::from_secs(6), "{all:?}");
        let hours = |all: &[Duration]| all.iter().sum::<Duration>().as_secs_f64() / 3600.0;
        assert!((23.5..26.5).contains(&hours(&all)), "{all:?}");
        assert!(PAUSES.iter().sum::<Duration>().mul_f64(1.0 + JITTER) < TRIED_FOR);
        assert_ne!((1..=7).filter_map(pause).collect::<Vec<_>>(), all);
        assert_eq!((pause(0), pause(8)), (None, None));
    }

    #[test]
    fn what_is_too_old_is_not_tried() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert!(!is_too_late(8, hours(26)) && is_too_late(2, hours(28)));
        assert!(!is_too_late(1, hours(47)) && is_too_late(1, hours(49)));
    }
}

//! What invocations came to, minute by minute, in the last hour of this node: in memory, for the overview.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::Outcome;

/// The number of minutes.
pub const MINUTES: usize = 60;
/// The number of buckets of durations. Each bucket is an eighth of an octave wide, so that a percentile is right to 9
/// percent. The first bucket ends at 64 µs, the last begins at more than an hour.
const BUCKETS: usize = 8 * 26;
/// Durations below this many microseconds are in the first bucket.
const LEAST: u64 = 64;

static HOUR: Mutex<Hour> = Mutex::new(Hour(VecDeque::new()));

/// The invocations that ended within a minute.
#[derive(Clone, Debug)]
pub struct Minute {
    /// The minute's number, from 1970 on.
    pub number: u64,
    /// The number of invocations that ended.
    pub invocations: u32,
    /// The number of these that failed.
    pub failures: u32,
    /// The number of these that waited for a container to start.
    pub cold_starts: u32,
    /// The number of durations in each bucket.
    durations: Box<[u32; BUCKETS]>,
}

impl Minute {
    fn new(number: u64) -> Self {
        Self { number, invocations: 0, failures: 0, cold_starts: 0, durations: Box::new([0; BUCKETS]) }
    }

    /// The duration that this part of the invocations does not exceed, such as 0.99. None where there is no invocation.
    pub fn percentile(&self, part: f64) -> Option<Duration> {
        let rank = (f64::from(self.invocations) * part).ceil().max(1.0);
        let mut seen = 0;
        let bucket = self.durations.iter().position(|&count| {
            seen += count;
            f64::from(seen) >= rank
        });
        bucket.map(|bucket| Duration::from_micros((LEAST as f64 * 2f64.powf((bucket as f64 + 0.5) / 8.0)) as u64))
    }
}

/// Notes the end of an invocation at a time in Unix seconds.
pub fn note(at: u64, outcome: Outcome, duration: Duration, is_cold: bool) {
    HOUR.lock().note(at, outcome, duration, is_cold);
}

/// The minutes of the hour before a time in Unix seconds that had invocations, the oldest first.
pub fn last_hour(at: u64) -> Vec<Minute> {
    HOUR.lock().until(at)
}

/// The last minutes that had invocations, the oldest first.
struct Hour(VecDeque<Minute>);

impl Hour {
    fn note(&mut self, at: u64, outcome: Outcome, duration: Duration, is_cold: bool) {
        let number = at / 60;
        if self.0.back().is_none_or(|minute| minute.number < number) {
            self.0.push_back(Minute::new(number));
            if self.0.len() > MINUTES {
                self.0.pop_front();
            }
        }
        // A clock that was set back leaves its invocations in the last minute.
        let Some(minute) = self.0.back_mut() else { return };
        minute.invocations += 1;
        minute.failures += u32::from(Outcome::FAILED.contains(&outcome));
        minute.cold_starts += u32::from(is_cold);
        minute.durations[bucket(duration)] += 1;
    }

    fn until(&self, at: u64) -> Vec<Minute> {
        let oldest = (at / 60 + 1).saturating_sub(MINUTES as u64);
        self.0.iter().filter(|minute| minute.number >= oldest).cloned().collect()
    }
}

fn bucket(duration: Duration) -> usize {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).max(LEAST);
    ((8.0 * (micros as f64 / LEAST as f64).log2()) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_have_counts_and_percentiles() {
        let (at, mut hour) = (60_000_000, Hour(VecDeque::new()));
        for n in 0..100 {
            hour.note(at, Outcome::Ok, Duration::from_millis(if n < 98 { 2 } else { 900 }), n == 0);
        }
        hour.note(at + 59, Outcome::Timeout, Duration::from_hours(9), false);
        hour.note(at + 60, Outcome::Cancelled, Duration::ZERO, false);
        let found = hour.until(at + 60);
        assert_eq!(found.iter().map(|minute| minute.invocations).collect::<Vec<_>>(), [101, 1]);
        assert_eq!((found[0].failures, found[0].cold_starts, found[1].failures), (1, 1, 0));
        let millis = |part| found[0].percentile(part).unwrap().as_secs_f64() * 1e3;
        assert!((1.8..2.2).contains(&millis(0.5)) && (820.0..980.0).contains(&millis(0.99)), "{}", millis(0.99));
        assert!(found[0].percentile(1.0).unwrap() > Duration::from_hours(1));
        assert_eq!(hour.until(at + 60 * 60).len(), 1);
        assert_eq!(Minute::new(1).percentile(0.5), None);
    }
}

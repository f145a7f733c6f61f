//! The time of day, as the store, labels and answers have it, and moments that stay comparable through a suspend.

use std::ops::Add;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

/// The time since 1970 in UTC; zero where the machine's clock is set to a time before that.
pub fn unix_time() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

/// The time of day.
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The time of day that many seconds after the beginning of 1970 in UTC.
pub fn at(unix_seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds)
}

/// Unix seconds.
pub fn unix_seconds() -> u64 {
    unix_time().as_secs()
}

/// Unix milliseconds.
pub fn unix_millis() -> u64 {
    u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX)
}

/// A moment by the clock of this machine that goes on while the machine is suspended (CLOCK_BOOTTIME). The clock of
/// `Instant` stands still then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// The moment of this call.
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let duration = |number: i64| u64::try_from(number).unwrap_or_default();
        Self(Duration::from_secs(duration(now.tv_sec)) + Duration::from_nanos(duration(now.tv_nsec)))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

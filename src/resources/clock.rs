//! The time of day, as the store, labels and answers have it.

use std::time::{Duration, SystemTime};

/// The time since 1970 in UTC; zero where the machine's clock is set to a time before that.
pub fn unix_time() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
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

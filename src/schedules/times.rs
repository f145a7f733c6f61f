//! The slots of a schedule: the times of its five fields in its time zone, as moments. No I/O after the zone is known.
//!
//! Where the clock of the zone changes, slots follow cron (Vixie cron and cronie), which follow the reader's intent:
//!
//! - A schedule at times of day (neither the minute nor the hour begins with `*`) has each of its times once. A time in
//!   the hour that the clock skips comes right after the change, and all such times are one slot. Of a time that the
//!   clock shows twice, the first counts.
//! - A schedule at intervals (the minute or the hour begins with `*`) has each moment at which the clock shows one of
//!   its times: none in a skipped hour, and both in an hour that comes twice.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use thiserror::Error;

use super::cron::{Cron, CronError};

/// The slots of a schedule.
#[derive(Clone, Debug)]
pub(super) struct Times {
    cron: Cron,
    zone: TimeZone,
}

/// Why a schedule has no slots.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TimesError {
    /// The five fields can't be read.
    #[error(transparent)]
    Cron(#[from] CronError),
    /// There is no such time zone.
    #[error("`timezone` is {0:?}, which is no time zone of the IANA database; give it a name such as Europe/Berlin")]
    Zone(String),
}

/// A change of a zone's clock.
struct Change {
    at: Timestamp,
    /// What the clock would show at the change without the change.
    without: DateTime,
    /// What the clock shows.
    with: DateTime,
}

impl Times {
    /// The slots of these five fields in this time zone. Reads files: the time zones of the machine, where it has any,
    /// and else those of this program.
    pub(super) fn new(cron: &str, timezone: &str) -> Result<Self, TimesError> {
        let zone = zone(timezone).ok_or_else(|| TimesError::Zone(timezone.chars().take(64).collect()))?;
        Ok(Self { cron: Cron::parse(cron)?, zone })
    }

    /// The zone's name as the IANA database writes it.
    pub(super) fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The first slot after this moment, both in Unix seconds. None where the calendar ends.
    pub(super) fn next(&self, after: u64) -> Option<u64> {
        let mut from = Timestamp::from_second(i64::try_from(after).ok()?.checked_add(1)?).ok()?;
        // From change to change of the zone's clock: in between, the clock differs from UTC by one offset.
        let found = loop {
            let offset = self.zone.to_offset(from);
            let mut earliest = offset.to_datetime(from);
            if !self.cron.is_interval
                && let Some(change) = self.change_before(from)
            {
                if change.at == from && self.is_skipped(&change) {
                    break from;
                }
                // What the clock shows for the second time is over.
                earliest = earliest.max(change.without);
            }
            let at = offset.to_timestamp(self.cron.next(earliest)?).ok()?;
            match self.zone.following(from).next().map(|next| next.timestamp()) {
                Some(change) if change <= at => from = change,
                Some(_) | None => break at,
            }
        };
        u64::try_from(found.as_second()).ok()
    }

    /// The first slots after this moment.
    pub(super) fn upcoming(&self, after: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(self.next(after), |&slot| self.next(slot))
    }

    /// Whether the clock skips one of the schedule's times at this change.
    fn is_skipped(&self, change: &Change) -> bool {
        change.without < change.with && self.cron.next(change.without).is_some_and(|time| time < change.with)
    }

    /// The last change of the zone's clock at or before this moment.
    fn change_before(&self, moment: Timestamp) -> Option<Change> {
        let second = jiff::SignedDuration::from_secs(1);
        let at = self.zone.preceding(moment.checked_add(second).ok()?).next()?.timestamp();
        let before = self.zone.to_offset(at.checked_sub(second).ok()?);
        Some(Change { at, without: before.to_datetime(at), with: self.zone.to_offset(at).to_datetime(at) })
    }
}

fn zone(name: &str) -> Option<TimeZone> {
    let is_name = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_+-".contains(&b));
    if !is_name {
        return None;
    }
    // A machine's own zones may be fewer, as Debian keeps old names in a package of their own.
    let found = TimeZone::get(name).or_else(|_| TimeZoneDatabase::bundled().get(name)).ok()?;
    found.iana_name().is_some().then_some(found)
}

#[cfg(test)]
mod tests;

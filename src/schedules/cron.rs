//! The times of a schedule by the wall clock: five fields as in crontab(5), by the crate `croner`.
//!
//! Croner takes more than the fields of crontab(5) and has rules of its own for changes of the clock. So a text is
//! checked before croner reads it, and croner only ever sees times without a zone: `times` knows the clock's changes.

use std::cmp::Ordering;

use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDateTime, CronDateTime, Resolution, Weekday};
use jiff::SignedDuration;
use jiff::civil::DateTime;
use thiserror::Error;

/// The names that stand for five fields.
const NICKNAMES: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];
const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The longest text.
const MAX_LENGTH: usize = 256;

/// Five fields.
#[derive(Clone, Debug)]
pub(super) struct Cron {
    fields: croner::Cron,
    /// Whether the minute or the hour begins with `*`: the schedule is then an interval, and not a time of day.
    pub(super) is_interval: bool,
}

/// Why a text is no schedule.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CronError {
    /// The text begins with `@`, and is none of the known names.
    #[error(
        "`cron` is {0:?}; the names are @hourly, @daily, @midnight, @weekly, @monthly, @yearly and @annually, and \
         there is none for a start of the service or for other intervals"
    )]
    Nickname(String),
    /// The text does not have five fields.
    #[error(
        "`cron` has {0} fields; give it five: minute, hour, day of month, month and day of week. There are no seconds, \
         as no schedule runs more often than once a minute"
    )]
    Fields(usize),
    /// A field has something that crontab(5) does not know.
    #[error(
        "the {field} of `cron` is {text:?}; a field has numbers, ranges (1-5), lists (1,3), steps (*/15, 10-40/10) and \
         `*`, and names for months (JAN) and days of the week (MON)"
    )]
    Form {
        /// The field's name.
        field: &'static str,
        /// The field's text.
        text: String,
    },
    /// Croner's own words: a number is out of its range, or a range is upside down.
    #[error("`cron` can't be read: {0}")]
    Unreadable(String),
    /// The text is too long.
    #[error("`cron` has more than {MAX_LENGTH} characters")]
    TooLong,
    /// There is no such day.
    #[error("`cron` means a day that never comes, such as 30 February")]
    Never,
}

impl Cron {
    /// Reads five fields, or one of the names that begin with `@`.
    pub(super) fn parse(text: &str) -> Result<Self, CronError> {
        if text.len() > MAX_LENGTH {
            return Err(CronError::TooLong);
        }
        let text = text.trim();
        let known = NICKNAMES.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
        let text = match known {
            Some((_, fields)) => fields,
            None if text.starts_with('@') => return Err(CronError::Nickname(text.to_owned())),
            None => text,
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if fields.len() != FIELDS.len() {
            return Err(CronError::Fields(fields.len()));
        }
        for (index, field) in fields.iter().enumerate() {
            check(index, field)?;
        }
        let begins_with_star = |index: usize| fields[index].starts_with('*');
        // As in crontab(5): where both fields of days are restricted, a day that fits either is meant. A field that
        // begins with `*`, also `*/2`, is not restricted, and a day must fit both.
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed);
        let parser = parser.dom_and_dow(begins_with_star(2) || begins_with_star(4)).build();
        let parsed = parser.parse(&fields.join(" ")).map_err(|error| CronError::Unreadable(error.to_string()))?;
        let cron = Self { fields: parsed, is_interval: begins_with_star(0) || begins_with_star(1) };
        if cron.next(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)).is_none() {
            return Err(CronError::Never);
        }
        Ok(cron)
    }

    /// The first time by the wall clock that fits, from `from` on. None where none is left in the calendar.
    pub(super) fn next(&self, from: DateTime) -> Option<DateTime> {
        self.fields.find_next_occurrence(&Wall(from), true).ok().map(|Wall(found)| found)
    }
}

/// Refuses what crontab(5) does not have.
fn check(index: usize, field: &str) -> Result<(), CronError> {
    let names: &[&str] = match index {
        3 => &MONTHS,
        4 => &DAYS,
        _ => &[],
    };
    let is_sign = |c: char| matches!(c, '*' | ',' | '-' | '/');
    let is_known = |word: &str| {
        word.is_empty()
            || word.bytes().all(|byte| byte.is_ascii_digit()) && word.len() <= 3
            || names.iter().any(|name| word.eq_ignore_ascii_case(name))
    };
    let has_gap =
        field.split(',').any(|item| item.is_empty() || item.starts_with(['-', '/']) || item.ends_with(['-', '/']));
    if !has_gap && field.split(is_sign).all(is_known) {
        return Ok(());
    }
    Err(CronError::Form { field: FIELDS[index], text: field.to_owned() })
}

/// A time by the wall clock, without a zone, as croner takes times.
#[derive(Clone, Copy, Debug)]
struct Wall(DateTime);

impl CronDateTime for Wall {
    fn to_civil(&self) -> CivilDateTime {
        let part = |number: i8| u32::from(number.unsigned_abs());
        let (date, time) = (self.0.date(), self.0.time());
        let day = (i32::from(date.year()), part(date.month()), part(date.day()));
        CivilDateTime::from_ymd_hms_opt(
            day.0,
            day.1,
            day.2,
            part(time.hour()),
            part(time.minute()),
            part(time.second()),
        )
        .expect("a time of one calendar is a time of the other")
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(u32::from(self.0.weekday().to_sunday_zero_offset().unsigned_abs()))
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, croner::errors::CronError> {
        let part = |number: u32| i8::try_from(number).unwrap_or(i8::MAX);
        let year = i16::try_from(civil.year()).unwrap_or(i16::MAX);
        let (month, day) = (part(civil.month()), part(civil.day()));
        DateTime::new(year, month, day, part(civil.hour()), part(civil.minute()), part(civil.second()), 0)
            .map(|time| Resolution::Single(Self(time)))
            .map_err(|_| croner::errors::CronError::InvalidDate)
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        self.0.checked_add(SignedDuration::from_secs(seconds)).ok().map(Self)
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(text: &str) -> DateTime {
        text.parse().unwrap()
    }

    /// The first three times from a Friday on.
    #[track_caller]
    fn check_next(cron: &str, expected: [&str; 3]) {
        let cron = Cron::parse(cron).unwrap();
        let mut from = wall("2027-01-01T00:00:00");
        for expected in expected {
            let found = cron.next(from).unwrap();
            assert_eq!(found, wall(expected));
            from = found.checked_add(SignedDuration::from_secs(1)).unwrap();
        }
    }

    #[test]
    fn fields_mean_what_crontab_says() {
        check_next("*/20 * * * *", ["2027-01-01T00:00", "2027-01-01T00:20", "2027-01-01T00:40"]);
        check_next("5,10-11 9 * * *", ["2027-01-01T09:05", "2027-01-01T09:10", "2027-01-01T09:11"]);
        check_next("0 12 1 feb-apr *", ["2027-02-01T12:00", "2027-03-01T12:00", "2027-04-01T12:00"]);
        check_next("0 0 * * Fri-Sun", ["2027-01-01T00:00", "2027-01-02T00:00", "2027-01-03T00:00"]);
        check_next("0 0 * * 7", ["2027-01-03T00:00", "2027-01-10T00:00", "2027-01-17T00:00"]);
        check_next("0 0 29 2 *", ["2028-02-29T00:00", "2032-02-29T00:00", "2036-02-29T00:00"]);
        check_next(" @Weekly ", ["2027-01-03T00:00", "2027-01-10T00:00", "2027-01-17T00:00"]);
        check_next("@midnight", ["2027-01-01T00:00", "2027-01-02T00:00", "2027-01-03T00:00"]);
        check_next("@annually", ["2027-01-01T00:00", "2028-01-01T00:00", "2029-01-01T00:00"]);
    }

    #[test]
    fn two_restricted_fields_of_days_mean_either_and_a_star_means_both() {
        check_next("0 0 13 * 5", ["2027-01-01T00:00", "2027-01-08T00:00", "2027-01-13T00:00"]);
        check_next("0 0 13 * *", ["2027-01-13T00:00", "2027-02-13T00:00", "2027-03-13T00:00"]);
        check_next("0 0 * * 1", ["2027-01-04T00:00", "2027-01-11T00:00", "2027-01-18T00:00"]);
        // The odd days that are Mondays.
        check_next("0 0 */2 * 1", ["2027-01-11T00:00", "2027-01-25T00:00", "2027-02-01T00:00"]);
        check_next("0 0 1-7 * */7", ["2027-01-03T00:00", "2027-02-07T00:00", "2027-03-07T00:00"]);
    }

    #[test]
    fn an_interval_has_a_minute_or_an_hour_that_begins_with_a_star() {
        for (cron, expected) in [
            ("* * * * *", true),
            ("*/5 2 * * *", true),
            ("0 * * * *", true),
            ("30 */2 * * *", true),
            ("@hourly", true),
            ("30 2 * * *", false),
            ("0-59 2 * * *", false),
            ("0 1,2,3 * * *", false),
            ("@daily", false),
        ] {
            assert_eq!(Cron::parse(cron).unwrap().is_interval, expected, "{cron}");
        }
    }

    #[test]
    fn what_crontab_does_not_have_is_refused_with_words() {
        let refused = |text: &str| match Cron::parse(text) {
            Ok(_) => panic!("{text:?} is taken"),
            Err(error) => error.to_string(),
        };
        assert!(refused("@reboot").contains("@hourly"), "{}", refused("@reboot"));
        assert!(refused("@every 5m").contains("@hourly"));
        assert!(refused("0 */5 * * * *").contains("6 fields"), "{}", refused("0 */5 * * * *"));
        assert!(refused("* * * *").contains("4 fields"));
        assert!(refused("").contains("0 fields"));
        for text in ["0 0 L * *", "0 0 15W * *", "0 0 * * 5#3", "0 0 ? * *", "0 0 * * +1", "0 JAN * * *", "é * * * *"]
        {
            assert!(refused(text).contains("`cron` is"), "{text}: {}", refused(text));
        }
        for text in ["60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "9-5 * * * *", "*/0 * * * *"] {
            assert!(refused(text).contains("can't be read"), "{text}: {}", refused(text));
        }
        for text in ["5/10 * * * *", "1,,2 * * * *", "- * * * *", "1- * * * *", "*/ * * * *", ", * * * *"] {
            refused(text);
        }
        assert_eq!(Cron::parse("0 0 30 2 *").err(), Some(CronError::Never));
        assert_eq!(Cron::parse(&"1,".repeat(200)).err(), Some(CronError::TooLong));
    }
}

//! Slots around changes of the clock, at known changes and against a look at each minute.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::*;

fn moment(text: &str) -> u64 {
    let moment: Timestamp = text.parse().unwrap();
    u64::try_from(moment.as_second()).unwrap()
}

/// The slots of a time span, as the clock of the zone shows them.
fn slots(cron: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
    let times = Times::new(cron, zone).unwrap();
    let shown = |slot: u64| {
        let moment = Timestamp::from_second(i64::try_from(slot).unwrap()).unwrap();
        let (time, offset) = (times.zone.to_datetime(moment), times.zone.to_offset(moment).seconds());
        let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.unsigned_abs() / 60);
        let (day, hour, minute) = (time.day(), time.hour(), time.minute());
        format!("{day:02} {hour:02}:{minute:02}{sign}{:02}{:02}", minutes / 60, minutes % 60)
    };
    times.upcoming(moment(from) - 1).take_while(|&slot| slot < moment(until)).map(shown).collect()
}

// Berlin skips 02:00 to 03:00 on 28 March 2027, and shows these twice on 31 October 2027.
const SPRING: (&str, &str) = ("2027-03-27T23:00:00Z", "2027-03-28T03:00:00Z");
const AUTUMN: (&str, &str) = ("2027-10-30T22:00:00Z", "2027-10-31T03:00:00Z");

fn berlin(cron: &str, (from, until): (&str, &str)) -> Vec<String> {
    slots(cron, "Europe/Berlin", from, until)
}

#[test]
fn a_time_of_day_that_the_clock_skips_comes_right_after_the_change() {
    assert_eq!(berlin("30 2 * * *", SPRING), ["28 03:00+0200"]);
    assert_eq!(berlin("0 2 * * *", SPRING), ["28 03:00+0200"]);
    assert_eq!(berlin("59 1 * * *", SPRING), ["28 01:59+0100"]);
    assert_eq!(berlin("0 3 * * *", SPRING), ["28 03:00+0200"]);
    assert_eq!(berlin("15 3 * * *", SPRING), ["28 03:15+0200"]);
    // Several are one slot, also together with a time that the clock shows.
    assert_eq!(berlin("0-59 2 * * *", SPRING), ["28 03:00+0200"]);
    assert_eq!(
        berlin("0,30 1,2,3 * * *", SPRING),
        ["28 01:00+0100", "28 01:30+0100", "28 03:00+0200", "28 03:30+0200"]
    );
    // The day after and a year with another day are as usual.
    assert_eq!(
        slots("30 2 * * *", "Europe/Berlin", "2027-03-26T23:00:00Z", "2027-03-30T00:00:00Z"),
        ["27 02:30+0100", "28 03:00+0200", "29 02:30+0200"]
    );
    // Only where the day fits, too.
    assert_eq!(berlin("30 2 29 * *", SPRING), [""; 0]);
    assert_eq!(berlin("30 2 * * SUN", SPRING), ["28 03:00+0200"]);
}

#[test]
fn a_time_of_day_that_the_clock_shows_twice_comes_once() {
    assert_eq!(berlin("30 2 * * *", AUTUMN), ["31 02:30+0200"]);
    assert_eq!(berlin("0 2 * * *", AUTUMN), ["31 02:00+0200"]);
    assert_eq!(berlin("0 3 * * *", AUTUMN), ["31 03:00+0100"]);
    assert_eq!(berlin("0,45 1-3 * * *", AUTUMN).len(), 6);
    // Also when the search begins within the second hour.
    assert_eq!(slots("30 2 * * *", "Europe/Berlin", "2027-10-31T01:10:00Z", "2027-11-01T02:00:00Z"), ["01 02:30+0100"]);
    assert_eq!(slots("0 3 * * *", "Europe/Berlin", "2027-10-31T01:10:00Z", "2027-10-31T03:00:00Z"), ["31 03:00+0100"]);
}

#[test]
fn an_interval_goes_by_the_time_that_passes() {
    assert_eq!(
        berlin("*/30 * * * *", ("2027-03-28T00:00:00Z", "2027-03-28T02:00:00Z")),
        ["28 01:00+0100", "28 01:30+0100", "28 03:00+0200", "28 03:30+0200"]
    );
    assert_eq!(
        berlin("@hourly", AUTUMN),
        ["31 00:00+0200", "31 01:00+0200", "31 02:00+0200", "31 02:00+0100", "31 03:00+0100"]
    );
    // An hour that the clock skips has no moment.
    assert_eq!(berlin("*/15 2 * * *", SPRING), [""; 0]);
    assert_eq!(berlin("*/30 2 * * *", AUTUMN).len(), 4);
    // Begun within either of the two hours.
    let late = ("2027-10-31T01:10:00Z", "2027-10-31T02:10:00Z");
    assert_eq!(berlin("*/30 * * * *", late), ["31 02:30+0100", "31 03:00+0100"]);
    let early = ("2027-10-31T00:40:00Z", "2027-10-31T01:40:00Z");
    assert_eq!(berlin("*/30 * * * *", early), ["31 02:00+0100", "31 02:30+0100"]);
}

#[test]
fn zones_with_other_changes_follow_the_same_rules() {
    // New York skips 02:00 on 14 March 2027, and shows 01:00 twice on 7 November 2027.
    let new_york = |cron: &str, from, until| slots(cron, "America/New_York", from, until);
    assert_eq!(new_york("30 2 * * *", "2027-03-14T05:00:00Z", "2027-03-15T04:00:00Z"), ["14 03:00-0400"]);
    assert_eq!(new_york("30 1 * * *", "2027-11-07T04:00:00Z", "2027-11-08T05:00:00Z"), ["07 01:30-0400"]);
    assert_eq!(new_york("30 */1 * * *", "2027-11-07T05:00:00Z", "2027-11-07T07:00:00Z").len(), 2);
    // Lord Howe's clock changes by half an hour: 02:00 is 02:30 on 3 October 2027, and 01:30 on 4 April 2027.
    let lord_howe = |cron: &str, from, until| slots(cron, "Australia/Lord_Howe", from, until);
    let (spring, autumn) =
        (("2027-10-02T13:30:00Z", "2027-10-02T20:00:00Z"), ("2027-04-03T13:00:00Z", "2027-04-03T20:00:00Z"));
    assert_eq!(lord_howe("15 2 * * *", spring.0, spring.1), ["03 02:30+1100"]);
    assert_eq!(lord_howe("0 2 * * *", spring.0, spring.1), ["03 02:30+1100"]);
    assert_eq!(lord_howe("45 2 * * *", spring.0, spring.1), ["03 02:45+1100"]);
    assert_eq!(lord_howe("45 1 * * *", autumn.0, autumn.1), ["04 01:45+1100"]);
    assert_eq!(lord_howe("*/45 1 * * *", autumn.0, autumn.1), ["04 01:00+1100", "04 01:45+1100", "04 01:45+1030"]);
    assert_eq!(lord_howe("0 2 * * *", autumn.0, autumn.1), ["04 02:00+1030"]);
    // The clock of Beirut skips the first hour of 28 March 2027, and that of Cairo the first hour of 30 April 2027.
    let beirut = |cron| slots(cron, "Asia/Beirut", "2027-03-27T12:00:00Z", "2027-03-28T12:00:00Z");
    assert_eq!(beirut("@daily"), ["28 01:00+0300"]);
    assert_eq!(beirut("30 0 28 * *"), ["28 01:00+0300"]);
    assert_eq!(beirut("0 1 * * *"), ["28 01:00+0300"]);
    assert_eq!(beirut("@hourly").len(), 24);
    let cairo = |cron| slots(cron, "Africa/Cairo", "2027-04-29T12:00:00Z", "2027-04-30T12:00:00Z");
    assert_eq!(cairo("@midnight"), ["30 01:00+0300"]);
    assert_eq!(cairo("0 0 30 4 *"), ["30 01:00+0300"]);
    // A whole day that the clock of Apia has skipped.
    let apia = slots("0 12 * * *", "Pacific/Apia", "2011-12-29T10:00:00Z", "2011-12-31T12:00:00Z");
    assert_eq!(apia, ["29 12:00-1000", "31 00:00+1400", "31 12:00+1400"]);
}

#[test]
fn names_of_zones_are_checked_and_written_as_the_database_writes_them() {
    assert_eq!(Times::new("@daily", "europe/berlin").unwrap().zone_name(), "Europe/Berlin");
    assert_eq!(Times::new("@daily", "UTC").unwrap().zone_name(), "UTC");
    assert!(Times::new("@daily", "US/Pacific").is_ok(), "an old name");
    for name in ["", "Europe/Bonn", "CEST5", "../etc/passwd", "Etc/Unknown", "+02:00", "a b", &"x/".repeat(60)] {
        assert!(matches!(Times::new("@daily", name), Err(TimesError::Zone(_))), "{name}");
    }
}

/// The slots of a time span by a look at each minute, written apart from the search.
fn by_minutes(cron: &str, zone: &TimeZone, from: u64, until: u64) -> BTreeSet<u64> {
    let fields = Cron::parse(cron).unwrap();
    let fits = |time: DateTime| fields.next(time) == Some(time);
    let shown = |at: u64| {
        let moment = Timestamp::from_second(i64::try_from(at).unwrap()).unwrap();
        zone.to_datetime(moment)
    };
    let minute = SignedDuration::from_mins(1);
    let (mut found, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut last = shown(from - 60);
    for at in (from..until).step_by(60) {
        let now = shown(at);
        let is_new = seen.insert(now);
        let mut skipped = std::iter::successors(Some(last + minute), |&time| Some(time + minute));
        let is_after_gap = !fields.is_interval && skipped.by_ref().take_while(|&time| time < now).any(fits);
        if is_after_gap || fits(now) && (fields.is_interval || is_new) {
            found.insert(at);
        }
        last = now;
    }
    found
}

#[test]
fn the_search_finds_what_a_look_at_each_minute_finds() {
    let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "Africa/Casablanca", "UTC"];
    let crons = ["*/7 * * * *", "17 */3 * * *", "30 1,2,3 * * *", "0-59/20 0-4 * * *", "0 0 * * 0", "45 2 1-7 * *"];
    for name in zones {
        let zone = TimeZone::get(name).unwrap();
        // A week around each change of two years.
        let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let changes =
            zone.following(begin).take(5).map(|change| u64::try_from(change.timestamp().as_second()).unwrap());
        let changes: Vec<u64> = changes.collect();
        for change in if changes.is_empty() { vec![moment("2026-06-01T00:00:00Z")] } else { changes } {
            let (from, until) = (change - 3 * 86_400, change + 4 * 86_400);
            for cron in crons {
                let times = Times::new(cron, name).unwrap();
                let found: BTreeSet<u64> = times.upcoming(from - 1).take_while(|&slot| slot < until).collect();
                assert_eq!(found, by_minutes(cron, &zone, from, until), "{cron} in {name} around {change}");
            }
        }
    }
}

//! A week of schedules on the program itself, whose clock the test sets and which is killed again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{history, put};
use crate::clock::Clock;
use crate::support::{Service, answer, eventually, python};

/// Friday noon before the night in which Berlin's clock goes back.
const BEGIN: u64 = 1_824_804_000;
const END: u64 = BEGIN + 7 * 86_400;
const HALF_HOUR: u64 = 1800;
/// A slot is on time for so long.
const ON_TIME: u64 = 60;
const KILLS: u64 = 24;

/// A schedule, and what is expected of it by a look at each minute.
struct Kind {
    name: &'static str,
    cron: &'static str,
    zone: &'static str,
    overlap: &'static str,
    missed: &'static str,
    /// Hour and minute by the zone's clock.
    fits: fn(i8, i8) -> bool,
    /// Whether a time that the clock shows twice counts twice.
    is_interval: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "halves",
        cron: "*/30 * * * *",
        zone: "UTC",
        overlap: "queue",
        missed: "skip",
        fits: |_, minute| minute % 30 == 0,
        is_interval: true,
    },
    Kind {
        name: "slow",
        cron: "0 * * * *",
        zone: "America/New_York",
        overlap: "skip",
        missed: "skip",
        fits: |_, minute| minute == 0,
        is_interval: true,
    },
    Kind {
        name: "hours",
        cron: "@hourly",
        zone: "Europe/Berlin",
        overlap: "queue",
        missed: "once",
        fits: |_, minute| minute == 0,
        is_interval: true,
    },
    Kind {
        name: "nightly",
        cron: "30 2,3,14 * * *",
        zone: "Europe/Berlin",
        overlap: "queue",
        missed: "once",
        fits: |hour, minute| minute == 30 && [2, 3, 14].contains(&hour),
        is_interval: false,
    },
];

/// What the test has seen, in Unix seconds.
#[derive(Default)]
struct Seen {
    /// When the scheduler has surely looked.
    looks: Vec<u64>,
    /// When the service was killed while the scheduler may have looked.
    kills: Vec<u64>,
    /// The slots of the slow schedule that were skipped for an earlier run.
    overlaps: BTreeSet<u64>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// The slots, by a look at each minute.
fn slots(kind: &Kind) -> Vec<u64> {
    let zone = TimeZone::get(kind.zone).unwrap();
    let (mut found, mut seen) = (Vec::new(), Vec::new());
    for at in (BEGIN + 60..END).step_by(60) {
        let shown = zone.to_datetime(Timestamp::from_second(at.cast_signed()).unwrap());
        if (kind.fits)(shown.hour(), shown.minute()) && (kind.is_interval || !seen.contains(&shown)) {
            seen.push(shown);
            found.push(at);
        }
    }
    found
}

/// Waits until the scheduler has decided on all slots up to now.
async fn settled(service: &Service, ids: &[String; 2], clock: &Clock, seen: &mut Seen) {
    let wake = || put(service, &ids[0], "wake", json!({"cron": "0 0 1 1 *"}));
    wake().await.assert_status(200);
    let now = clock.now();
    let all = eventually("all slots are decided on", async || {
        let mut all: Vec<Value> = Vec::new();
        for id in ids {
            let mut schedules = service.get(&format!("/api/functions/{id}/schedules")).await.assert_status(200);
            all.append(schedules.body.as_array_mut().unwrap());
        }
        let is_settled = |schedule: &Value| schedule["nextAt"].as_u64().unwrap() > now;
        all.iter().all(is_settled).then_some(all)
    })
    .await;
    seen.looks.push(now);
    for schedule in all.iter().filter(|schedule| schedule["lastSkipped"]["reason"] == "overlap") {
        assert_eq!(schedule["name"], "slow");
        seen.overlaps.insert(schedule["lastSkipped"]["slot"].as_u64().unwrap());
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn each_slot_of_a_week_with_kills_is_run_once_or_skipped_by_its_policy() {
    let dir = tempfile::tempdir().unwrap();
    let mut clock = Clock::new(dir.path());
    clock.set(BEGIN);
    let settings: Vec<(&str, String)> =
        clock.settings().iter().map(|&(name, value)| (name, value.to_owned())).collect();
    let mut settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    settings.extend([("INVOCATION_RETENTION", "1000h"), ("DOCKER_CONTAINER_LIMIT", "4")]);
    let mut service = Service::start(dir.path(), &settings).await.healthy().await;
    let quick = service.deploy(python("print('done')\n")).await;
    let slow = service.deploy(python("import time\ntime.sleep(0.15)\n")).await;
    let ids = [quick, slow];
    for kind in &KINDS {
        let definition = json!({"cron": kind.cron, "timezone": kind.zone, "overlap": kind.overlap,
            "missed": kind.missed});
        let id = &ids[usize::from(kind.name == "slow")];
        put(&service, id, kind.name, definition).await.assert_status(200);
    }
    let (mut random, mut seen) = (Random(0x2545_f491_4f6c_dd1d), Seen::default());
    let mut next_kill = BEGIN;
    let mut slot = BEGIN;
    loop {
        slot += HALF_HOUR;
        if slot >= END {
            break;
        }
        clock.set(slot + random.below(30));
        if next_kill > slot {
            settled(&service, &ids, &clock, &mut seen).await;
            continue;
        }
        next_kill += (END - BEGIN) / KILLS;
        let url = format!("{}/api/functions/{}/schedules/wake", service.url, ids[0]);
        let wake = tokio::spawn(service.client.put(url).json(&json!({"cron": "0 0 1 1 *"})).send());
        tokio::time::sleep(Duration::from_micros(random.below(40_000))).await;
        service.signal("KILL");
        seen.kills.push(clock.now());
        service.end().await;
        let _ = wake.await;
        // Away for a moment or for hours, and back while a slot is on time or not.
        slot += [0, 0, 0, 1, 2, 5, 18][usize::try_from(random.below(7)).unwrap()] * HALF_HOUR;
        let back = slot + [32, 100, 1000][usize::try_from(random.below(3)).unwrap()];
        clock.set(back.max(clock.now()));
        service = Service::start(dir.path(), &settings).await;
        settled(&service, &ids, &clock, &mut seen).await;
    }
    assert!(seen.kills.len() >= 20, "{}", seen.kills.len());
    let service = service.healthy().await;
    let runs = eventually("all runs have ended", async || {
        let mut all = history(&service, &ids[0]).await;
        all.append(&mut history(&service, &ids[1]).await);
        let is_open = |run: &Value| ["queued", "running"].contains(&run["outcome"].as_str().unwrap());
        (!all.iter().any(is_open)).then_some(all)
    })
    .await;
    let lost = runs.iter().filter(|run| run["outcome"] == "lost").count();
    eprintln!("{} kills, {} runs, {lost} lost in kills", seen.kills.len(), runs.len());
    assert!(lost <= 4 * seen.kills.len(), "{lost}");
    assert!(runs.iter().all(|run| ["ok", "lost"].contains(&run["outcome"].as_str().unwrap())), "{runs:?}");
    for kind in &KINDS {
        let trigger = format!("schedule:{}", kind.name);
        let runs = runs.iter().filter(|run| run["trigger"] == trigger.as_str());
        let mut runs: Vec<u64> = runs.map(|run| run["createdAt"].as_u64().unwrap()).collect();
        runs.sort_unstable();
        check(kind, &runs, &seen);
    }
    assert_eq!(answer(service.client.get(format!("{}/health", service.url))).await.status, 200);
    service.delete_all(dir.path()).await;
}

fn check(kind: &Kind, runs: &[u64], seen: &Seen) {
    let (name, slots) = (kind.name, slots(kind));
    let has_look = |from: u64, until: u64| seen.looks.iter().any(|&at| from <= at && at < until);
    let has_kill = |from: u64, until: u64| seen.kills.iter().any(|&at| from <= at && at < until);
    let on_time = |slot: u64| runs.iter().filter(|&&at| slot <= at && at < slot + ON_TIME).count();
    let (mut n_runs, mut n_missed, mut n_overlaps) = (0, 0, 0);
    for &slot in &slots {
        let found = on_time(slot);
        let is_skipped = kind.overlap == "skip" && seen.overlaps.contains(&slot);
        assert!(found + usize::from(is_skipped) <= 1, "{name}: slot {slot} has {found} runs, skipped: {is_skipped}");
        n_runs += found;
        n_overlaps += usize::from(is_skipped);
        if found == 1 || is_skipped {
            let was_there = has_look(slot, slot + ON_TIME) || has_kill(slot, slot + ON_TIME);
            assert!(was_there, "{name}: slot {slot} has a run from nowhere");
            continue;
        }
        assert!(!has_look(slot, slot + ON_TIME), "{name}: slot {slot} has no run");
        n_missed += 1;
        if kind.missed == "once" && has_look(slot + ON_TIME, u64::MAX) {
            let made_up = runs.iter().copied().find(|&at| slot + ON_TIME <= at);
            let made_up = made_up.unwrap_or_else(|| panic!("{name}: nothing makes up for slot {slot}"));
            assert!(!has_look(slot + ON_TIME, made_up), "{name}: slot {slot} is made up for late");
        }
    }
    let mut last = 0;
    for &at in runs {
        let is_on_time = slots.iter().any(|&slot| slot <= at && at < slot + ON_TIME);
        let is_missed = |slot: &u64| last < slot + ON_TIME && slot + ON_TIME <= at && on_time(*slot) == 0;
        let makes_up = kind.missed == "once" && slots.iter().any(is_missed);
        assert!(is_on_time || makes_up, "{name}: a run at {at} without a slot");
        last = at;
    }
    eprintln!("{name}: {} slots, {n_runs} runs on time, {n_missed} missed, {n_overlaps} overlaps", slots.len());
    assert_eq!(n_overlaps > 0, kind.overlap == "skip", "{name}");
}

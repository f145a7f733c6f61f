//! A week of slots by a clock that the test sets, on a real store: processes are broken off at any await, are away for
//! a while, and several take turns at once. Each slot has one run, or none where its policy says so.

use std::collections::BTreeMap;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::*;
use crate::config::Secret;
use crate::domain::{
    Changed, Definition, FunctionId, InvocationRecord, Language, Missed, Outcome, Overlap, Package, Page, ScheduleName,
    Trigger,
};
use crate::functions::example;
use crate::store::tests::postgres_server;

const PACKAGE: Package<'_> = Package { zip: b"zip", build_log: "", warnings: &[] };

/// Friday noon before the night in which Berlin's clock goes back.
const BEGIN: u64 = 1_824_804_000;

/// A schedule, and what the test expects of it by a look at each minute.
struct Kind {
    name: &'static str,
    cron: &'static str,
    zone: &'static str,
    overlap: Overlap,
    missed: Missed,
    /// Hour and minute by the zone's clock.
    fits: fn(i8, i8) -> bool,
    /// Whether a time that the clock shows twice counts twice.
    is_interval: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "quarters",
        cron: "*/15 * * * *",
        zone: "UTC",
        overlap: Overlap::Queue,
        missed: Missed::Skip,
        fits: |_, minute| minute % 15 == 0,
        is_interval: true,
    },
    Kind {
        name: "busy",
        cron: "*/10 * * * *",
        zone: "America/New_York",
        overlap: Overlap::Skip,
        missed: Missed::Skip,
        fits: |_, minute| minute % 10 == 0,
        is_interval: true,
    },
    Kind {
        name: "hours",
        cron: "@hourly",
        zone: "Europe/Berlin",
        overlap: Overlap::Queue,
        missed: Missed::Once,
        fits: |_, minute| minute == 0,
        is_interval: true,
    },
    Kind {
        name: "nightly",
        cron: "30 2,3,14 * * *",
        zone: "Europe/Berlin",
        overlap: Overlap::Queue,
        missed: Missed::Once,
        fits: |hour, minute| minute == 30 && [2, 3, 14].contains(&hour),
        is_interval: false,
    },
];

/// What happened: the times are milliseconds.
#[derive(Default)]
struct Ledger {
    /// Turns that began, and whether they were done.
    turns: Vec<(u64, bool)>,
    /// When runs ended.
    ends: BTreeMap<String, u64>,
    kills: u32,
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

/// Polls a future so often, and then drops the future wherever it is. None where the future had not ended.
async fn broken_off<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let (mut future, mut left) = (pin!(future), polls);
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

async fn turn(store: &Store, now: u64) {
    let mut turn = Turn::begin(store, Conditions { now, reserve: Duration::ZERO }).await.unwrap();
    while let Some(step) = turn.next().await.unwrap() {
        let trigger = Trigger::Schedule(step.name.to_string());
        let record = InvocationRecord { trigger, ..InvocationRecord::queued(step.function_id, now, Bytes::new()) };
        let taken = store.take_slot(&step, &record).await;
        turn.note(&step, taken.map_err(AcceptError::from));
    }
    let hindrance = turn.end();
    assert!(hindrance.is_none(), "{hindrance:?}");
}

/// Ends open runs: those of "busy" after up to half an hour, and all others soon.
async fn end_runs(store: &Store, function: FunctionId, now: u64, random: &mut Random, ledger: &mut Ledger) {
    let page = Page { outcomes: vec![Outcome::Queued], ..Page::of(function, 100) };
    for (_, record) in store.invocations(&page).await.unwrap() {
        let is_busy = record.trigger == Trigger::Schedule("busy".to_owned());
        let id = record.id.to_string();
        let longest = if is_busy { 1_800_000 } else { 60_000 };
        let end = *ledger.ends.entry(id).or_insert_with(|| record.created_at + random.below(longest));
        if end <= now {
            ledger.ends.insert(record.id.to_string(), now);
            let ended = InvocationRecord { outcome: Outcome::Ok, ..record };
            assert!(store.update_invocation(&ended, Outcome::Queued, None).await.unwrap());
        }
    }
}

/// Lets schedules run for so many seconds on so many processes, with so many kills.
async fn live(open: impl AsyncFn() -> Store, processes: usize, seconds: u64, kills: u64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut stores = Vec::new();
    for _ in 0..processes {
        stores.push(open().await);
    }
    let function = example::record(Language::Python);
    let inserted = stores[0].insert(&mut function.clone(), PACKAGE, &[], None, false).await.unwrap();
    assert!(matches!(inserted, Changed::Now(_)));
    for kind in &KINDS {
        let times = Times::new(kind.cron, kind.zone).unwrap();
        let definition = Definition {
            cron: kind.cron.to_owned(),
            timezone: kind.zone.to_owned(),
            input: Bytes::from("{}"),
            is_enabled: true,
            overlap: kind.overlap,
            missed: kind.missed,
        };
        let name: ScheduleName = kind.name.parse().unwrap();
        let next = (BEGIN, times.next(BEGIN));
        stores[0].put_schedule(function.id, &name, &definition, next).await.unwrap();
    }
    let (mut now, end) = (BEGIN * 1000, (BEGIN + seconds) * 1000);
    let mut ledger = Ledger::default();
    let mut next_kill = now;
    while now < end {
        now += 1000 + random.below(44_000);
        if kills > 0 && next_kill <= now {
            next_kill += seconds * 1000 / kills;
            let victim = usize::try_from(random.below(processes as u64)).unwrap();
            // Near a slot there is more to break off.
            now = (now / 600_000 + 1) * 600_000 + random.below(2000);
            let done = broken_off(random.below(40), turn(&stores[victim], now)).await.is_some();
            ledger.turns.push((now, done));
            stores[victim] = open().await;
            ledger.kills += 1;
            if processes == 1 {
                // Away for a moment, or for hours.
                now += [0, 500, 50_000, 70_000, 3_000_000, 3_590_000, 20_000_000][ledger.kills as usize % 7];
            }
        }
        let turns = stores.iter().map(|store| turn(store, now));
        futures_util::future::join_all(turns).await;
        ledger.turns.push((now, true));
        end_runs(&stores[0], function.id, now, &mut random, &mut ledger).await;
    }
    assert!(u64::from(ledger.kills) >= kills, "{}", ledger.kills);
    let mut runs: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
    let mut before = None;
    loop {
        let page = Page { before, ..Page::of(function.id, 500) };
        let rows = stores[0].invocations(&page).await.unwrap();
        let Some((place, _)) = rows.last() else { break };
        before = Some(*place);
        for (_, record) in rows {
            runs.entry(record.trigger.to_string()).or_default().push((record.created_at, record.id.to_string()));
        }
    }
    for kind in &KINDS {
        let mut runs = runs.remove(&format!("schedule:{}", kind.name)).unwrap_or_default();
        runs.sort_unstable();
        check(kind, &slots(kind, now / 1000), &runs, &ledger);
    }
}

/// The slots up to this time, in milliseconds, by a look at each minute.
fn slots(kind: &Kind, until: u64) -> Vec<u64> {
    let zone = TimeZone::get(kind.zone).unwrap();
    let (mut found, mut seen) = (Vec::new(), Vec::new());
    for at in (BEGIN + 60..=until).step_by(60) {
        let shown = zone.to_datetime(Timestamp::from_second(i64::try_from(at).unwrap()).unwrap());
        if (kind.fits)(shown.hour(), shown.minute()) && (kind.is_interval || !seen.contains(&shown)) {
            seen.push(shown);
            found.push(at * 1000);
        }
    }
    found
}

fn check(kind: &Kind, slots: &[u64], runs: &[(u64, String)], ledger: &Ledger) {
    const GRACE: u64 = 60_000;
    let name = kind.name;
    let turns_in = |from: u64, until: u64, must_be_done: bool| {
        let mut turns = ledger.turns.iter().filter(|&&(at, done)| from <= at && at < until && (done || !must_be_done));
        turns.next().is_some()
    };
    let on_time = |slot: u64| runs.iter().filter(|(at, _)| slot <= *at && *at < slot + GRACE).count();
    let (mut n_runs, mut n_missed, mut n_overlaps) = (0, 0, 0);
    for &slot in slots {
        let found = on_time(slot);
        assert!(found <= 1, "{name}: slot {slot} has {found} runs");
        n_runs += found;
        if found == 1 {
            assert!(turns_in(slot, slot + GRACE, false), "{name}: slot {slot} has a run from nowhere");
            continue;
        }
        if turns_in(slot, slot + GRACE, true) {
            let is_open = |at: u64, id: &String| at < slot && ledger.ends.get(id).is_none_or(|&end| slot <= end);
            let overlaps = runs.iter().any(|(at, id)| is_open(*at, id));
            assert!(kind.overlap == Overlap::Skip && overlaps, "{name}: slot {slot} has no run");
            n_overlaps += 1;
            continue;
        }
        n_missed += 1;
        if kind.missed == Missed::Once && turns_in(slot + GRACE, u64::MAX, true) {
            let made_up = runs.iter().map(|&(at, _)| at).find(|&at| slot + GRACE <= at);
            let made_up = made_up.unwrap_or_else(|| panic!("{name}: nothing makes up for slot {slot}"));
            assert!(!turns_in(slot + GRACE, made_up, true), "{name}: slot {slot} is made up for late");
        }
    }
    // A run beside the slots makes up for slots that were missed, and for those that no run has made up for.
    let mut last = 0;
    for &(at, _) in runs {
        let is_on_time = slots.iter().any(|&slot| slot <= at && at < slot + GRACE);
        let is_missed = |slot: &u64| last < slot + GRACE && slot + GRACE <= at && on_time(*slot) == 0;
        let makes_up = kind.missed == Missed::Once && slots.iter().any(is_missed);
        assert!(is_on_time || makes_up, "{name}: a run at {at} without a slot");
        last = at;
    }
    println!("{name}: {} slots, {n_runs} runs on time, {n_missed} missed, {n_overlaps} overlaps", slots.len());
    assert!(n_runs * 2 > slots.len() || kind.overlap == Overlap::Skip && n_runs * 5 > slots.len(), "{name}: {n_runs}");
    assert!((n_overlaps > 0) == (kind.overlap == Overlap::Skip), "{name}: {n_overlaps}");
}

#[tokio::test]
async fn a_week_with_kills_has_each_slot_once_or_skipped_by_its_policy() {
    let folder = tempfile::tempdir().unwrap();
    live(async || Store::sqlite(folder.path()).await.unwrap(), 1, 7 * 86_400, 40).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn three_nodes_have_each_slot_once() {
    let url = Secret(postgres_server::database(&format!("schedules-{}", uuid::Uuid::new_v4())));
    live(async || Store::postgres(&url).await.unwrap(), 3, 2 * 86_400, 30).await;
}

#[tokio::test]
async fn three_thousand_schedules_are_begun_within_their_minute() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::sqlite(folder.path()).await.unwrap();
    for _ in 0..150 {
        let function = example::record(Language::Python);
        store.insert(&mut function.clone(), PACKAGE, &[], None, false).await.unwrap();
        for n in 0..20 {
            let definition = Definition {
                cron: "* * * * *".to_owned(),
                timezone: "Europe/Berlin".to_owned(),
                input: Bytes::from("{}"),
                is_enabled: true,
                overlap: Overlap::Skip,
                missed: Missed::Skip,
            };
            let name = format!("s{n}").parse().unwrap();
            store.put_schedule(function.id, &name, &definition, (BEGIN, Some(BEGIN + 60))).await.unwrap();
        }
    }
    let begun = tokio::time::Instant::now();
    turn(&store, (BEGIN + 61) * 1000).await;
    println!("3,000 slots took {:?}", begun.elapsed());
    assert!(begun.elapsed() < ON_TIME, "{:?}", begun.elapsed());
    assert_eq!(store.next_slot(0).await.unwrap(), Some(BEGIN + 120));
    assert!(store.last_invocation().await.unwrap() >= 3000);
    let begun = tokio::time::Instant::now();
    turn(&store, (BEGIN + 62) * 1000).await;
    println!("a look with nothing due took {:?}", begun.elapsed());
}

#[tokio::test]
async fn schedules_that_went_ahead_of_a_wrong_clock_go_on_by_the_time_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::sqlite(folder.path()).await.unwrap();
    let function = example::record(Language::Python);
    store.insert(&mut function.clone(), PACKAGE, &[], None, false).await.unwrap();
    let name: ScheduleName = "hourly".parse().unwrap();
    let definition = Definition {
        cron: "@hourly".to_owned(),
        timezone: "UTC".to_owned(),
        input: Bytes::from("{}"),
        is_enabled: true,
        overlap: Overlap::Queue,
        missed: Missed::Skip,
    };
    let first = BEGIN + 3600;
    store.put_schedule(function.id, &name, &definition, (BEGIN, Some(first))).await.unwrap();
    let next = async || store.schedule(function.id, &name).await.unwrap().unwrap().next_at;
    // A step back of minutes changes nothing: no slot comes twice.
    turn(&store, first * 1000).await;
    turn(&store, (first - 600) * 1000).await;
    assert_eq!((next().await, store.last_invocation().await.unwrap()), (Some(first + 3600), 1));
    let years = 2 * 366 * 86_400;
    turn(&store, (first + years + 1800) * 1000).await;
    assert!(next().await.unwrap() > first + years);
    turn(&store, (first + 7200) * 1000 + 5000).await;
    assert_eq!(next().await, Some(first + 3 * 3600));
    assert_eq!(store.last_invocation().await.unwrap(), 1);
}

//! Tests of schedules as rows: each slot is taken once, and a run is there exactly when its slot is taken.

use super::*;
use crate::domain::{
    DeclaredSchedule, Definition, DueSlot, MAX_SCHEDULES, Missed, Overlap, Schedule, ScheduleName, SkipReason, Skipped,
    Step, Taken, Trigger,
};

on_each_database!(
    a_schedule_is_kept_replaced_and_removed,
    a_function_has_so_many_schedules_and_takes_them_along,
    declared_schedules_come_and_go_with_the_version,
    a_slot_is_taken_once_and_with_its_run,
    a_slot_is_skipped_while_an_earlier_run_is_open,
    the_last_run_stays_in_the_history,
    due_schedules_come_by_pages,
);

const NIGHTLY: &str = "nightly";

fn name(name: &str) -> ScheduleName {
    name.parse().unwrap()
}

fn definition(cron: &str) -> Definition {
    Definition {
        cron: cron.to_owned(),
        timezone: "Europe/Berlin".to_owned(),
        input: Bytes::from(r#"{"a":1}"#),
        is_enabled: true,
        overlap: Overlap::Skip,
        missed: Missed::Once,
    }
}

async fn put(store: &Store, id: FunctionId, schedule: &str, next_at: Option<u64>) -> Put {
    let definition = Definition { is_enabled: next_at.is_some(), ..definition("@daily") };
    store.put_schedule(id, &name(schedule), &definition, (90, next_at)).await.unwrap()
}

fn declared(schedule: &str, cron: &str) -> DeclaredSchedule {
    DeclaredSchedule { name: name(schedule), definition: definition(cron), now: 90, next_at: Some(100) }
}

/// Has a function run its version again, with these declared schedules.
async fn update(store: &Store, function: &Record, from: u64, declared: Option<&[DeclaredSchedule]>) -> Changed {
    let update = Update {
        id: function.id,
        from,
        name: &function.name,
        settings: &function.settings,
        preloaded: None,
        version: 1,
        previous: None,
        declared,
        max_versions: 2,
    };
    store.update(&update, None, None).await.unwrap()
}

async fn due(store: &Store, until: u64) -> Vec<DueSlot> {
    store.due_schedules(until, None, 9).await.unwrap()
}

fn step(due: &DueSlot, next_at: Option<u64>) -> Step {
    Step {
        function_id: due.function_id,
        name: due.name.clone(),
        revision: due.revision,
        from: due.slot,
        settled_at: due.slot,
        next_at,
        skipped: None,
        run: Some(due.slot),
        overlap: due.overlap,
    }
}

fn run(id: FunctionId) -> InvocationRecord {
    let trigger = Trigger::Schedule(NIGHTLY.to_owned());
    InvocationRecord { trigger, ..InvocationRecord::queued(id, 5, Bytes::new()) }
}

async fn invocations(store: &Store, id: FunctionId) -> usize {
    store.invocations(&Page::of(id, 99)).await.unwrap().len()
}

async fn a_schedule_is_kept_replaced_and_removed(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    let at = async || store.schedule(one.id, &name(NIGHTLY)).await.unwrap();
    assert_eq!(at().await, None);
    let first = definition("0 3 * * *");
    assert_eq!(store.put_schedule(one.id, &name(NIGHTLY), &first, (90, Some(100))).await.unwrap(), Put::Done);
    store.close().await;
    let store = place.open().await;
    let at = async || store.schedule(one.id, &name(NIGHTLY)).await.unwrap().unwrap();
    let expected = Schedule {
        function_id: one.id,
        name: name(NIGHTLY),
        definition: first.clone(),
        is_declared: false,
        next_at: Some(100),
        last_invocation: None,
        last_outcome: None,
        last_skipped: None,
    };
    assert_eq!(at().await, expected);
    // The slot of the same times may be under way, and stays.
    let second =
        Definition { input: Bytes::from("{}"), overlap: Overlap::Queue, missed: Missed::Skip, ..first.clone() };
    store.put_schedule(one.id, &name(NIGHTLY), &second, (110, Some(200))).await.unwrap();
    assert_eq!(at().await, Schedule { definition: second.clone(), ..expected.clone() });
    let third = Definition { cron: "0 4 * * *".to_owned(), ..second };
    store.put_schedule(one.id, &name(NIGHTLY), &third, (110, Some(200))).await.unwrap();
    assert_eq!(at().await.next_at, Some(200));
    let pauses = Definition { is_enabled: false, ..third.clone() };
    store.put_schedule(one.id, &name(NIGHTLY), &pauses, (120, None)).await.unwrap();
    assert_eq!((at().await.next_at, at().await.definition), (None, pauses));
    store.put_schedule(one.id, &name(NIGHTLY), &third, (300, Some(400))).await.unwrap();
    assert_eq!(at().await.next_at, Some(400), "slots of the pause are not missed");
    assert_eq!(store.next_slot(0).await.unwrap(), Some(400));
    assert_eq!(store.next_slot(400).await.unwrap(), None);
    assert!(store.delete_schedule(one.id, &name(NIGHTLY)).await.unwrap());
    assert!(!store.delete_schedule(one.id, &name(NIGHTLY)).await.unwrap());
    assert_eq!(store.schedules(one.id).await.unwrap(), []);
}

async fn a_function_has_so_many_schedules_and_takes_them_along(place: Place) {
    let (one, two, gone) = (record("one"), record("two"), record("gone"));
    let store = place.open_with(&[&one, &two]).await;
    for number in 0..MAX_SCHEDULES {
        assert_eq!(put(&store, one.id, &format!("{number:02}"), Some(100)).await, Put::Done);
    }
    assert_eq!(put(&store, one.id, "d", Some(100)).await, Put::TooMany);
    assert_eq!(put(&store, one.id, "00", Some(100)).await, Put::Done, "a replacement is no further one");
    let declared = [declared("d", "@daily")];
    assert_eq!(update(&store, &one, 1, Some(&declared)).await, Changed::TooManySchedules);
    assert_eq!(put(&store, two.id, "d", Some(100)).await, Put::Done);
    assert_eq!(put(&store, gone.id, "d", Some(100)).await, Put::NoFunction);
    let names: Vec<_> = store.schedules(one.id).await.unwrap().iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names.len(), 20);
    assert!(names.is_sorted(), "{names:?}");
    assert!(store.delete(one.id).await.unwrap().is_some());
    assert_eq!(due(&store, 100).await.len(), 1);
}

async fn declared_schedules_come_and_go_with_the_version(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    let all = async || {
        let all = store.schedules(one.id).await.unwrap().into_iter();
        all.map(|one| (one.name.to_string(), one.definition.cron, one.is_declared)).collect::<Vec<_>>()
    };
    let row = |name: &str, cron: &str, is_declared| (name.to_owned(), cron.to_owned(), is_declared);
    put(&store, one.id, "own", Some(100)).await;
    let first = [declared("a", "@daily"), declared("b", "@daily"), declared("own", "@hourly")];
    assert!(matches!(update(&store, &one, 1, Some(&first)).await, Changed::Now(_)));
    let expected = [row("a", "@daily", true), row("b", "@daily", true), row("own", "@daily", false)];
    assert_eq!(all().await, expected, "a client's schedule stays");
    // A change without another version leaves the schedules as they are.
    assert!(matches!(update(&store, &one, 2, None).await, Changed::Now(_)));
    assert_eq!(all().await, expected);
    // A client that replaces a declared schedule has it from then on.
    put(&store, one.id, "b", Some(100)).await;
    let second = [declared("a", "@hourly"), declared("b", "@hourly")];
    assert!(matches!(update(&store, &one, 3, Some(&second)).await, Changed::Now(_)));
    assert_eq!(all().await, [row("a", "@hourly", true), row("b", "@daily", false), row("own", "@daily", false)]);
    assert!(matches!(update(&store, &one, 4, Some(&[])).await, Changed::Now(_)));
    assert_eq!(all().await, [row("b", "@daily", false), row("own", "@daily", false)]);
}

async fn a_slot_is_taken_once_and_with_its_run(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    put(&store, one.id, NIGHTLY, Some(100)).await;
    assert_eq!(due(&store, 99).await, []);
    let first = due(&store, 100).await.remove(0);
    assert_eq!((first.slot, first.cron.as_str(), first.revision), (100, "@daily", 1));
    let accepted = run(one.id);
    assert_eq!(store.take_slot(&step(&first, Some(200)), &accepted).await.unwrap(), Taken::Made);
    let kept = store.invocation(accepted.id).await.unwrap().unwrap();
    assert_eq!(kept, InvocationRecord { input: Bytes::from(r#"{"a":1}"#), ..accepted.clone() });
    // Another node has read the same slot.
    assert_eq!(store.take_slot(&step(&first, Some(200)), &run(one.id)).await.unwrap(), Taken::Elsewhere);
    assert_eq!(store.make_step(&step(&first, Some(200))).await.unwrap(), Taken::Elsewhere);
    assert_eq!(invocations(&store, one.id).await, 1);
    let shown = store.schedule(one.id, &name(NIGHTLY)).await.unwrap().unwrap();
    assert_eq!((shown.next_at, shown.last_invocation), (Some(200), Some(accepted.id)));
    assert_eq!(shown.last_outcome, Some(Outcome::Queued));
    // The run belongs to this process, like any accepted invocation.
    assert_eq!(store.whereabouts(&[accepted.id]).await.unwrap()[0].run.as_deref(), Some(store.run()));
    // A client has replaced the schedule since.
    let second = due(&store, 200).await.remove(0);
    put(&store, one.id, NIGHTLY, Some(200)).await;
    assert_eq!(store.take_slot(&step(&second, Some(300)), &run(one.id)).await.unwrap(), Taken::Elsewhere);
    let second = due(&store, 200).await.remove(0);
    let skipped = Some(Skipped { slot: 200, reason: SkipReason::Missed });
    let missed = Step { skipped, run: None, ..step(&second, None) };
    assert_eq!(store.make_step(&missed).await.unwrap(), Taken::Made);
    let shown = store.schedule(one.id, &name(NIGHTLY)).await.unwrap().unwrap();
    assert_eq!((shown.next_at, shown.last_skipped), (None, skipped));
    assert_eq!(invocations(&store, one.id).await, 1);
    // Apart from the slots.
    assert_eq!(store.run_schedule(&name(NIGHTLY), &run(one.id)).await.unwrap(), Taken::Made);
    assert_eq!(store.run_schedule(&name("other"), &run(one.id)).await.unwrap(), Taken::Elsewhere);
    assert_eq!(store.run_schedule(&name(NIGHTLY), &run(record("gone").id)).await.unwrap(), Taken::Elsewhere);
    assert_eq!(invocations(&store, one.id).await, 2);
}

async fn a_slot_is_skipped_while_an_earlier_run_is_open(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    put(&store, one.id, NIGHTLY, Some(100)).await;
    let mut open = run(one.id);
    let next = async |until| due(&store, until).await.remove(0);
    assert_eq!(store.take_slot(&step(&next(100).await, Some(200)), &open).await.unwrap(), Taken::Made);
    // A request of a client is no run of the schedule, nor is a run of another schedule.
    let other = Trigger::Schedule("other".to_owned());
    for trigger in [Trigger::Api, other] {
        let request = InvocationRecord { trigger, ..run(one.id) };
        assert_eq!(store.queue_invocation(&request, None, true, true).await.unwrap(), Queued::Now);
    }
    assert_eq!(store.take_slot(&step(&next(200).await, Some(300)), &run(one.id)).await.unwrap(), Taken::Overlapped);
    let shown = store.schedule(one.id, &name(NIGHTLY)).await.unwrap().unwrap();
    let skipped = Skipped { slot: 200, reason: SkipReason::Overlap };
    assert_eq!((shown.next_at, shown.last_skipped), (Some(300), Some(skipped)));
    assert_eq!(shown.last_invocation, Some(open.id));
    assert_eq!(invocations(&store, one.id).await, 3);
    let queues = Step { overlap: Overlap::Queue, ..step(&next(300).await, Some(400)) };
    let mut second = run(one.id);
    assert_eq!(store.take_slot(&queues, &second).await.unwrap(), Taken::Made);
    for (invocation, outcome) in [(&mut open, Outcome::Ok), (&mut second, Outcome::Exit)] {
        assert_eq!(store.take_slot(&step(&next(400).await, Some(400)), &run(one.id)).await.unwrap(), Taken::Overlapped);
        invocation.outcome = outcome;
        assert!(store.update_invocation(invocation, Outcome::Queued, None).await.unwrap());
    }
    assert_eq!(store.take_slot(&step(&next(400).await, Some(500)), &run(one.id)).await.unwrap(), Taken::Made);
}

async fn the_last_run_stays_in_the_history(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    put(&store, one.id, NIGHTLY, Some(100)).await;
    let mut ended = Vec::new();
    for slot in [100, 200] {
        let mut invocation = run(one.id);
        let due = due(&store, slot).await.remove(0);
        assert_eq!(store.take_slot(&step(&due, Some(slot + 100)), &invocation).await.unwrap(), Taken::Made);
        invocation.outcome = Outcome::Ok;
        assert!(store.update_invocation(&invocation, Outcome::Queued, None).await.unwrap());
        ended.push(invocation.id);
    }
    store.prune_invocations(u64::MAX / 2, 0).await.unwrap();
    assert_eq!(store.outcome(ended[0]).await.unwrap(), None);
    let shown = store.schedule(one.id, &name(NIGHTLY)).await.unwrap().unwrap();
    assert_eq!((shown.last_invocation, shown.last_outcome), (Some(ended[1]), Some(Outcome::Ok)));
    store.delete_schedule(one.id, &name(NIGHTLY)).await.unwrap();
    store.prune_invocations(u64::MAX / 2, 0).await.unwrap();
    assert_eq!(store.outcome(ended[1]).await.unwrap(), None);
}

async fn due_schedules_come_by_pages(place: Place) {
    let (one, two) = (record("one"), record("two"));
    let store = place.open_with(&[&one, &two]).await;
    for (function, schedule, slot) in [(&one, "c", 300), (&two, "a", 100), (&one, "a", 200), (&one, "b", 200)] {
        put(&store, function.id, schedule, Some(slot)).await;
    }
    put(&store, two.id, "pauses", None).await;
    let mut found: Vec<DueSlot> = Vec::new();
    loop {
        let page = store.due_schedules(250, found.last(), 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        found.extend(page);
    }
    let found: Vec<_> = found.iter().map(|due| (due.slot, due.name.as_str())).collect();
    assert_eq!(found, [(100, "a"), (200, "a"), (200, "b")]);
    assert_eq!(store.schedules_ahead(89, 9).await.unwrap().len(), 4);
    assert_eq!(store.schedules_ahead(90, 9).await.unwrap(), []);
    let (before, after) = (crate::resources::clock::unix_millis(), store.time().await.unwrap());
    assert!(after.abs_diff(before) < 60_000, "{before} {after}");
}

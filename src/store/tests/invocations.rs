//! Tests of invocations as rows.

use super::*;
use crate::domain::{Trigger, TriggerKind};

on_each_database!(
    invocations_are_listed_by_page_and_outcome_and_go_with_their_function,
    many_invocations_of_a_flush_are_written_in_their_order_and_once,
    old_and_too_many_invocations_go_and_open_ones_stay,
    what_ran_when_the_service_went_away_is_lost_and_what_waited_goes_on,
    a_key_stands_for_one_request,
);

fn ended(function: &Record, outcome: Outcome, created_at: u64) -> InvocationRecord {
    InvocationRecord { outcome, ..InvocationRecord::queued(function.id, created_at, Bytes::from("{}")) }
}

async fn invocations_are_listed_by_page_and_outcome_and_go_with_their_function(place: Place) {
    let (one, two) = (record("one"), record("two"));
    let store = place.open_with(&[&one, &two]).await;
    let whole = InvocationRecord {
        executed_at: Some(5),
        exit_code: Some(3),
        error: Some("why".to_owned()),
        start: Some("warm".to_owned()),
        truncated: true,
        queued: Some(Duration::from_micros(1)),
        duration: Some(Duration::from_micros(2)),
        cpu: Some(Duration::from_micros(3)),
        peak_memory: Some(4),
        network: vec![destined(0, None), destined(2, Some("refused"))],
        stdout: Bytes::from(&b"out\xff"[..]),
        stderr: Bytes::from("err"),
        ..ended(&one, Outcome::Exit, 4)
    };
    let gone = record("gone");
    let mut records = vec![whole.clone(), ended(&two, Outcome::Ok, 1), ended(&gone, Outcome::Ok, 1)];
    records.extend((0..5).map(|n| ended(&one, Outcome::Ok, 10 + n)));
    store.insert_invocations(&records, &[], 1).await.unwrap();
    assert_eq!(store.invocation(whole.id).await.unwrap(), Some(whole.clone()));
    assert_eq!(store.invocation(records[2].id).await.unwrap(), None);
    let page =
        |before, outcomes: &[Outcome], limit| Page { before, outcomes: outcomes.to_vec(), ..Page::of(one.id, limit) };
    let first = store.invocations(&page(None, &[], 4)).await.unwrap();
    assert_eq!(first.iter().map(|(_, record)| record.created_at).collect::<Vec<_>>(), [14, 13, 12, 11]);
    let rest = store.invocations(&page(Some(first[3].0), &[], 4)).await.unwrap();
    assert_eq!(rest.iter().map(|(_, record)| record.created_at).collect::<Vec<_>>(), [10, 4]);
    let failed = store.invocations(&page(None, &[Outcome::Exit], 4)).await.unwrap();
    assert_eq!((failed.len(), &failed[0].1.network), (1, &whole.network));
    assert!(rest[0].1.network.is_empty());
    let all = store.invocations(&Page { outcomes: Outcome::FAILED.to_vec(), ..Page::last(9) }).await.unwrap();
    assert_eq!(all.iter().map(|(_, record)| record.id).collect::<Vec<_>>(), [whole.id]);
    let chosen =
        Page { since: Some(10), until: Some(12), trigger: Some(TriggerKind::One(Trigger::Api)), ..Page::last(9) };
    let chosen = store.invocations(&chosen).await.unwrap();
    assert_eq!(chosen.iter().map(|(_, record)| record.created_at).collect::<Vec<_>>(), [11, 10]);
    for none in [
        Page { functions: Some(Vec::new()), ..Page::last(9) },
        Page { trigger: Some(TriggerKind::Schedules), ..Page::last(9) },
        Page { trigger: Some(TriggerKind::One(Trigger::Http)), ..Page::last(9) },
    ] {
        assert_eq!(store.invocations(&none).await.unwrap(), [], "{none:?}");
    }
    assert!(store.delete(one.id).await.unwrap().is_some());
    assert_eq!(store.invocation(whole.id).await.unwrap(), None);
    assert!(store.invocation(records[1].id).await.unwrap().is_some());
}

async fn many_invocations_of_a_flush_are_written_in_their_order_and_once(place: Place) {
    let (one, gone) = (record("one"), record("gone"));
    let store = place.open_with(&[&one]).await;
    let outputs = |n: u64| InvocationRecord { stdout: vec![b'x'; 1 << 20].into(), ..ended(&one, Outcome::Ok, n) };
    let mut records: Vec<_> = (0..10).map(outputs).collect();
    records.extend((10..250).map(|n| ended(if n % 7 == 0 { &gone } else { &one }, Outcome::Ok, n)));
    for _ in 0..2 {
        store.insert_invocations(&records, &[], 1).await.unwrap();
        let there = store.invocations(&Page::of(one.id, 500)).await.unwrap();
        let expected = records.iter().rev().filter(|record| record.function_id == one.id);
        assert!(there.iter().map(|(_, record)| record.id).eq(expected.map(|record| record.id)));
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_flush_that_is_tried_again_counts_once() {
    let place = Place::postgres();
    let one = record("one");
    let (store, other) = (place.open_with(&[&one]).await, place.open().await);
    for node in [&store, &other] {
        node.join(node.run(), None, None).await.unwrap();
    }
    let count = async || functions(&store).await[0].executions.count;
    let executed = [(one.id, Executions { count: 5, last: Some(1_700_000_009) })];
    store.insert_invocations(&[], &executed, 1).await.unwrap();
    // The answer to the commit was lost.
    store.insert_invocations(&[], &executed, 1).await.unwrap();
    assert_eq!(count().await, 5);
    other.insert_invocations(&[], &executed, 1).await.unwrap();
    assert_eq!(count().await, 10, "each process counts its own flushes");
    store.prune_nodes().await.unwrap();
    store.insert_invocations(&[], &executed, 1).await.unwrap();
    store.insert_invocations(&[], &executed, 2).await.unwrap();
    assert_eq!(count().await, 15);
    // Another try is under way at the server when the flush is tried again.
    let mut begun = store.pool().begin().await.unwrap();
    assert!(store.is_first(&mut begun, 3).await.unwrap());
    let again = tokio::spawn({
        let store = store.clone();
        async move { store.insert_invocations(&[], &executed, 3).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!again.is_finished());
    begun.commit().await.unwrap();
    again.await.unwrap().unwrap();
    assert_eq!(count().await, 15, "the other try has counted");
    other.leave().await.unwrap();
    store.prune_nodes().await.unwrap();
    other.insert_invocations(&[], &executed, 1).await.unwrap();
    assert_eq!(count().await, 15, "a process that was cut off for hours counts nothing twice");
    sqlx::query("UPDATE flushes SET noted_at = 0").execute(&store.pool()).await.unwrap();
    store.prune_nodes().await.unwrap();
    let runs = sqlx::query_scalar::<_, String>("SELECT run FROM flushes").fetch_all(&store.pool()).await.unwrap();
    assert_eq!(runs, [store.run()], "what a process that is gone for days has flushed is forgotten");
}

async fn old_and_too_many_invocations_go_and_open_ones_stay(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    let mut records = vec![ended(&one, Outcome::Queued, 1)];
    records.extend((0..50).map(|n| ended(&one, Outcome::Ok, n)));
    store.insert_invocations(&records, &[], 1).await.unwrap();
    let left = async || {
        store
            .invocations(&Page::of(one.id, 100))
            .await
            .unwrap()
            .iter()
            .map(|(_, record)| record.created_at)
            .collect::<Vec<_>>()
    };
    assert!(!store.prune_invocations(20, 100).await.unwrap());
    assert_eq!(left().await, (20..50).rev().chain([1]).collect::<Vec<_>>());
    assert!(!store.prune_invocations(0, 10).await.unwrap());
    assert_eq!(left().await, (40..50).rev().chain([1]).collect::<Vec<_>>());
}

async fn what_ran_when_the_service_went_away_is_lost_and_what_waited_goes_on(place: Place) {
    let one = record("one");
    let store = place.open_with(&[&one]).await;
    let mut queued = InvocationRecord::queued(one.id, 1, Bytes::from("{}"));
    assert_eq!(store.queue_invocation(&queued, None, true, true).await.unwrap(), Queued::Now);
    let running = ended(&one, Outcome::Running, 2);
    store.insert_invocations(&[running.clone(), ended(&one, Outcome::Ok, 3)], &[], 1).await.unwrap();
    let takes_over = u32::from(store.is_shared());
    let open = Open { attempt: 1 + takes_over, ..queued.open() };
    assert_eq!(store.adopt_invocations(9, true).await.unwrap(), [open]);
    store.retry_invocation(queued.id, 3, 1_700_000_000_000).await.unwrap();
    let tried = Open { attempt: 1 + 2 * takes_over, tries: 3, retry_at: Some(1_700_000_000_000), ..open };
    assert_eq!(store.adopt_invocations(9, true).await.unwrap(), [tried]);
    assert_eq!(store.invocation(running.id).await.unwrap().unwrap().outcome, Outcome::Lost);
    // A step is taken once, from the state that it belongs to.
    queued.outcome = Outcome::Running;
    assert!(store.update_invocation(&queued, Outcome::Queued, Some(tried.attempt)).await.unwrap());
    assert!(!store.update_invocation(&queued, Outcome::Queued, Some(tried.attempt)).await.unwrap());
    let stray = InvocationRecord::queued(record("gone").id, 1, Bytes::new());
    assert_eq!(store.queue_invocation(&stray, None, true, true).await.unwrap(), Queued::NoFunction);
}

async fn a_key_stands_for_one_request(place: Place) {
    let (one, two) = (record("one"), record("two"));
    let store = place.open_with(&[&two]).await;
    let key = |request: &str| IdempotencyKey { key: "k".to_owned(), request_sha256: request.to_owned() };
    assert_eq!(store.claim_key(&key("a"), 1).await.unwrap(), Known::New);
    let warnings = ["a warning".to_owned()];
    store
        .insert(&mut one.clone(), Package { warnings: &warnings, ..PACKAGE }, &[], Some(&key("a")), false)
        .await
        .unwrap();
    let came_to = Deployed {
        function_id: one.id.to_string(),
        image_id: one.version.image.id.as_str().to_owned(),
        version: 1,
        name: "one".to_owned(),
        warnings: warnings.to_vec(),
        notify_secret: None,
    };
    assert_eq!(store.claim_key(&key("a"), 1).await.unwrap(), Known::Same(came_to.clone()));
    assert_eq!(store.claim_key(&key("b"), 1).await.unwrap(), Known::Other);
    // An execution's keys are others.
    let first = InvocationRecord::queued(two.id, 1, Bytes::new());
    let again = InvocationRecord::queued(two.id, 2, Bytes::new());
    assert_eq!(store.queue_invocation(&first, Some(&key("a")), true, true).await.unwrap(), Queued::Now);
    assert_eq!(store.queue_invocation(&again, Some(&key("a")), true, true).await.unwrap(), Queued::Before(first.id));
    assert_eq!(store.queue_invocation(&again, Some(&key("b")), true, true).await.unwrap(), Queued::OtherRequest);
    assert_eq!(store.invocation(again.id).await.unwrap(), None);
    // What a request came to stays what it came to; its key goes with time.
    store.delete(one.id).await.unwrap();
    assert_eq!(store.claim_key(&key("a"), 1).await.unwrap(), Known::Same(came_to));
    store.prune_keys(u64::MAX / 2).await.unwrap();
    assert_eq!(store.claim_key(&key("a"), 1).await.unwrap(), Known::New);
    store.prune_keys(u64::MAX / 2).await.unwrap();
    assert_eq!(store.queue_invocation(&again, Some(&key("b")), true, true).await.unwrap(), Queued::OtherRequest);
    let ended = InvocationRecord { outcome: Outcome::Ok, network: vec![destined(1, None)], ..first };
    assert!(store.update_invocation(&ended, Outcome::Queued, None).await.unwrap());
    // What a key stands for stays as long as the key.
    store.prune_invocations(u64::MAX / 2, 0).await.unwrap();
    assert_eq!(store.invocation(ended.id).await.unwrap().as_ref(), Some(&ended));
    store.prune_keys(u64::MAX / 2).await.unwrap();
    // Before all else it is looked whether there is room for a new one.
    assert_eq!(store.queue_invocation(&again, Some(&key("b")), false, true).await.unwrap(), Queued::NoRoom);
    assert_eq!(store.queue_invocation(&again, Some(&key("b")), true, true).await.unwrap(), Queued::Now);
}

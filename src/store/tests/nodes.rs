//! Tests of what several processes do with one database. With SQLite there is one process at a time: each takes over
//! from the process before.

use super::*;

on_each_database!(
    changes_are_read_in_their_order,
    each_version_has_its_own_number,
    a_key_belongs_to_one_process_until_that_is_gone,
);

async fn joined(place: &Place, id: &str) -> Store {
    let store = place.open().await;
    assert_eq!(store.join(id, None, None).await.unwrap(), None);
    store
}

/// Makes the process look as if it had sent no heartbeat for longer than its lease.
async fn silence(store: &Store) {
    let update = "UPDATE nodes SET seen_at = seen_at - 60000 WHERE run = $1";
    sqlx::query(update).bind(store.run()).execute(&store.pool()).await.unwrap();
}

fn key(request: &str) -> IdempotencyKey {
    IdempotencyKey { key: "k".to_owned(), request_sha256: request.to_owned() }
}

async fn changes_are_read_in_their_order(place: Place) {
    let store = joined(&place, "a").await;
    let (one, two) = (record("one"), record("two"));
    insert(&store, &one).await;
    insert(&store, &two).await;
    let all = store.changes(None).await.unwrap();
    assert_eq!((all.last, all.changed.len(), all.deleted.len()), (2, 2, 0));
    assert!(all.changed[0].number < all.changed[1].number, "the numbers are in the order of the submits");
    let nothing = store.changes(Some(2)).await.unwrap();
    assert_eq!((nothing.last, nothing.changed.len(), nothing.deleted.len()), (2, 0, 0));
    let (name, settings) = ("renamed".parse().unwrap(), Settings::default());
    let update = Update {
        id: one.id,
        from: 1,
        name: &name,
        settings: &settings,
        preloaded: None,
        version: 1,
        previous: None,
        declared: None,
        max_versions: 2,
    };
    assert_eq!(store.update(&update, None, None).await.unwrap(), Changed::Now(3));
    assert_eq!(store.delete(two.id).await.unwrap(), Some(4));
    let later = store.changes(Some(2)).await.unwrap();
    assert_eq!((later.last, later.changed.len(), later.deleted), (4, 1, vec![two.id]));
    assert_eq!((later.changed[0].generation, later.changed[0].name.as_str()), (2, "renamed"));
    store.prune_deletions().await.unwrap();
    assert_eq!(store.changes(Some(2)).await.unwrap().deleted, [two.id], "a day has not passed");
}

async fn each_version_has_its_own_number(place: Place) {
    let store = joined(&place, "a").await;
    let one = record("one");
    insert(&store, &one).await;
    assert_eq!(store.next_version(one.id).await.unwrap(), Some(2));
    assert_eq!(store.next_version(one.id).await.unwrap(), Some(3));
    assert_eq!(store.next_version(record("gone").id).await.unwrap(), None);
}

async fn a_key_belongs_to_one_process_until_that_is_gone(place: Place) {
    let first = joined(&place, "a").await;
    assert_eq!(first.claim_key(&key("a"), 1).await.unwrap(), Known::New);
    first.give_back_key(&key("a")).await.unwrap();
    assert_eq!(first.claim_key(&key("b"), 1).await.unwrap(), Known::New);
    first.close().await;
    // The same node starts again: the process before is gone.
    let second = place.open().await;
    assert_eq!(second.join("a", None, Some(first.run())).await.unwrap(), None);
    assert_eq!(second.claim_key(&key("c"), 1).await.unwrap(), Known::New);
    let mut one = record("one");
    assert!(matches!(second.insert(&mut one, PACKAGE, &[], Some(&key("c")), false).await.unwrap(), Changed::Now(_)));
    assert_eq!(second.claim_key(&key("a"), 1).await.unwrap(), Known::Other);
    assert!(matches!(second.claim_key(&key("c"), 1).await.unwrap(), Known::Same(_)));
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_key_of_a_live_process_is_in_progress_and_of_a_silent_one_is_free() {
    let place = Place::postgres();
    let (first, second) = (joined(&place, "a").await, joined(&place, "b").await);
    assert_eq!(first.claim_key(&key("a"), 1).await.unwrap(), Known::New);
    assert_eq!(second.claim_key(&key("a"), 1).await.unwrap(), Known::InProgress);
    silence(&first).await;
    assert_eq!(second.claim_key(&key("a"), 1).await.unwrap(), Known::New);
    // The process that was slow comes too late, and its function does not come to be.
    let mut late = record("late");
    assert_eq!(first.insert(&mut late, PACKAGE, &[], Some(&key("a")), false).await.unwrap(), Changed::Claimed);
    assert_eq!(functions(&first).await, []);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_a_silent_process_had_goes_on_elsewhere_and_what_it_ran_is_lost() {
    let place = Place::postgres();
    let (first, second) = (joined(&place, "a").await, joined(&place, "b").await);
    let one = record("one");
    insert(&first, &one).await;
    let queued = InvocationRecord::queued(one.id, 1, Bytes::from("{}"));
    let mut running = InvocationRecord::queued(one.id, 2, Bytes::from("{}"));
    for record in [&queued, &running] {
        assert_eq!(first.queue_invocation(record, None, true, true).await.unwrap(), Queued::Now);
    }
    running.outcome = Outcome::Running;
    assert!(first.update_invocation(&running, Outcome::Queued, Some(1)).await.unwrap());
    assert_eq!(second.adopt_invocations(9, true).await.unwrap(), [], "the process lives");
    silence(&first).await;
    let open = Open { attempt: 2, ..queued.open() };
    assert_eq!(second.adopt_invocations(9, false).await.unwrap(), [], "all leases may have run out at once");
    assert_eq!(second.adopt_invocations(9, true).await.unwrap(), [open]);
    assert_eq!(second.adopt_invocations(9, true).await.unwrap(), []);
    // The process was only slow. Neither its begin nor its end has an effect any more.
    let begun = InvocationRecord { outcome: Outcome::Running, ..queued.clone() };
    assert!(!first.update_invocation(&begun, Outcome::Queued, Some(1)).await.unwrap());
    let ended = InvocationRecord { outcome: Outcome::Ok, ..running.clone() };
    assert!(!first.update_invocation(&ended, Outcome::Running, Some(1)).await.unwrap());
    assert_eq!(first.invocation(running.id).await.unwrap().unwrap().outcome, Outcome::Lost);
    assert!(second.update_invocation(&begun, Outcome::Queued, Some(2)).await.unwrap());
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn an_invocation_is_where_a_live_process_has_said_to_be() {
    let place = Place::postgres();
    let (first, second) = (place.open().await, joined(&place, "b").await);
    assert_eq!(first.join("a", Some("http://a"), None).await.unwrap(), None);
    let one = record("one");
    insert(&first, &one).await;
    let (here, there) = (first.run().to_owned(), second.run().to_owned());
    let mut of = Vec::new();
    for store in [&first, &second] {
        let queued = InvocationRecord::queued(one.id, 1, Bytes::from("{}"));
        assert_eq!(store.queue_invocation(&queued, None, true, true).await.unwrap(), Queued::Now);
        of.push(queued.id);
    }
    let gone = InvocationId::random();
    let found = async |id| {
        let found = second.whereabouts(&[gone, id]).await.unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        (found[0].outcome, found[0].run.clone().unwrap(), found[0].url.clone())
    };
    assert_eq!(found(of[0]).await, (Outcome::Queued, here.clone(), Some("http://a".to_owned())));
    assert_eq!(found(of[1]).await, (Outcome::Queued, there, None), "the process has no URL");
    assert_eq!(first.join("a", Some("http://elsewhere"), None).await.unwrap(), None);
    assert_eq!(found(of[0]).await.2.as_deref(), Some("http://elsewhere"));
    assert_eq!(second.node_urls().await.unwrap(), ["http://elsewhere"]);
    silence(&first).await;
    assert_eq!(second.node_urls().await.unwrap(), ["http://elsewhere"], "a node that is slow may still serve");
    assert_eq!(found(of[0]).await, (Outcome::Queued, here, None));
    assert_eq!(second.whereabouts(&[gone]).await.unwrap(), []);
    assert_eq!(second.whereabouts(&[]).await.unwrap(), []);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_change_is_pending_until_each_live_process_has_it() {
    let place = Place::postgres();
    let (first, second) = (joined(&place, "a").await, joined(&place, "b").await);
    let mut one = record("one");
    let Changed::Now(change) = first.insert(&mut one, PACKAGE, &[], None, false).await.unwrap() else {
        panic!("no change")
    };
    assert!(first.is_change_pending(change).await.unwrap());
    let beat = Heartbeat { instances: 3, is_ready: true, applied: change };
    assert_eq!(second.beat(&beat).await.unwrap(), Seen::Live);
    assert!(!first.is_change_pending(change).await.unwrap(), "the process that made the change knows of it");
    let nodes = first.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|node| (node.id.as_str(), node.instances)).collect::<Vec<_>>(), [("a", 0), ("b", 3)]);
    let change = first.delete(one.id).await.unwrap().unwrap();
    assert!(first.is_change_pending(change).await.unwrap());
    silence(&second).await;
    assert!(!first.is_change_pending(change).await.unwrap());
    assert!(!first.nodes().await.unwrap()[1].is_live);
    assert_eq!(second.beat(&beat).await.unwrap(), Seen::Lapsed, "a change was answered without this process");
    assert_eq!(second.beat(&beat).await.unwrap(), Seen::Live);
    second.leave().await.unwrap();
    assert_eq!(second.beat(&beat).await.unwrap(), Seen::Gone, "the process must join again");
    assert_eq!(first.nodes().await.unwrap().len(), 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_live_process_keeps_its_id() {
    let place = Place::postgres();
    let (first, copy) = (joined(&place, "a").await, place.open().await);
    assert!(copy.join("a", None, None).await.unwrap().is_some());
    assert!(copy.join("a", None, Some("another")).await.unwrap().is_some());
    assert_eq!(copy.join("b", None, None).await.unwrap(), None);
    copy.leave().await.unwrap();
    silence(&first).await;
    assert_eq!(copy.join("a", None, None).await.unwrap(), None);
    let beat = Heartbeat { instances: 0, is_ready: true, applied: 0 };
    assert_eq!(first.beat(&beat).await.unwrap(), Seen::Gone);
    assert!(first.join("a", None, None).await.unwrap().is_some(), "the two do not throw each other out");
    copy.leave().await.unwrap();
    assert_eq!(first.join("a", None, None).await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_hint_tells_of_a_change() {
    let place = Place::postgres();
    let (first, second) = (joined(&place, "a").await, joined(&place, "b").await);
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let listening = tokio::spawn(async move { second.listen(|| told.send(()).unwrap()).await });
    // The listener may come after a change: the next change tells of both.
    for n in 0.. {
        insert(&first, &record("one")).await;
        if tokio::time::timeout(Duration::from_millis(200), heard.recv()).await.is_ok() {
            break;
        }
        assert!(n < 50, "no hint");
    }
    listening.abort();
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_lease_is_one_process_until_the_process_is_silent_or_gives_it_back() {
    let place = Place::postgres();
    let (first, second) = (joined(&place, "a").await, joined(&place, "b").await);
    assert!(first.take_lease("x").await.unwrap() && first.take_lease("x").await.unwrap());
    assert!(!second.take_lease("x").await.unwrap());
    silence(&first).await;
    assert!(second.take_lease("x").await.unwrap());
    first.give_lease("x").await.unwrap();
    assert!(second.take_lease("x").await.unwrap(), "a lease of another process is not given back");
    second.give_lease("x").await.unwrap();
    assert!(first.take_lease("x").await.unwrap());
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn what_a_question_leaves_that_was_given_up_is_not_in_a_later_one() {
    let place = Place::postgres();
    let (store, other) = (joined(&place, "a").await, joined(&place, "b").await);
    insert(&store, &record("one")).await;
    let name = async || {
        let name = sqlx::query_scalar::<_, String>("SELECT name FROM functions");
        name.fetch_one(&other.pool()).await.unwrap()
    };
    let mut given_up = 0;
    for round in 0..20 {
        // As when a client leaves, or when the answer does not come in time.
        let mut connection = store.pool().acquire().await.unwrap();
        let mut begun = Box::pin(connection.begin());
        given_up += usize::from(futures_util::poll!(&mut begun).is_pending());
        drop(begun);
        drop(connection);
        // All connections have their turn.
        for connection in 0..8 {
            let called = format!("{round}-{connection}");
            let rename = sqlx::query("UPDATE functions SET name = $1").bind(called.clone());
            store.ask(rename.execute(&store.pool())).await.unwrap();
            assert_eq!(name().await, called, "the change is committed");
        }
    }
    assert!(given_up > 0);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn own_invocations_come_by_pages_and_those_of_several_gone_processes_are_taken_once() {
    let place = Place::postgres();
    let (first, second) = (joined(&place, "a").await, joined(&place, "b").await);
    let one = record("one");
    insert(&first, &one).await;
    let mut queued = Vec::new();
    for (n, store) in [&first, &second, &first, &second, &first].into_iter().enumerate() {
        let record = InvocationRecord::queued(one.id, n as u64, Bytes::from("{}"));
        assert_eq!(store.queue_invocation(&record, None, true, true).await.unwrap(), Queued::Now);
        queued.push(record.id);
    }
    assert_eq!(first.own_invocations(0, 9).await.unwrap(), [], "an answer may still be on its way");
    let age = "UPDATE invocations SET recorded_at = recorded_at - 120000";
    sqlx::query(age).execute(&first.pool()).await.unwrap();
    let ids = |own: &[Own]| own.iter().map(|own| own.open.id).collect::<Vec<_>>();
    let page = first.own_invocations(0, 2).await.unwrap();
    assert_eq!((ids(&page), page[0].outcome), (vec![queued[0], queued[2]], Outcome::Queued));
    assert_eq!(ids(&first.own_invocations(page[1].number, 2).await.unwrap()), [queued[4]]);
    // Both processes are gone. A row from before there were runs belongs to nobody, too.
    let third = joined(&place, "c").await;
    first.leave().await.unwrap();
    silence(&second).await;
    sqlx::query("UPDATE invocations SET node = NULL WHERE id = $1")
        .bind(queued[1].to_string())
        .execute(&third.pool())
        .await
        .unwrap();
    let some = third.adopt_invocations(3, true).await.unwrap();
    let rest = third.adopt_invocations(3, true).await.unwrap();
    let mut taken: Vec<_> = some.iter().chain(&rest).map(|open| open.id).collect();
    assert_eq!((some.len(), rest.len()), (3, 2));
    taken.sort_unstable();
    queued.sort_unstable();
    assert_eq!(taken, queued);
    assert_eq!(third.adopt_invocations(3, true).await.unwrap(), []);
}

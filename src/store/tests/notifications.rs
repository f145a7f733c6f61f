//! Tests of notifications as rows.

use super::*;
use crate::domain::settings::notify::{Notify, Target};
use crate::domain::{Delivery, DeliveryState, Due, Tried};

on_each_database!(
    an_end_is_told_once_where_the_function_asks_for_that,
    what_ran_on_a_process_that_is_gone_is_told_as_lost,
    a_try_belongs_to_one_claim,
    a_receiver_is_kept_and_its_key_is_sealed,
    what_a_function_without_a_receiver_has_to_tell_is_given_up,
    the_last_deliveries_are_kept_and_go_with_their_function,
);

fn notifies(name: &str, on: &[&str]) -> Record {
    let mut record = record(name);
    record.settings.notify = Some(Notify::new(Target::new("https://a.example/path", on).unwrap()));
    record
}

/// Writes down an invocation that has begun.
async fn running(store: &Store, function: &Record, promised: bool) -> InvocationRecord {
    let mut record = InvocationRecord::queued(function.id, 1, Bytes::from("{}"));
    assert_eq!(store.queue_invocation(&record, None, true, promised).await.unwrap(), Queued::Now);
    record.outcome = Outcome::Running;
    record.executed_at = Some(5);
    assert!(store.update_invocation(&record, Outcome::Queued, Some(1)).await.unwrap());
    record
}

async fn end(store: &Store, running: &InvocationRecord, outcome: Outcome) -> bool {
    let ended = InvocationRecord {
        outcome,
        exit_code: Some(3),
        error: Some("why".to_owned()),
        version: Some(2),
        duration: Some(Duration::from_micros(7)),
        stdout: Bytes::from("output"),
        ..running.clone()
    };
    store.update_invocation(&ended, Outcome::Running, Some(1)).await.unwrap()
}

async fn due(store: &Store) -> Vec<Due> {
    store.due_notifications().await.unwrap()
}

fn failed(pause: Duration) -> Tried {
    Tried { state: DeliveryState::Pending, status: Some(500), error: Some("no".to_owned()), pause }
}

const DELIVERED: Tried =
    Tried { state: DeliveryState::Delivered, status: Some(204), error: None, pause: Duration::ZERO };

/// Has time go by for all notifications.
async fn pass(store: &Store, time: Duration) {
    let update = "UPDATE notifications SET next_try_at = next_try_at - $1, ended_at = ended_at - $1";
    let millis = i64::try_from(time.as_millis()).unwrap();
    sqlx::query(update).bind(millis).execute(&store.pool()).await.unwrap();
}

async fn an_end_is_told_once_where_the_function_asks_for_that(place: Place) {
    let (on_failure, on_both) = (notifies("one", &["failure"]), notifies("two", &["success", "failure"]));
    let silent = record("three");
    let store = place.open_with(&[&on_failure, &on_both, &silent]).await;
    assert_eq!(due(&store).await, []);
    for (function, outcome, promised, is_told) in [
        (&on_failure, Outcome::Exit, true, true),
        (&on_failure, Outcome::Lost, true, true),
        (&on_failure, Outcome::Timeout, true, true),
        (&on_failure, Outcome::Ok, true, false),
        (&on_failure, Outcome::Cancelled, true, false),
        // A client waits for the invocation.
        (&on_failure, Outcome::Exit, false, false),
        (&on_both, Outcome::Ok, true, true),
        (&on_both, Outcome::Signal, true, true),
        (&silent, Outcome::Exit, true, false),
    ] {
        let running = running(&store, function, promised).await;
        assert!(end(&store, &running, outcome).await);
        // An end has one effect, however often the end is written.
        assert!(!end(&store, &running, outcome).await);
        let list = store.notifications(function.id).await.unwrap();
        let told = list.iter().filter(|told| told.invocation_id == running.id).collect::<Vec<_>>();
        assert_eq!(told.len(), usize::from(is_told), "{outcome:?} {promised}");
        if let [told] = told[..] {
            let expected = Delivery {
                invocation_id: running.id,
                outcome,
                ended_at: told.ended_at,
                state: DeliveryState::Pending,
                tries: 0,
                last_try_at: None,
                next_try_at: Some(told.ended_at),
                last_status: None,
                last_error: None,
            };
            assert_eq!(*told, expected);
            // The process hears of what it has written.
            tokio::time::timeout(Duration::from_secs(1), store.notification_written()).await.unwrap();
        }
    }
    // One of each function comes at a time.
    assert_eq!(due(&store).await.len(), 2);
    // Another program that does not get its claim back ends nothing.
    let stale = running(&store, &on_failure, true).await;
    let ended = InvocationRecord { outcome: Outcome::Exit, ..stale.clone() };
    if store.is_shared() {
        assert!(!store.update_invocation(&ended, Outcome::Running, Some(2)).await.unwrap());
        let list = store.notifications(on_failure.id).await.unwrap();
        assert!(list.iter().all(|told| told.invocation_id != stale.id));
    }
}

async fn what_ran_on_a_process_that_is_gone_is_told_as_lost(place: Place) {
    let (one, silent) = (notifies("one", &["failure"]), record("two"));
    let store = place.open_with(&[&one, &silent]).await;
    let (told, kept, other) =
        (running(&store, &one, true).await, running(&store, &one, false).await, running(&store, &silent, true).await);
    store.close().await;
    let store = place.open().await;
    store.adopt_invocations(9, true).await.unwrap();
    for id in [told.id, kept.id, other.id] {
        assert_eq!(store.outcome(id).await.unwrap(), Some(Outcome::Lost));
    }
    let due = due(&store).await;
    assert_eq!(due.len(), 1);
    let claimed = store.claim_notification(&due[0]).await.unwrap().unwrap();
    assert_eq!((claimed.notification.invocation_id, claimed.notification.outcome), (told.id, Outcome::Lost));
    assert_eq!(claimed.notification.error.as_deref(), Some("the service went away while it ran"));
    assert_eq!((claimed.notification.executed_at, claimed.notification.version), (Some(5), None));
    assert_eq!(store.adopt_invocations(9, true).await.unwrap(), []);
    assert_eq!(store.notifications(one.id).await.unwrap().len(), 1);
}

async fn a_try_belongs_to_one_claim(place: Place) {
    let one = notifies("one", &["failure"]);
    let store = place.open_with(&[&one]).await;
    let running = running(&store, &one, true).await;
    assert!(end(&store, &running, Outcome::Exit).await);
    let first = due(&store).await.remove(0);
    assert_eq!((first.tries, first.wait), (0, Duration::ZERO));
    assert_eq!(first.url.as_deref(), Some("https://a.example/path"));
    let claimed = store.claim_notification(&first).await.unwrap().unwrap();
    assert_eq!((claimed.attempt, &claimed.notify), (1, &one.settings.notify));
    let told = &claimed.notification;
    assert_eq!((told.function_name.as_str(), told.exit_code, told.version), ("one", Some(3), Some(2)));
    assert_eq!((told.error.as_deref(), told.duration), (Some("why"), Some(Duration::from_micros(7))));
    assert!(!format!("{told:?}").contains("output"));
    assert_eq!(store.claim_notification(&first).await.unwrap(), None, "another process has the try");
    let waiting = due(&store).await.remove(0);
    assert!(waiting.wait > Duration::from_secs(50) && waiting.tries == 1, "{waiting:?}");
    assert_eq!(store.claim_notification(&waiting).await.unwrap(), None, "the try is not over");
    // A process that is too slow has no say any more.
    pass(&store, Duration::from_secs(60)).await;
    let second = store.claim_notification(&due(&store).await[0]).await.unwrap().unwrap();
    assert!(second.attempt == 2 && second.age >= Duration::from_secs(60), "{second:?}");
    assert!(!store.end_try(&claimed, &DELIVERED).await.unwrap());
    assert!(store.end_try(&second, &failed(Duration::from_secs(300))).await.unwrap());
    let listed = store.notifications(one.id).await.unwrap().remove(0);
    assert_eq!((listed.tries, listed.last_status, listed.last_error.as_deref()), (2, Some(500), Some("no")));
    let pause = listed.next_try_at.unwrap() - listed.last_try_at.unwrap();
    assert!((295_000..305_000).contains(&pause), "{pause}");
    pass(&store, Duration::from_secs(300)).await;
    // The invocation may be pruned meanwhile.
    store.prune_invocations(u64::MAX / 2, 0).await.unwrap();
    assert_eq!(store.invocation(running.id).await.unwrap(), None);
    // The claim of a process that is gone is free at once, and that of this process is not.
    let third = due(&store).await.remove(0);
    store.claim_notification(&third).await.unwrap().unwrap();
    store.join("a", None, None).await.unwrap();
    store.free_notifications().await.unwrap();
    assert_ne!(due(&store).await[0].wait, Duration::ZERO);
    store.leave().await.unwrap();
    store.close().await;
    let store = place.open().await;
    store.free_notifications().await.unwrap();
    let last = due(&store).await.remove(0);
    assert_eq!((last.tries, last.wait), (3, Duration::ZERO));
    let claimed = store.claim_notification(&last).await.unwrap().unwrap();
    assert!(store.end_try(&claimed, &DELIVERED).await.unwrap());
    assert_eq!(due(&store).await, []);
    let listed = store.notifications(one.id).await.unwrap().remove(0);
    assert_eq!((listed.state, listed.last_status), (DeliveryState::Delivered, Some(204)));
    assert_eq!((listed.last_error, listed.next_try_at), (None, None));
}

async fn a_receiver_is_kept_and_its_key_is_sealed(place: Place) {
    let (old, new) = (SecretKey([1; 32]), SecretKey([2; 32]));
    let one = notifies("one", &["success", "failure"]);
    let key = one.settings.notify.as_ref().unwrap().key.0.clone();
    let value = async |store: &Store| {
        let value = sqlx::query_scalar::<_, String>("SELECT notify_key FROM functions");
        value.fetch_one(&store.pool()).await.unwrap()
    };
    let store = place.open_with(&[&one]).await;
    assert_eq!(value(&store).await, key, "without a key of SECRETS_KEY_FILE");
    store.close().await;
    let store = place.open().await.with_keys(std::slice::from_ref(&old)).await.unwrap();
    let by_old = value(&store).await;
    assert!(!by_old.contains(&key));
    assert_eq!(functions(&store).await, std::slice::from_ref(&one));
    store.close().await;
    let store = place.open().await.with_keys(&[new.clone(), old.clone()]).await.unwrap();
    assert_ne!(value(&store).await, by_old);
    assert_eq!(functions(&store).await, std::slice::from_ref(&one));
    let two = notifies("two", &["failure"]);
    insert(&store, &two).await;
    assert_eq!(functions(&store).await, [one, two]);
    store.close().await;
    let lost = place.open().await.with_keys(&[old]).await.unwrap_err();
    assert!(lost.to_string().contains("the secret of `notify` of function"), "{lost}");
}

/// Gives a function other settings.
async fn set(store: &Store, function: &Record, from: u64, notify: Option<Notify>) {
    let settings = Settings { notify, ..function.settings.clone() };
    let update = Update {
        id: function.id,
        from,
        name: &function.name,
        settings: &settings,
        preloaded: None,
        version: 1,
        previous: None,
        declared: None,
        max_versions: 2,
    };
    assert!(matches!(store.update(&update, None, None).await.unwrap(), Changed::Now(_)));
}

async fn what_a_function_without_a_receiver_has_to_tell_is_given_up(place: Place) {
    let one = notifies("one", &["failure"]);
    let store = place.open_with(&[&one]).await;
    let ran = running(&store, &one, true).await;
    assert!(end(&store, &ran, Outcome::Exit).await);
    let claimed = store.claim_notification(&due(&store).await[0]).await.unwrap().unwrap();
    set(&store, &one, 1, None).await;
    assert!(!store.end_try(&claimed, &failed(Duration::ZERO)).await.unwrap());
    let listed = store.notifications(one.id).await.unwrap().remove(0);
    assert_eq!((listed.state, listed.tries), (DeliveryState::Failed, 1));
    assert!(listed.last_error.unwrap().contains("no `notify`"));
    let ran = running(&store, &one, true).await;
    assert!(end(&store, &ran, Outcome::Exit).await);
    assert_eq!(due(&store).await, []);
    // What waits goes to the receiver of the moment.
    set(&store, &one, 2, one.settings.notify.clone()).await;
    let ran = running(&store, &one, true).await;
    assert!(end(&store, &ran, Outcome::Exit).await);
    let mut other = one.settings.notify.clone().unwrap();
    other.target = Target::new("http://b.example", &["success"]).unwrap();
    set(&store, &one, 3, Some(other.clone())).await;
    let due = due(&store).await.remove(0);
    assert_eq!(due.url.as_deref(), Some("http://b.example/"));
    assert_eq!(store.claim_notification(&due).await.unwrap().unwrap().notify, Some(other));
}

async fn the_last_deliveries_are_kept_and_go_with_their_function(place: Place) {
    let (one, two) = (notifies("one", &["failure"]), notifies("two", &["failure"]));
    let store = place.open_with(&[&one, &two]).await;
    for _ in 0..53 {
        let ran = running(&store, &one, true).await;
        assert!(end(&store, &ran, Outcome::Exit).await);
        // The next end is later by the clock.
        pass(&store, Duration::from_millis(10)).await;
    }
    let ran = running(&store, &two, true).await;
    assert!(end(&store, &ran, Outcome::Exit).await);
    for left in (1..=52).rev() {
        let due = due(&store).await.remove(0);
        let claimed = store.claim_notification(&due).await.unwrap().unwrap();
        assert!(store.end_try(&claimed, &DELIVERED).await.unwrap(), "{left}");
    }
    let count = async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM notifications WHERE function_id = $1");
        count.bind(one.id.to_string()).fetch_one(&store.pool()).await.unwrap()
    };
    assert_eq!((count().await, store.notifications(one.id).await.unwrap().len()), (51, 50));
    // Age removes what is through, and nothing else.
    store.prune_notifications(0).await.unwrap();
    assert_eq!(count().await, 51);
    store.prune_notifications(u64::MAX / 4).await.unwrap();
    assert_eq!(count().await, 1);
    assert_eq!(due(&store).await.len(), 2);
    assert!(store.delete(one.id).await.unwrap().is_some());
    assert_eq!((count().await, due(&store).await.len()), (0, 1));
}

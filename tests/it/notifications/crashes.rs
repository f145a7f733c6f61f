//! Notifications through the end of a process at any moment, and on several nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;

use super::receiver::{ERROR, OK, Receiver};
use super::{PROGRAM, start};
use crate::support::{Service, eventually, postgres, python};

async fn kill(service: Service) {
    service.signal("KILL");
    service.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_message_that_is_not_taken_yet_outlives_a_crash() {
    let receiver = Receiver::start(&[ERROR, OK]).await;
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[&receiver], &[]).await;
    let function = service.deploy(python(PROGRAM)).await;
    let key = service.tell_with_key(&function, json!({"url": receiver.url()})).await;
    service.begin(&function, json!({"code": 1})).await;
    receiver.told(1).await;
    kill(service).await;
    let service = start(dir.path(), &[&receiver], &[]).await;
    let told = receiver.told(2).await;
    told.iter().for_each(|told| told.verify(&key));
    assert_eq!((told[0].id(), &told[0].text), (told[1].id(), &told[1].text));
    let listed = service.notified(&function, "delivered").await;
    assert_eq!(listed["tries"], 2);
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(receiver.requests().len(), 2, "what was taken is not sent again");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_crash_has_lost_is_told() {
    let receiver = Receiver::start(&[OK]).await;
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[&receiver], &[]).await;
    let function = service.deploy(python(PROGRAM)).await;
    let key = service.tell_with_key(&function, json!({"url": receiver.url()})).await;
    let id = service.begin(&function, json!({"seconds": 20})).await;
    let path = format!("/api/invocations/{id}");
    eventually("it runs", async || (service.get(&path).await.body["outcome"] == "running").then_some(())).await;
    kill(service).await;
    let service = start(dir.path(), &[&receiver], &[]).await;
    let told = receiver.told(1).await.remove(0);
    told.verify(&key);
    assert_eq!((told.invocation(), &told.body["data"]["outcome"]), (id.as_str(), &json!("lost")));
    assert_eq!(told.body["type"], "invocation.failed");
    service.delete_all(dir.path()).await;
}

/// Waits until each accepted invocation has ended and was told of, and returns how often each was told of.
async fn all_told(service: &Service, receiver: &Receiver, accepted: &BTreeSet<String>) -> BTreeMap<String, usize> {
    for id in accepted {
        service.ended(id).await;
    }
    let told = async || {
        let mut told: BTreeMap<String, usize> = BTreeMap::new();
        for request in receiver.requests() {
            assert_eq!(request.id(), format!("msg_{}", request.invocation()));
            *told.entry(request.invocation().to_owned()).or_default() += 1;
        }
        accepted.iter().all(|id| told.contains_key(id)).then_some(told)
    };
    let told = eventually("each end is told", told).await;
    let known: BTreeSet<String> = told.keys().cloned().collect();
    assert!(known.is_subset(accepted), "only what was accepted");
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn crashes_at_any_moment_lose_no_message() {
    const ROUNDS: u64 = 6;
    let receiver = Receiver::start(&[OK]).await;
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[&receiver], &[]).await;
    let function = service.deploy(python(PROGRAM)).await;
    let on = json!({"url": receiver.url(), "on": ["failure", "success"]});
    let key = service.tell_with_key(&function, on).await;
    service.stop().await;
    let (mut accepted, mut doubtful) = (BTreeSet::new(), 0);
    for round in 0..ROUNDS {
        let service = start(dir.path(), &[&receiver], &[]).await;
        let url = format!("{}/api/execute", service.url);
        let (client, id) = (service.client.clone(), function.clone());
        let clients = tokio::spawn(async move {
            let (mut accepted, mut unanswered) = (Vec::new(), 0);
            for number in 0.. {
                let body = json!({"functionId": id, "input": {"code": number % 2}});
                let request = client.post(&url).header("prefer", "respond-async").json(&body);
                let Ok(answered) = request.send().await else {
                    unanswered += 1;
                    break;
                };
                let Ok(body) = answered.json::<serde_json::Value>().await else { break };
                accepted.extend(body["invocationId"].as_str().map(str::to_owned));
            }
            (accepted, unanswered)
        });
        tokio::time::sleep(Duration::from_millis(700 + 263 * round)).await;
        kill(service).await;
        let (more, unanswered) = clients.await.unwrap();
        accepted.extend(more);
        doubtful += unanswered;
    }
    let service = start(dir.path(), &[&receiver], &[]).await;
    // A request without an answer may have been accepted, too.
    let path = format!("/api/functions/{function}/invocations?limit=500");
    let mut page = service.get(&path).await.assert_status(200).body;
    let known = accepted.len();
    loop {
        let ids = page["invocations"].as_array().unwrap().iter();
        accepted.extend(ids.map(|one| one["invocationId"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        page = service.get(&format!("{path}&cursor={cursor}")).await.assert_status(200).body;
    }
    assert!(accepted.len() <= known + doubtful, "{known} {doubtful} {}", accepted.len());
    let told = all_told(&service, &receiver, &accepted).await;
    let twice = told.values().filter(|&&count| count > 1).count();
    eprintln!("{ROUNDS} crashes: {} ends were told, {twice} of them twice", told.len());
    assert!(accepted.len() > 20, "{}", accepted.len());
    // A crash may cut off the tries that are under way: at most four with one receiver.
    assert!(twice <= 4 * ROUNDS as usize && told.values().all(|&count| count <= 2), "{told:?}");
    receiver.requests()[0].verify(&key);
    service.delete_all(dir.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker and PostgreSQL"]
async fn nodes_tell_each_end_once_and_one_goes_on_for_another_that_died() {
    let receiver = Receiver::start(&[OK]).await;
    let failing = Receiver::start(&[ERROR, OK]).await;
    let store = postgres::database(&format!("notifications-{}", uuid::Uuid::new_v4()));
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let key_of_store = "1a".repeat(32);
    let settings = [("STORE_URL", store.as_str()), ("SECRETS_KEY", key_of_store.as_str())];
    let both = [&receiver, &failing];
    let (first, second) =
        (start(folders[0].path(), &both, &settings).await, start(folders[1].path(), &both, &settings).await);
    let function = first.deploy(python(PROGRAM)).await;
    let on = json!({"url": receiver.url(), "on": ["failure", "success"]});
    let key = second.tell_with_key(&function, on).await;
    let mut accepted = BTreeSet::new();
    for number in 0..30 {
        let node = if number % 2 == 0 { &first } else { &second };
        accepted.insert(node.begin(&function, json!({"code": number % 3})).await);
    }
    let told = all_told(&first, &receiver, &accepted).await;
    assert!(told.values().all(|&count| count == 1), "{told:?}");
    receiver.requests().iter().take(3).for_each(|told| told.verify(&key));
    // A node dies between two tries of its message, and with an invocation that runs.
    second.tell(&function, json!({"url": failing.url()})).await.assert_status(200);
    let failed = first.begin(&function, json!({"code": 1})).await;
    failing.told(1).await;
    let lost = first.begin(&function, json!({"seconds": 20})).await;
    let path = format!("/api/invocations/{lost}");
    eventually("it runs", async || (second.get(&path).await.body["outcome"] == "running").then_some(())).await;
    kill(first).await;
    let accepted = BTreeSet::from([failed.clone(), lost.clone()]);
    let told = all_told(&second, &failing, &accepted).await;
    let told = |id: &str| told[id];
    assert_eq!((told(&failed), told(&lost)), (2, 1));
    let of_lost = failing.requests().into_iter().find(|request| request.invocation() == lost).unwrap();
    of_lost.verify(&key);
    assert_eq!(of_lost.body["data"]["outcome"], "lost");
    second.delete(&function).await.assert_status(200);
    second.stop().await;
    let first = start(folders[0].path(), &both, &settings).await;
    first.stop().await;
}

//! Clients that follow invocations get every event, and cost nothing while there is no event.

use std::time::Duration;

use futures_util::future::join_all;

use crate::stored::FILE;
use crate::support::{Service, eventually, python};

const FOLLOWERS: usize = 300;

#[tokio::test]
#[ignore = "needs docker"]
async fn who_follows_what_is_queued_is_told_at_once_and_costs_nothing_before() {
    let dir = tempfile::tempdir().unwrap();
    // The thread of SQLite shows how often the database is asked.
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "60s"), FILE];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let slow = service.deploy(python("import time\ntime.sleep(50)\n")).await;
    let quick = service.deploy(python("print('told')")).await;
    let accepted = async |id: &str| {
        let accepted = service.defer(id, serde_json::json!({})).await.assert_status(202);
        accepted.body["invocationId"].as_str().unwrap().to_owned()
    };
    let first = accepted(&slow).await;
    let outcome = async |id: &str| service.get(&format!("/api/invocations/{id}")).await.body["outcome"].clone();
    eventually("the first invocation runs", async || (outcome(&first).await == "running").then_some(())).await;
    let (second, third) = (accepted(&quick).await, accepted(&quick).await);

    let follow = async |id: &str| {
        let events = reqwest::get(format!("{}/api/invocations/{id}/events", service.url)).await.unwrap();
        events.text().await.unwrap()
    };
    let followers = join_all((0..FOLLOWERS).map(|_| follow(&second)));
    let cancel = async |id: &str| {
        let request = reqwest::Client::new().delete(format!("{}/api/invocations/{id}", service.url));
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    let watched = async {
        eventually("all clients follow", async || (service.connections() >= FOLLOWERS).then_some(())).await;
        // Each client begins with a few questions, which a busy machine answers late.
        eventually("all clients have begun", async || {
            let before = service.database_waits();
            tokio::time::sleep(Duration::from_secs(1)).await;
            (service.database_waits() - before < FOLLOWERS as u64 / 2).then_some(())
        })
        .await;
        let before = service.database_waits();
        tokio::time::sleep(Duration::from_secs(3)).await;
        let asked = service.database_waits() - before;
        println!("{FOLLOWERS} followers had the database asked {asked} times in 3 s");
        assert!(asked < FOLLOWERS as u64, "{asked}");
        // An invocation that is cancelled in the queue has an end, too.
        let cancelled = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel(&third).await;
        };
        let followed = tokio::time::timeout(Duration::from_secs(30), follow(&third));
        let (told, ()) = tokio::join!(followed, cancelled);
        assert!(told.expect("the client gets the end").contains("\"outcome\":\"cancelled\""));
        // The container is free now, and the second invocation has its turn.
        cancel(&first).await;
    };
    let (told, ()) = tokio::join!(followers, watched);
    for told in told {
        assert!(told.contains("event: stdout\ndata: \"told\\n\"") && told.contains("event: ended"), "{told}");
    }

    // The deletion of a function ends the streams of its invocations.
    let (running, gone) = (accepted(&slow).await, accepted(&quick).await);
    let stream = reqwest::get(format!("{}/api/invocations/{gone}/events", service.url)).await.unwrap();
    assert_eq!(stream.status(), 200);
    service.delete(&quick).await.assert_status(200);
    tokio::time::timeout(Duration::from_secs(30), stream.text())
        .await
        .expect("the stream ends with the function")
        .unwrap();
    cancel(&running).await;
    service.delete_all(dir.path()).await;
}

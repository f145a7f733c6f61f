//! Tokens on nodes that share a PostgreSQL.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::nodes::Nodes;
use crate::support::process::{command, free_port};
use crate::support::{Service, eventually};
use crate::tokens::{API_TOKEN, Holder};
use crate::vanished_postgres::Network;

async fn start(nodes: &Nodes, index: usize) -> Service {
    let key = "1a".repeat(32);
    let settings = [("STORE_URL", nodes.url.as_str()), ("SECRETS_KEY", key.as_str()), ("API_TOKEN", API_TOKEN)];
    let dir = nodes.folders[index].path();
    Service::run(command(dir, &settings), free_port(), dir, std::process::Stdio::inherit()).await.healthy().await
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn what_one_node_answers_about_a_token_holds_on_each_node() {
    let nodes = Nodes::new(2);
    let (first, second) = (start(&nodes, 0).await, start(&nodes, 1).await);
    for round in 0..10 {
        let (here, there) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let holder = Holder::admin(here).make(json!({"name": "ci", "scopes": ["read"]})).await;
        // At once, without a wait.
        holder.at(there).get("/api/functions").await.assert_status(200);
        holder.at(here).get("/api/functions").await.assert_status(200);
        Holder::admin(there).post("/api/tokens", json!({"name": "ci", "scopes": ["read"]})).await.assert_problem(
            409,
            "name_taken",
            "ci",
        );
        let listed = Holder::admin(there).get("/api/tokens").await.assert_status(200).body;
        assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &json!("ci")));
        assert!(listed[0]["lastUsedAt"].is_u64(), "{listed}");
        Holder::admin(there).delete("/api/tokens/ci").await.assert_status(200);
        for node in [here, there] {
            holder.at(node).get("/api/functions").await.assert_problem(401, "unauthorized", "");
        }
    }
    // Many changes of both nodes at one time leave the same tokens on both.
    let made = futures_util::future::join_all((0..20).map(async |n| {
        let node = if n % 2 == 0 { &first } else { &second };
        Holder::admin(node).make(json!({"name": format!("t{n}"), "scopes": ["read"]})).await
    }));
    let made = made.await;
    let deletions = (0..20).filter(|n| n % 3 == 0).map(async |n| {
        let node = if n % 2 == 0 { &second } else { &first };
        Holder::admin(node).delete(&format!("/api/tokens/t{n}")).await.assert_status(200)
    });
    futures_util::future::join_all(deletions).await;
    for (n, holder) in made.iter().enumerate() {
        for node in [&first, &second] {
            let status = holder.at(node).get("/api/functions").await.status;
            assert_eq!(status, if n % 3 == 0 { 401 } else { 200 }, "t{n}");
        }
    }
    // A node that starts knows the tokens.
    second.stop().await;
    let second = start(&nodes, 1).await;
    made[1].at(&second).get("/api/functions").await.assert_status(200);
    made[0].at(&second).get("/api/functions").await.assert_problem(401, "unauthorized", "");
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_node_that_hangs_through_a_deletion_lets_the_token_in_no_more() {
    let nodes = Nodes::new(2);
    let (first, second) = (start(&nodes, 0).await, start(&nodes, 1).await);
    let holder = Holder::admin(&first).make(json!({"name": "ci", "scopes": ["read"]})).await;
    let at_second = holder.at(&second);
    at_second.get("/api/functions").await.assert_status(200);
    second.signal("STOP");
    let began = Instant::now();
    Holder::admin(&first).delete("/api/tokens/ci").await.assert_status(200);
    let waited = began.elapsed();
    assert!((Duration::from_secs(5)..Duration::from_secs(60)).contains(&waited), "{waited:?}");
    // The request is on its way when the node goes on.
    let late = tokio::spawn(async move { (at_second.get("/api/functions").await, at_second) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    second.signal("CONT");
    let (late, at_second) = late.await.unwrap();
    assert!(late.status == 503 || late.status == 401, "{late:?}");
    eventually("the node follows again", async || (at_second.get("/api/functions").await.status == 401).then_some(()))
        .await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_node_that_is_cut_off_lets_no_token_in_and_says_at_once_which_have_expired() {
    let network = Network::new().await;
    let dir = tempfile::tempdir().unwrap();
    let key = "1a".repeat(32);
    let settings = [("STORE_URL", network.url.as_str()), ("SECRETS_KEY", key.as_str()), ("API_TOKEN", API_TOKEN)];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let admin = Holder::admin(&service);
    let holder = admin.make(json!({"name": "ci", "scopes": ["read"]})).await;
    let end = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() + 6;
    let expired = admin.make(json!({"name": "short", "scopes": ["read"], "expiresAt": end})).await;
    network.next_period();
    // The lease of the node still runs.
    holder.get("/api/openapi.json").await.assert_status(200);
    eventually("the lease runs out", async || (service.get("/health").await.status == 503).then_some(())).await;
    let began = Instant::now();
    for path in ["/api/functions", "/api/openapi.json"] {
        let refused = holder.get(path).await;
        assert_eq!(refused.headers["retry-after"], "1");
        refused.assert_problem(503, "store_unavailable", "has not reached the database");
    }
    expired.get("/api/functions").await.assert_problem(401, "token_expired", "short");
    // A token that another node may have made meanwhile, and what is no token.
    let made_elsewhere = Holder::new(&service, &format!("ysp_{}", "0".repeat(64)));
    made_elsewhere.get("/api/functions").await.assert_problem(503, "store_unavailable", "");
    Holder::new(&service, "guess").get("/api/functions").await.assert_problem(401, "unauthorized", "");
    // Each wait for a connection to the database takes five seconds.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // API_TOKEN is the operator's, and needs no database.
    admin.get("/api/openapi.json").await.assert_status(200);
    network.next_period();
    eventually("the database is back", async || (holder.get("/api/functions").await.status == 200).then_some(())).await;
    made_elsewhere.get("/api/functions").await.assert_problem(401, "unauthorized", "");
    service.stop().await;
}

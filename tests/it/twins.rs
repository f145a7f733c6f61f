//! A node whose DATA_DIR is a copy, and a node that starts again after a crash.

use std::path::Path;
use std::process::Command;

use crate::nodes::Nodes;
use crate::service::outcome;
use crate::support::Service;

const LOOKING: &str = "looking whether the process lives on";

/// Starts a node with its log in a file.
async fn start(nodes: &Nodes, index: usize) -> Service {
    let dir = nodes.folders[index].path();
    let settings = [("STORE_URL", nodes.url.as_str()), ("SECRETS_KEY", &"1a".repeat(32)), ("LOG_LEVEL", "info")];
    Service::start_logged(dir, &settings, &dir.join("log")).await.healthy().await
}

fn log(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap()
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_copy_of_a_node_does_not_start_beside_the_node() {
    let nodes = Nodes::new(2);
    let [original, copy] = [0, 1].map(|index| nodes.folders[index].path().join("data"));
    let first = nodes.start(0).await;
    assert!(Command::new("cp").arg("-a").arg(&original).arg(&copy).status().unwrap().success());
    let settings = [("STORE_URL", nodes.url.as_str()), ("SECRETS_KEY", &"1a".repeat(32)), ("SERVER_PORT", "0")];
    // The original is another process, and sends its heartbeats meanwhile.
    let refused = outcome(nodes.folders[1].path(), &[], &settings);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains(copy.join("platform-id").to_str().unwrap()), "{said}");
    let first = first.healthy().await;
    assert_eq!(first.get("/api/nodes").await.body.as_array().unwrap().len(), 1);
    std::fs::remove_file(copy.join("platform-id")).unwrap();
    let second = nodes.start(1).await;
    assert_eq!(first.get("/api/nodes").await.body.as_array().unwrap().len(), 2);
    first.healthy().await.stop().await;
    second.stop().await;
}

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn a_node_that_crashed_starts_at_once_and_on_a_machine_that_crashed_after_its_lease() {
    let nodes = Nodes::new(1);
    let dir = nodes.folders[0].path();
    let kill = async |service: Service| {
        service.signal("KILL");
        service.end().await;
    };
    kill(start(&nodes, 0).await).await;
    kill(start(&nodes, 0).await).await;
    assert!(!log(dir).contains(LOOKING), "{}", log(dir));
    // As on a machine that has started again, where the note of the last run is of another boot.
    std::fs::remove_file(dir.join("data/last-run")).unwrap();
    let service = start(&nodes, 0).await;
    assert!(log(dir).contains(LOOKING), "{}", log(dir));
    service.stop().await;
}

//! Slots of several nodes: each slot has one run, also when a node dies.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::{history, put};
use crate::leftovers::remove_leftovers;
use crate::nodes::Nodes;
use crate::support::{eventually, python};

#[tokio::test]
#[ignore = "needs docker and PostgreSQL"]
async fn three_nodes_run_each_slot_once() {
    let nodes = Nodes::new(3);
    let (first, second, third) = (nodes.start(0).await, nodes.start(1).await, nodes.start(2).await);
    let id = first.deploy(python("print('done')\n")).await;
    const SCHEDULES: usize = 12;
    let mut begin = 0;
    for n in 0..SCHEDULES {
        let node = [&first, &second, &third][n % 3];
        let made = put(node, &id, &format!("s{n}"), json!({"cron": "* * * * *"})).await.assert_status(200);
        begin = made.body["nextAt"].as_u64().unwrap();
    }
    let runs_of = async |slot: u64| {
        let mut runs: BTreeMap<String, usize> = BTreeMap::new();
        for run in history(&first, &id).await {
            let created_at = run["createdAt"].as_u64().unwrap();
            if slot <= created_at && created_at < slot + 60 {
                *runs.entry(run["trigger"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        runs
    };
    let until = async |time: u64| {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        tokio::time::sleep(Duration::from_secs(time).saturating_sub(now)).await;
    };
    until(begin + 1).await;
    let runs = eventually("each schedule has its run", async || {
        let runs = runs_of(begin).await;
        (runs.len() == SCHEDULES).then_some(runs)
    })
    .await;
    assert!(runs.values().all(|&count| count == 1), "{runs:?}");
    // A node is gone without a word at the moment of the next slot; the others have its schedules, too.
    until(begin + 60).await;
    tokio::time::sleep(Duration::from_millis(15)).await;
    third.signal("KILL");
    eventually("each schedule has its run without the node", async || {
        (runs_of(begin + 60).await.len() == SCHEDULES).then_some(())
    })
    .await;
    until(begin + 60 + 40).await;
    let runs = runs_of(begin + 60).await;
    assert!(runs.len() == SCHEDULES && runs.values().all(|&count| count == 1), "{runs:?}");
    eventually("what the node had accepted goes on elsewhere", async || {
        let is_open = |run: &Value| ["queued", "running"].contains(&run["outcome"].as_str().unwrap());
        (!history(&first, &id).await.iter().any(is_open)).then_some(())
    })
    .await;
    third.end().await;
    second.stop().await;
    first.delete_all(nodes.folders[0].path()).await;
    // These two nodes are gone before the function is.
    for folder in &nodes.folders[1..] {
        remove_leftovers(folder.path());
    }
}

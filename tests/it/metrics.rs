//! The metrics that Prometheus gets, and the queries of the dashboard.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::support::{Service, TestApp, python};

impl TestApp {
    /// The number of instances in a state, as in the metrics.
    pub(crate) async fn instances(&self, state: &str) -> usize {
        let text = self.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let series = format!("youtube_serverless_instances{{state=\"{state}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_happens_is_counted_and_the_dashboard_asks_for_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("DOCKER_CONTAINER_LIMIT", "2")]).await.healthy().await;
    let id = service.deploy(python("import os\nraise SystemExit(int(os.environ.get('CODE', 0)))")).await;
    for _ in 0..3 {
        service.execute(&id).await.assert_outcome(200, "ok");
    }
    service.execute_with(&id, serde_json::json!({"code": 1})).await.assert_outcome(500, "exit");
    service.submit(b"no zip".to_vec()).await.assert_problem(400, "invalid_archive", "");
    let text = service.text("/metrics").await;
    let value = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<f64>().unwrap()
    };
    assert_eq!(value(&format!("youtube_serverless_invocations_total{{function=\"{id}\",outcome=\"ok\"}}")), 3.0);
    assert_eq!(value(&format!("youtube_serverless_invocations_total{{function=\"{id}\",outcome=\"exit\"}}")), 1.0);
    assert_eq!(value("youtube_serverless_invocation_duration_seconds_count{outcome=\"ok\"}"), 3.0);
    assert_eq!(value("youtube_serverless_queue_wait_seconds_count"), 4.0);
    assert_eq!(value("youtube_serverless_builds_total{result=\"built\"}"), 1.0);
    assert_eq!(value("youtube_serverless_instances{state=\"idle\"}"), 1.0);
    assert_eq!(value("youtube_serverless_functions"), 1.0);
    assert_eq!(
        value("youtube_serverless_http_requests_total{method=\"POST\",route=\"/api/submit\",status=\"400\"}"),
        1.0
    );
    assert!(value("youtube_serverless_docker_command_duration_seconds_count{command=\"build\"}") >= 1.0);
    assert!(value("process_resident_memory_bytes") > 1e6);

    let names: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (path, docs) = (root.join("deploy/grafana-dashboard.json"), root.join("docs"));
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let documented = std::fs::read_to_string(docs.join("operations.md")).unwrap();
    let mut asked = 0;
    for target in dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        let query = target["expr"].as_str().unwrap();
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("youtube_serverless_") || word.starts_with("process_")) {
            let name = ["_bucket", "_count", "_sum"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            // Errors, cold starts, schedules and the like may not have happened yet.
            let is_rare = name.ends_with("errors_total") || name.ends_with("cold_starts_total");
            let is_known = is_rare || names.contains(name) || documented.contains(name);
            assert!(is_known, "{name} is asked for and not there");
            asked += 1;
        }
    }
    assert!(asked > 10, "{asked}");
    service.delete_all(dir.path()).await;
}

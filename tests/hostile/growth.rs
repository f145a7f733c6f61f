//! Instances between invocations. Neither the service nor the container's processes grow with the number of
//! invocations, and no code of a function goes on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::alone;
use crate::support::{Service, docker, eventually, go, labelled, python};

/// The number of invocations without GROWTH_INVOCATIONS. `make nightly` has 100,000.
const INVOCATIONS: usize = 3000;
/// The invocations that bring memory and descriptors to their lasting size.
const FIRST: usize = 1000;
/// The difference that memory may have, in bytes: of the service, and of the processes of a container.
const SERVICE: u64 = 8 << 20;
const CONTAINER: u64 = 2 << 20;

const GO: &str = "import (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() { fmt.Println(\"Hello,\", os.Getenv(\"NAME\")) }\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_grows_with_the_number_of_invocations() {
    let _alone = alone().await;
    let count = std::env::var("GROWTH_INVOCATIONS").ok();
    let count = count.map_or(INVOCATIONS, |text| text.parse().expect("GROWTH_INVOCATIONS is a number"));
    for zip in [python("import json, os\nprint('Hello,', os.environ['NAME'])\n"), go(GO)] {
        let dir = tempfile::tempdir().unwrap();
        let settings = [("DOCKER_CONTAINER_LIMIT", "1")];
        let service = Service::start(dir.path(), &settings).await.healthy().await;
        let function = service.deploy(zip).await;
        repeat(&service, &function, FIRST).await;
        let before = at_rest(&service, dir.path()).await;
        repeat(&service, &function, count).await;
        // The kernel ends the last process in its own time.
        eventually("no process more, and no descriptor", async || {
            let after = Look::at(&service, dir.path());
            (after.descriptors == before.descriptors && after.processes == before.processes).then_some(())
        })
        .await;
        let after = Look::at(&service, dir.path());
        println!("{before:?} -> {after:?}");
        assert_eq!(after.container, before.container, "each invocation was clean");
        assert!(after.service < before.service + SERVICE, "{before:?} -> {after:?}");
        assert!(after.memory < before.memory + CONTAINER, "{before:?} -> {after:?}");
        service.delete_all(dir.path()).await;
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_process_that_is_started_ahead_does_not_go_on() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("DOCKER_CONTAINER_LIMIT", "1")]).await.healthy().await;
    // Nothing of this program needs package syscall, in which other programs wait for their request.
    let program = "func main() {\n\tx := 0\n\tfor i := 0; i < 2000000000; i++ {\n\t\tx ^= i\n\t}\n\tprintln(x)\n}\n";
    let function = service.deploy(go(program)).await;
    for _ in 0..2 {
        // On a busy machine an instance may not be clean in time, and ends.
        eventually("the process is stopped", async || {
            service.execute(&function).await.assert_outcome(200, "ok");
            tokio::time::sleep(Duration::from_millis(500)).await;
            let container = labelled(dir.path(), &["ps"]).pop()?;
            let mut inspect = Command::new("docker");
            let found = inspect.args(["inspect", "--format={{.State.Pid}}", &container]).output().unwrap();
            let first = String::from_utf8(found.stdout).unwrap().trim().to_owned();
            let state = |id: &String| {
                let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
                stat.rsplit(") ").next().map(|rest| rest.starts_with('T'))
            };
            with_children(&first)[1..].iter().any(|id| state(id) == Some(true)).then_some(())
        })
        .await;
    }
    service.delete_all(dir.path()).await;
}

/// A look at a moment of rest: the last process has ended, and the next has started.
async fn at_rest(service: &Service, dir: &Path) -> Look {
    eventually("nothing changes", async || {
        let first = Look::at(service, dir);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let second = Look::at(service, dir);
        (first.descriptors == second.descriptors && first.processes == second.processes).then_some(second)
    })
    .await
}

async fn repeat(service: &Service, function: &str, count: usize) {
    for n in 0..count {
        let answer = service.execute_with(function, json!({"name": n.to_string()})).await;
        assert_eq!(answer.assert_outcome(200, "ok").output(), format!("Hello, {n}\n"));
    }
}

#[derive(Debug)]
struct Look {
    container: String,
    /// The memory of the service and of the container's processes, in bytes.
    service: u64,
    memory: u64,
    processes: usize,
    descriptors: usize,
}

impl Look {
    fn at(service: &Service, dir: &Path) -> Self {
        let container = labelled(dir, &["ps"]).pop().expect("an instance is there");
        let first = docker(&["inspect", "--format={{.State.Pid}}", &container]).remove(0);
        let processes = with_children(&first);
        // A process that ends meanwhile counts nothing.
        let descriptors =
            processes.iter().filter_map(|id| Some(std::fs::read_dir(format!("/proc/{id}/fd")).ok()?.count()));
        Self {
            container,
            service: service.memory(),
            memory: processes.iter().filter_map(|id| proportional(id)).sum(),
            processes: processes.len(),
            descriptors: descriptors.sum(),
        }
    }
}

/// A process and all that descend from the process. The kernel keeps the children of each thread.
fn with_children(id: &str) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let children: String =
        threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok()).collect();
    [id.to_owned()].into_iter().chain(children.split_whitespace().flat_map(with_children)).collect()
}

/// The memory of a process, in bytes. Pages that processes share count in parts.
fn proportional(id: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
}

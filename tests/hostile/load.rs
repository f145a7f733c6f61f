//! Good and hostile clients at once, for as long as LOAD_SECONDS says: `make load` takes ten minutes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::alone;
use crate::support::{Answer, Service, answer, eventually, go, labelled, python, zip};

/// The length of the load without LOAD_SECONDS.
const SECONDS: u64 = 40;
/// An answer that a client waits for longer than this will not come.
const ANSWER: Duration = Duration::from_secs(90);
/// The difference that memory may have between two moments of rest, in bytes.
const REST: u64 = 24 << 20;
/// Problems that the contract names for a loaded service.
const NAMED: [(u16, &str); 2] = [(429, "overloaded"), (503, "docker_unavailable")];

/// The number of answers, by client and kind of answer.
type Tally = Mutex<BTreeMap<String, u64>>;

#[tokio::test]
#[ignore = "needs docker"]
async fn good_clients_are_served_among_hostile_ones() {
    let _alone = alone().await;
    let seconds =
        std::env::var("LOAD_SECONDS").ok().map_or(SECONDS, |text| text.parse().expect("LOAD_SECONDS is a number"));
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("SERVER_READ_TIMEOUT", "10s"),
        ("DOCKER_CONTAINER_LIMIT", "6"),
        ("QUEUE_TIMEOUT", "60s"),
        ("INSTANCE_IDLE_TIMEOUT", "2s"),
    ];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let greeting = "import os\nprint('Hello,', os.environ['NAME'])\n";
    let good = [
        service.deploy(python(greeting)).await,
        service
            .deploy(go(
                "import (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() { fmt.Println(\"Hello,\", os.Getenv(\"NAME\")) }\n",
            ))
            .await,
    ];
    let mut bad = Vec::new();
    for program in [
        "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass\n",
        "hog = []\nwhile True:\n    hog.append(bytearray(1 << 20))\n",
        "import os\nwhile True:\n    os.write(1, b'x' * 65536)\n",
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while True:\n        pass\n",
    ] {
        let id = service.deploy(python(program)).await;
        let change = service.client.patch(format!("{}/api/functions/{id}", service.url));
        answer(change.json(&serde_json::json!({"timeout": "2s"}))).await.assert_status(200);
        bad.push(id);
    }
    let garbage = garbage();
    // A first round brings memory and files to their lasting size.
    round(&service, &good, &bad, &garbage, Duration::from_secs(10)).await;
    let rest = at_rest(&service, dir.path()).await;
    let tally = round(&service, &good, &bad, &garbage, Duration::from_secs(seconds)).await;
    let after = at_rest(&service, dir.path()).await;
    for (what, count) in &tally {
        println!("{count:>8}  {what}");
    }
    println!("at rest before and after: {rest:?}, {after:?}");
    assert!(tally.keys().all(|what| !what.contains("WRONG")), "{tally:#?}");
    for language in ["python", "golang"] {
        assert!(tally[&format!("good {language}: served")] > 20, "{tally:#?}");
    }
    assert!(after.memory < rest.memory + REST, "{rest:?} -> {after:?}");
    assert!(after.descriptors <= rest.descriptors + 2, "{rest:?} -> {after:?}");
    assert!(after.processes <= rest.processes, "{rest:?} -> {after:?}");
    assert_eq!(after.temp_files, rest.temp_files);
    service.delete_all(dir.path()).await;
}

/// The resources of a service without requests.
#[derive(Debug)]
struct AtRest {
    memory: u64,
    descriptors: usize,
    processes: usize,
    temp_files: usize,
}

impl AtRest {
    fn of(service: &Service) -> Self {
        Self {
            memory: service.memory(),
            descriptors: service.descriptors(),
            processes: service.children(),
            temp_files: service.temp_files(),
        }
    }
}

async fn at_rest(service: &Service, dir: &Path) -> AtRest {
    eventually("connections have ended", async || (service.connections() == 0).then_some(())).await;
    eventually("containers have ended", async || labelled(dir, &["ps", "--all"]).is_empty().then_some(())).await;
    // Removals and the clean-up after failed builds go on for a moment.
    sleep(Duration::from_secs(8)).await;
    // The test takes the least of some looks, as a probe of Docker takes a process for a moment.
    let mut least = AtRest::of(service);
    for _ in 0..20 {
        sleep(Duration::from_millis(150)).await;
        let now = AtRest::of(service);
        least = AtRest {
            memory: least.memory.min(now.memory),
            descriptors: least.descriptors.min(now.descriptors),
            processes: least.processes.min(now.processes),
            temp_files: least.temp_files.min(now.temp_files),
        };
    }
    least
}

async fn round(
    service: &Service,
    good: &[String; 2],
    bad: &[String],
    garbage: &[Vec<u8>],
    limit: Duration,
) -> BTreeMap<String, u64> {
    let tally = Tally::default();
    let until = Instant::now() + limit;
    let (python, golang) = (&good[0], &good[1]);
    tokio::join!(
        greeted(service, "good python", python, until, &tally),
        greeted(service, "good python", python, until, &tally),
        greeted(service, "good golang", golang, until, &tally),
        lifecycles(service, until, &tally),
        attackers(service, bad, until, &tally),
        attackers(service, &bad[1..], until, &tally),
        uploaders(service, garbage, until, &tally),
        leavers(service, bad, until, &tally),
        dawdlers(service, until, &tally),
        dawdlers(service, until, &tally),
    );
    tally.into_inner().unwrap()
}

fn count(tally: &Tally, what: impl Into<String>) {
    *tally.lock().unwrap().entry(what.into()).or_default() += 1;
}

fn is_named(answer: &Answer) -> bool {
    NAMED.iter().any(|&(status, code)| answer.status == status && answer.body["code"] == code)
}

/// Good clients: each must be greeted by its own name.
async fn greeted(service: &Service, who: &str, id: &str, until: Instant, tally: &Tally) {
    let mut n = 0;
    while Instant::now() < until {
        n += 1;
        let answer = timeout(ANSWER, service.execute_with(id, serde_json::json!({"name": format!("{who} {n}")}))).await;
        match answer {
            Ok(answer) if answer.status == 200 && answer.body["output"] == format!("Hello, {who} {n}\n") => {
                count(tally, format!("{who}: served"));
            }
            Ok(answer) => count(tally, format!("{who}: WRONG {} {:.300}", answer.status, answer.body.to_string())),
            Err(_) => count(tally, format!("{who}: WRONG no answer")),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// A CI pipeline: submits, executes, deletes.
async fn lifecycles(service: &Service, until: Instant, tally: &Tally) {
    let mut n = 0;
    while Instant::now() < until {
        n += 1;
        let submitted = service.submit(python(&format!("print({n})"))).await;
        let Some(id) = submitted.body["functionId"].as_str().filter(|_| submitted.status == 200) else {
            count(tally, format!("pipeline: WRONG submit {} {:.300}", submitted.status, submitted.body.to_string()));
            continue;
        };
        let executed = service.execute(id).await;
        let right = executed.status == 200
            && executed.body["output"] == format!("{n}\n")
            && service.delete(id).await.status == 200;
        let what = if right { "served".to_owned() } else { format!("WRONG {:.300}", executed.body.to_string()) };
        count(tally, format!("pipeline: {what}"));
    }
}

/// Callers of functions that take all resources that they can get.
async fn attackers(service: &Service, bad: &[String], until: Instant, tally: &Tally) {
    for id in bad.iter().cycle() {
        if Instant::now() >= until {
            return;
        }
        let answer = service.execute(id).await;
        match answer.body["outcome"].as_str() {
            Some(outcome) => count(tally, format!("attacker: {outcome}")),
            None if is_named(&answer) => count(tally, format!("attacker: {}", answer.body["code"])),
            None => count(tally, format!("attacker: WRONG {} {:.300}", answer.status, answer.body.to_string())),
        }
    }
}

/// Uploads that are refused.
fn garbage() -> Vec<Vec<u8>> {
    vec![
        b"no zip".to_vec(),
        zip(&[("../x.py", "")]),
        zip(&[("main.py", &"0".repeat(120_000_000))]),
        zip(&[("main.py", ""), ("main.go", "package main\nfunc main() {}\n")]),
        go("func main() { undefined() }\n"),
        zip(&[("readme.txt", "")]),
    ]
}

/// Clients whose uploads are refused.
async fn uploaders(service: &Service, garbage: &[Vec<u8>], until: Instant, tally: &Tally) {
    for zip in garbage.iter().cycle() {
        if Instant::now() >= until {
            return;
        }
        let answer = service.submit(zip.clone()).await;
        let right = [400, 413, 422].contains(&answer.status);
        count(tally, format!("garbage: {}{}", if right { "" } else { "WRONG " }, answer.status));
        sleep(Duration::from_millis(100)).await;
    }
}

/// Clients that leave in mid-request.
async fn leavers(service: &Service, bad: &[String], until: Instant, tally: &Tally) {
    for (n, id) in bad.iter().cycle().enumerate() {
        if Instant::now() >= until {
            return;
        }
        let submission = service.submission(python("print('left')"));
        let left = match n % 2 {
            0 => timeout(Duration::from_millis(300), service.execute(id)).await.is_err(),
            _ => timeout(Duration::from_millis(50), submission.send()).await.is_err(),
        };
        count(tally, if left { "leaver: left" } else { "leaver: stayed" });
    }
}

/// Clients that open connections and say little.
async fn dawdlers(service: &Service, until: Instant, tally: &Tally) {
    let mut held = Vec::new();
    while Instant::now() < until {
        if let Ok(mut stream) = TcpStream::connect(service.address()).await {
            let _ = stream.write_all(b"POST /api/submit HTTP/1.1\r\ncontent-length: 9999\r\nx: ").await;
            held.push(stream);
        }
        if held.len() > 100 {
            held.drain(..50);
        }
        count(tally, "dawdler: connected");
        sleep(Duration::from_millis(20)).await;
    }
}

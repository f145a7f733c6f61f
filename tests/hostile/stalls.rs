//! Loads that could keep the service from answering: much work on the disk, and many requests that wait in memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::alone;
use crate::support::{Service, eventually, python};

/// No client waits longer than this for a sign of life, but for a quarter of the time on a busy machine.
const LIVELY: Duration = Duration::from_millis(300);
/// No client waits longer than this.
const ALIVE: Duration = Duration::from_secs(5);
/// The largest number of folders that a zip may hold with the files.
const FOLDERS: usize = 9_800;
/// The memory that all requests may hold, and the memory that may come on top, in bytes.
const BUDGET: u64 = 256 << 20;
const SLACK: u64 = 128 << 20;

/// A small zip of very many folders without a program.
fn tree() -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for n in 0..FOLDERS {
        zip.add_directory(format!("d{n}"), SimpleFileOptions::default()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn uploads_of_very_many_folders_keep_nobody_waiting() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    service.deploy(python("print('ready')")).await;
    let uploads: Vec<_> = (0..4).map(|_| service.submit(tree())).collect();
    let has_ended = AtomicBool::new(false);
    let uploaded = async {
        let answers = join_all(uploads).await;
        has_ended.store(true, Ordering::Relaxed);
        answers
    };
    let probed = async {
        let mut times = Vec::new();
        while !has_ended.load(Ordering::Relaxed) {
            let began = Instant::now();
            service.get("/health/live").await.assert_status(200);
            times.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.sort();
        times
    };
    let (answers, times) = tokio::join!(uploaded, probed);
    let (whole, longest) = (times.iter().sum::<Duration>(), times[times.len() - 1]);
    let late: Duration = times.iter().filter(|&&time| time > LIVELY).sum();
    println!("of {} signs of life all came within {longest:?}; {late:?} of {whole:?} were for late ones", times.len());
    for answer in answers {
        answer.assert_problem(422, "language_not_detected", "");
    }
    assert!(late <= whole / 4 && longest < ALIVE, "{late:?} of {whole:?}, {longest:?}");
    eventually("no temp files are left", async || (service.temp_files() == 0).then_some(())).await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn inputs_that_wait_for_a_container_stay_within_the_budget() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = [
        ("DOCKER_CONTAINER_LIMIT", "1"),
        ("DOCKER_RUN_TIMEOUT", "600s"),
        ("QUEUE_TIMEOUT", "600s"),
        ("SERVER_READ_TIMEOUT", "60s"),
    ];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let id = service.deploy(python("import time\ntime.sleep(500)\n")).await;
    let before = service.memory();
    // Each input has almost 1 MiB, and the environment has a copy.
    let input: serde_json::Map<_, _> = (0..16).map(|n| (format!("k{n}"), "x".repeat(64_000).into())).collect();
    let body = serde_json::json!({"functionId": id, "input": input}).to_string();
    let requests = (0..200).map(|_| {
        let request = reqwest::Client::new().post(format!("{}/api/execute", service.url)).body(body.clone());
        let request = request.header("content-type", "application/json").timeout(Duration::from_secs(45));
        async move { request.send().await.map(|answer| answer.status().as_u16()) }
    });
    let refused = async {
        let answers = join_all(requests).await;
        answers.into_iter().filter(|answer| answer.as_ref().is_ok_and(|&status| status == 429)).count()
    };
    let mut most = before;
    let refused = tokio::select! {
        refused = refused => refused,
        () = async {
            loop {
                most = most.max(service.memory());
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        } => unreachable!("the loop goes on for ever"),
    };
    println!("{refused} were refused, the memory went from {} to {} MB", before >> 20, most >> 20);
    // Some 130 requests fill the budget.
    assert!((20..150).contains(&refused), "{refused} were refused");
    assert!(most < before + BUDGET + SLACK, "{before} -> {most}");
    // All clients have left, so there is room again.
    eventually("other requests are taken again", async || {
        let waits = reqwest::Client::new().post(format!("{}/api/execute", service.url)).body(body.clone());
        let waits = waits.header("content-type", "application/json").timeout(Duration::from_secs(1)).send().await;
        waits.is_err().then_some(())
    })
    .await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn inputs_with_a_key_wait_on_disk() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let settings = [("DOCKER_CONTAINER_LIMIT", "1"), ("DOCKER_RUN_TIMEOUT", "600s"), ("QUEUE_TIMEOUT", "600s")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let id = service.deploy(python("import time\ntime.sleep(20)\n")).await;
    let before = service.memory();
    let input: serde_json::Map<_, _> = (0..16).map(|n| (format!("k{n}"), "x".repeat(64_000).into())).collect();
    let body = serde_json::json!({"functionId": id, "input": input}).to_string();
    let client = reqwest::Client::new();
    // A few requests come at a time, so that only waiting requests count.
    for n in 0..100 {
        let request = client
            .post(format!("{}/api/execute", service.url))
            .body(body.clone())
            .header("idempotency-key", n.to_string());
        let request = request.header("content-type", "application/json").timeout(Duration::from_secs(60));
        tokio::spawn(async move { request.send().await.map(|answer| answer.status()) });
        let path = format!("/api/functions/{id}/invocations?limit=500");
        eventually("the execution is on disk", async || {
            let known = service.get(&path).await.body;
            (known["invocations"].as_array()?.len() > n).then_some(())
        })
        .await;
    }
    let most = service.memory();
    println!("the memory went from {} to {} MB", before >> 20, most >> 20);
    // Each connection has buffers of some 1 MB.
    assert!(most < before + 2 * SLACK, "{before} -> {most}");
    service.delete_all(dir.path()).await;
}

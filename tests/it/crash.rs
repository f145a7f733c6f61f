//! `kill -9` at random moments: no acknowledged change is lost, no deleted function comes back, and no image, container
//! or file is left that no row owns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use uuid::Uuid;

use crate::support::{Engine, Service, eventually, python};

/// The crashes, unless CRASH_ROUNDS says how many. `make nightly` has a hundred.
const ROUNDS: usize = 12;
const ROUNDS_WITH_DAEMON: usize = 4;
const CLIENTS: usize = 3;
/// The largest number of functions at a time, so that the rounds stay alike.
const MOST: usize = 6;

/// The changes that the service has acknowledged.
#[derive(Default)]
struct Ledger {
    /// The texts that each function may print: the text of the last acknowledged version, and the texts of later
    /// updates, which may have happened or not.
    functions: BTreeMap<String, Vec<Text>>,
    /// Functions whose deletion was asked for and not acknowledged. Such functions may be there or not.
    doubtful: BTreeMap<String, Vec<Text>>,
    deleted: BTreeMap<String, Vec<Text>>,
    submits: usize,
    executions: usize,
    updates: usize,
    deletes: usize,
}

#[derive(Clone)]
struct Text {
    text: String,
    /// No update to this text is under way.
    is_settled: bool,
}

impl Text {
    fn random(is_settled: bool) -> Self {
        Self { text: Uuid::new_v4().to_string(), is_settled }
    }

    fn program(&self) -> Vec<u8> {
        python(&format!("print('{}')", self.text))
    }
}

fn are_of(texts: &[Text], output: &str) -> bool {
    texts.iter().any(|one| output == format!("{}\n", one.text))
}

/// A number below `bound` that no run foresees.
fn random(bound: usize) -> usize {
    (Uuid::new_v4().as_u128() % bound as u128) as usize
}

/// Submits, executes, updates and deletes until the service is gone.
async fn client(service: Arc<Service>, ledger: Arc<Mutex<Ledger>>) {
    loop {
        let (known, any) = {
            let ledger = ledger.lock().unwrap();
            let any = ledger.functions.iter().nth(random(ledger.functions.len().max(1)));
            (ledger.functions.len(), any.map(|(id, texts)| (id.clone(), texts.clone())))
        };
        let choice = random(5);
        match any {
            Some((id, _)) if choice == 0 || known > MOST => {
                {
                    let mut ledger = ledger.lock().unwrap();
                    if let Some(texts) = ledger.functions.remove(&id) {
                        ledger.doubtful.insert(id.clone(), texts);
                    }
                }
                let Some(answer) = service.try_delete(&id).await else { return };
                // Two clients may delete the same function.
                assert!(answer.status == 200 || answer.status == 404, "{answer:?}");
                let mut ledger = ledger.lock().unwrap();
                // Two clients may delete the same function.
                if let Some(texts) = ledger.doubtful.remove(&id) {
                    ledger.deleted.insert(id, texts);
                }
                ledger.deletes += 1;
            }
            Some((id, texts)) if choice == 1 => {
                let Some(answer) = service.try_execute(&id).await else { return };
                if answer.status == 200 {
                    let mut ledger = ledger.lock().unwrap();
                    // The texts of updates that began meanwhile count, too.
                    let now = ledger.functions.get(&id).or_else(|| ledger.doubtful.get(&id));
                    let now = now.or_else(|| ledger.deleted.get(&id)).expect("the function was known");
                    assert!(are_of(&texts, answer.output()) || are_of(now, answer.output()), "{answer:?}");
                    ledger.executions += 1;
                } else {
                    let is_deleted = !ledger.lock().unwrap().functions.contains_key(&id);
                    assert!(answer.status == 404 && is_deleted, "{answer:?}");
                }
            }
            Some((id, _)) if choice == 2 => {
                let text = Text::random(false);
                let settled_before: Vec<String> = {
                    let mut ledger = ledger.lock().unwrap();
                    let Some(texts) = ledger.functions.get_mut(&id) else { continue };
                    texts.push(text.clone());
                    texts.iter().filter(|one| one.is_settled).map(|one| one.text.clone()).collect()
                };
                let Some(answer) = service.try_update(&id, text.program()).await else { return };
                let mut ledger = ledger.lock().unwrap();
                if let Some(texts) = ledger.functions.get_mut(&id) {
                    answer.assert_status(200);
                    texts.retain(|one| !settled_before.contains(&one.text));
                    texts.iter_mut().filter(|one| one.text == text.text).for_each(|one| one.is_settled = true);
                    ledger.updates += 1;
                } else {
                    assert!(answer.status == 200 || answer.status == 404, "{answer:?}");
                }
            }
            _ => {
                let text = Text::random(true);
                let Some(answer) = service.try_submit(text.program()).await else { return };
                let answer = answer.assert_status(200);
                let mut ledger = ledger.lock().unwrap();
                ledger.functions.insert(answer.body["functionId"].as_str().unwrap().to_owned(), vec![text]);
                ledger.submits += 1;
            }
        }
    }
}

async fn round(service: Service, ledger: &Arc<Mutex<Ledger>>, patience: Duration) {
    let service = Arc::new(service);
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(client(Arc::clone(&service), Arc::clone(ledger)))).collect();
    tokio::time::sleep(patience).await;
    service.signal("KILL");
    for client in clients {
        client.await.unwrap();
    }
    Arc::into_inner(service).expect("no client has the service any more").end().await;
}

/// No acknowledged function is missing, and no deletion is undone.
async fn assert_agrees(service: &Service, ledger: &Mutex<Ledger>) -> BTreeSet<String> {
    let listed = service.get("/api/functions").await.assert_status(200).body;
    let listed: BTreeSet<String> =
        listed.as_array().unwrap().iter().map(|function| function["functionId"].as_str().unwrap().to_owned()).collect();
    let mut ledger = ledger.lock().unwrap();
    let missing: Vec<_> = ledger.functions.keys().filter(|&id| !listed.contains(id)).collect();
    assert!(missing.is_empty(), "acknowledged and lost: {missing:?}");
    let back: Vec<_> = ledger.deleted.keys().filter(|&id| listed.contains(id)).collect();
    assert!(back.is_empty(), "deleted and back: {back:?}");
    ledger.doubtful.clear();
    // No request is under way any more.
    ledger.functions.values_mut().flatten().for_each(|text| text.is_settled = true);
    listed
}

/// At the end all functions execute, and Docker and the disk hold nothing else.
async fn assert_whole(service: Service, dir: &Path, ledger: &Mutex<Ledger>, docker: impl Fn(&[&str]) -> String) {
    let listed = assert_agrees(&service, ledger).await;
    let functions = ledger.lock().unwrap().functions.clone();
    for (id, texts) in functions {
        let executed = service.execute(&id).await.assert_outcome(200, "ok");
        assert!(are_of(&texts, executed.output()), "{executed:?}");
    }
    let platform = std::fs::read_to_string(dir.join("data/platform-id")).unwrap();
    let filter = format!("label=youtube-serverless.platform={platform}");
    eventually("no image is left that no function has", async || {
        let images = docker(&["images", "--filter", &filter, "--format", "{{.Repository}}"]);
        let ids: Vec<&str> = images.lines().filter_map(|name| name.rsplit('/').next()).collect();
        // A function has the image of its version and of the version before.
        let is_few = |id: &str| ids.iter().filter(|&&other| other == id).count() <= 2;
        ids.iter().all(|id| listed.contains(*id) && is_few(id)).then_some(())
    })
    .await;
    for id in &listed {
        service.delete(id).await.assert_status(200);
    }
    eventually("all images are gone", async || {
        docker(&["images", "--quiet", "--filter", &filter]).is_empty().then_some(())
    })
    .await;
    // A command of Docker's may outlive the killed service, and its container comes late.
    eventually("no container is left", async || {
        docker(&["ps", "--all", "--quiet", "--filter", &filter]).is_empty().then_some(())
    })
    .await;
    service.stop().await;
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", &filter]), "");
    assert_eq!(std::fs::read_dir(dir.join("temp")).unwrap().count(), 0, "temp files are left");
}

/// Whether there have been enough rounds, with an acknowledged request of each kind. A slow machine takes more rounds,
/// and longer ones.
fn is_enough(rounds: usize, least: usize, ledger: &Mutex<Ledger>) -> bool {
    let Ledger { submits, executions, updates, deletes, .. } = &*ledger.lock().unwrap();
    let is_telling = [submits, executions, updates, deletes].iter().all(|&&count| count > 0);
    assert!(is_telling || rounds < 10 * least, "the rounds are too short to mean anything");
    rounds >= least && is_telling
}

/// The time to a crash. Where a machine is too slow for an acknowledgement of each kind, later rounds take longer.
fn patience(rounds: usize, least: usize, milliseconds: usize) -> Duration {
    Duration::from_millis((milliseconds * rounds.div_ceil(least)) as u64)
}

fn report(what: &str, ledger: &Mutex<Ledger>) {
    let Ledger { submits, executions, updates, deletes, .. } = &*ledger.lock().unwrap();
    eprintln!(
        "{what}: {submits} submits, {executions} executions, {updates} updates and {deletes} deletes were acknowledged"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn crashes_lose_nothing() {
    let least = std::env::var("CRASH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::default();
    let mut rounds = 0;
    while !is_enough(rounds, least, &ledger) {
        rounds += 1;
        let service = Service::start(dir.path(), &[]).await.healthy().await;
        assert_agrees(&service, &ledger).await;
        round(service, &ledger, patience(rounds, least, 500 + random(3000))).await;
    }
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    report(&format!("{rounds} crashes"), &ledger);
    assert_whole(service, dir.path(), &ledger, |args| crate::support::docker(args).join("\n")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs docker"]
async fn crashes_with_a_restart_of_the_daemon_in_between_lose_nothing() {
    let mut engine = Engine::start().await;
    let dir = tempfile::tempdir().unwrap();
    let ledger = Arc::default();
    let mut rounds = 0;
    while !is_enough(rounds, ROUNDS_WITH_DAEMON, &ledger) {
        rounds += 1;
        let host = engine.host();
        let service = Service::start(dir.path(), &[("DOCKER_HOST", &host)]).await.healthy().await;
        assert_agrees(&service, &ledger).await;
        round(service, &ledger, patience(rounds, ROUNDS_WITH_DAEMON, 2000 + random(4000))).await;
        if rounds % 2 == 0 {
            engine.stop().await;
        } else {
            engine.kill().await;
        }
        engine.run().await;
    }
    let host = engine.host();
    let service = Service::start(dir.path(), &[("DOCKER_HOST", &host)]).await.healthy().await;
    report(&format!("{rounds} crashes with restarts of the daemon"), &ledger);
    assert_whole(service, dir.path(), &ledger, |args| engine.docker(args).expect("docker answers").trim().to_owned())
        .await;
    engine.remove().await;
}

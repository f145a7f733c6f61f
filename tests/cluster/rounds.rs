//! Rounds of crashes: in each, a member is killed, frozen or cut off at a random instant under six clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use reqwest::multipart::{Form, Part};

use crate::client::{Client, World};
use crate::cluster::{Cluster, FIRST_SUBMIT, Target};
use crate::faults::{Fault, Watch};
use crate::random::Random;
use crate::settle::listed;
use crate::zips::python;

const CLIENTS: usize = 6;
/// The number of rounds without CLUSTER_ROUNDS.
const ROUNDS: usize = 4;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// Makes each engine build a function once: the first build of a language takes an engine much longer than the next.
async fn warm_up(cluster: &Cluster) {
    join_all(cluster.node_targets().map(|target| async move {
        let form = Form::new().part("code", Part::bytes(python("print('warm')")).file_name("warm.zip"));
        let submit = cluster.request(target, Method::POST, "/api/submit").multipart(form).timeout(FIRST_SUBMIT);
        let reply = cluster.send(target, submit).await;
        assert!(reply.is(200), "{target:?}: {:?} {}", reply.status, reply.body);
        let delete = cluster.request(target, Method::DELETE, &format!("/api/functions/{}", reply.text("functionId")));
        assert!(cluster.send(target, delete).await.is(200));
    }))
    .await;
}

/// One round. The clients go on for a while after all is well again.
async fn round(
    world: &Arc<World>,
    clients: Vec<Client>,
    number: usize,
    fault: &Fault,
    random: &mut Random,
) -> Vec<Client> {
    world.is_over.store(false, Ordering::Relaxed);
    let clients: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.run())).collect();
    // Longer than a node's lease, or shorter.
    let (instant, length) = (random.millis(1000, 5000), random.millis(200, 14_000));
    eprintln!("round {number}: {fault}, after {instant:.1?} for {length:.1?}, from {}", jiff::Timestamp::now());
    tokio::time::sleep(instant).await;
    world.watch.begin(fault);
    fault.begin(&world.cluster).await;
    tokio::time::sleep(length).await;
    fault.end(&world.cluster).await;
    world.cluster.until_well().await;
    world.watch.end();
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.is_over.store(true, Ordering::Relaxed);
    join_all(clients).await.into_iter().map(Result::unwrap).collect()
}

/// Holds the clients' ledgers against the nodes.
async fn settle(world: &Arc<World>, clients: Vec<Client>, targets: &[Target]) -> Vec<Client> {
    let listed = listed(world).await;
    let settled = clients.into_iter().map(|client| tokio::spawn(client.settle(listed.clone(), targets.to_vec())));
    let clients: Vec<Client> = join_all(settled).await.into_iter().map(Result::unwrap).collect();
    let known: BTreeMap<&str, ()> =
        clients.iter().flat_map(|client| &client.functions).map(|function| (function.id.as_str(), ())).collect();
    for (id, name) in listed.iter().filter(|(id, _)| !known.contains_key(id.as_str())) {
        world.watch.wrong(format!("{id} ({name}) is there, and nobody has made it"));
    }
    clients
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs scripts/cluster"]
async fn crashes_of_any_member_lose_nothing() {
    let _alone = crate::alone().await;
    let rounds = number("CLUSTER_ROUNDS").map_or(ROUNDS, |rounds| usize::try_from(rounds).unwrap());
    let first = usize::try_from(number("CLUSTER_FIRST_ROUND").unwrap_or(0)).unwrap();
    let seed = number("CLUSTER_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    eprintln!("{rounds} rounds of crashes; again with CLUSTER_SEED={seed}");
    let (watch, counts) = (Watch::default(), std::sync::Mutex::default());
    let world = Arc::new(World { cluster: Cluster::of_environment(), watch, counts, is_over: AtomicBool::new(false) });
    let mut random = Random::new(seed);
    let mut clients: Vec<Client> = (0..CLIENTS).map(|number| Client::new(&world, number, seed)).collect();
    warm_up(&world.cluster).await;
    let (began, mut ok, mut failed) = (Instant::now(), 0, 0);
    for number in first..first + rounds {
        let fault = Fault::of_round(number, &mut random);
        let (began, log) = (Instant::now(), world.cluster.haproxy_log().len());
        clients = round(&world, clients, number, &fault, &mut random).await;
        let took = began.elapsed();
        for line in fault.unexcused(&world.cluster.haproxy_log()[log..]) {
            world.watch.wrong(format!("failed by HAProxy, not on the node of the fault: {line}"));
        }
        let is_last = number + 1 == first + rounds;
        let targets: Vec<Target> =
            world.cluster.node_targets().filter(|&target| is_last || target == Target::Node(1 + number % 3)).collect();
        clients = settle(&world, clients, &targets).await;
        let counts = std::mem::take(&mut *world.counts.lock().unwrap());
        ok += counts.values().map(|count| count.0).sum::<usize>();
        failed += counts.values().map(|count| count.1).sum::<usize>();
        let told: String = counts.iter().map(|(what, (ok, failed))| format!(" {what} {ok}/{failed}")).collect();
        eprintln!("round {number}: {took:.1?}, then settled after {:.1?}; ok/failed:{told}", began.elapsed() - took);
        let wrongs = world.watch.wrongs();
        assert!(wrongs.is_empty(), "round {number}, {fault}, CLUSTER_SEED={seed}: {wrongs:#?}");
    }
    let accepted: usize = clients.iter().map(|client| client.total_accepted).sum();
    let lost: usize = clients.iter().map(Client::lost).sum();
    let deleted: usize = clients.iter().map(|client| client.deleted.len()).sum();
    join_all(clients.into_iter().map(Client::delete_all)).await;
    assert!(listed(&world).await.is_empty());
    nothing_is_left(&world.cluster).await;
    eprintln!(
        "{rounds} rounds in {:.0?}: {ok} requests went well, {failed} failed by a fault; {accepted} asynchronous \
         executions, of which {lost} of functions that were there at the end are lost; {deleted} functions deleted",
        began.elapsed()
    );
}

/// No engine has a container any more, but for the build of the image for Go: a new node builds that image ahead of
/// need, for minutes on a busy machine. A build that ended with its engine must leave no container, either, once no
/// build goes on: before that, its container can't be told from one of the build. A node holds one slot of each
/// language where nothing runs: a slot of an earlier process would be one more. Of files, each slot has one folder for
/// its code, the image that is being built has one, and nothing else is left, as no function is.
async fn nothing_is_left(cluster: &Cluster) {
    let deadline = Instant::now() + Duration::from_secs(60);
    for number in 1..=3 {
        loop {
            let format = "{{.Names}} {{.Status}} {{.Command}}";
            let listed = cluster.docker(number, &["ps", "--all", "--no-trunc", "--format", format]);
            // The last image that a new node builds.
            let built = cluster.docker(number, &["images", "--quiet", "youtube-serverless-runtime/golang-slot"]);
            let may_end = |line: &&str| [" Created ", " Exited "].iter().any(|status| line.contains(status));
            let is_step = |line: &&str| line.contains(" Up ") || (may_end(line) && built.is_empty());
            let is_build = |line: &&str| is_step(line) && line.contains("go build");
            let is_slot = |line: &&str| line.starts_with("youtube-serverless-slot-") && line.contains(" Up ");
            let (slots, others): (Vec<&str>, Vec<&str>) = listed.lines().partition(is_slot);
            let left: Vec<&str> = others.into_iter().filter(|line| !is_build(line)).collect();
            let [trees, folders] = cluster.files(number);
            let most = slots.len() + usize::from(built.is_empty());
            if left.is_empty() && slots.len() <= 2 && trees.is_empty() && folders.len() <= most {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "node {number} has containers or files left: {left:?} {slots:?} {trees:?} {folders:?}"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

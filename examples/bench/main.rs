//! Measures the platform against running the same programs by hand, in turn, on this machine: `make bench`.
//!
//! The arguments name parts, as in `make bench PART=stores`; without one, all parts run. A number is a number of
//! invocations in a row before and after which `languages` looks at what the service uses.
//!
//! Prints tables, and writes these with a plot to `target/bench/`. Figures are comparable only within a run.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the program runs other programs, measures real time and prints"
)]

mod by_hand;
mod doors;
mod http;
mod many;
mod programs;
mod report;
mod service;
mod slots;
mod stores;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use by_hand::{ByHand, timed as timed_by_hand};
use report::{Report, median, percentile};
use service::{Function, Service};

const PARTS: [&str; 7] = ["languages", "programs", "many", "slots", "doors", "http", "stores"];
const ROUNDS: usize = 30;
const WARM_REQUESTS: usize = 1000;
const LOAD: Duration = Duration::from_secs(6);
const CLIENTS: [usize; 3] = [1, 8, 32];
const IDLE: Duration = Duration::from_millis(500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (mut parts, mut soak) = (Vec::new(), None);
    for argument in std::env::args().skip(1) {
        match argument.parse::<usize>() {
            Ok(count) => soak = Some(count),
            Err(_) => parts.push(argument),
        }
    }
    let unknown = parts.iter().find(|part| !PARTS.contains(&part.as_str()));
    ensure!(unknown.is_none(), "no part {unknown:?}; the parts are {PARTS:?}");
    let has = |part: &str| parts.is_empty() || parts.iter().any(|one| one == part);
    let dir = tempfile::tempdir()?;
    let mut report = Report::default();
    if has("languages") {
        for language in ["python", "go"] {
            cold(&mut report, dir.path(), language).await?;
            warm(&mut report, dir.path(), language, soak).await?;
        }
    }
    if has("programs") {
        programs::measure(&mut report, dir.path()).await?;
    }
    if has("many") {
        many(&mut report).await?;
    }
    if has("slots") {
        slots::measure(&mut report).await?;
    }
    if has("doors") {
        doors::measure(&mut report, dir.path()).await?;
    }
    if has("http") {
        http::measure(&mut report, dir.path()).await?;
    }
    if has("stores") {
        stores::measure(&mut report).await?;
    }
    report.write()
}

/// A start with many functions, and a list of them.
async fn many(report: &mut Report) -> Result<()> {
    const FUNCTIONS: usize = 1000;
    let dir = tempfile::tempdir()?;
    many::fill(&dir.path().join("data"), FUNCTIONS).await?;
    let started = Instant::now();
    let service = Service::start(dir.path(), &[]).await?;
    let start = started.elapsed();
    let mut times = Vec::new();
    for _ in 0..200 {
        times.push(service.list(FUNCTIONS).await?);
    }
    let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
    report.note(format!(
        "with {FUNCTIONS} functions: {start:.0?} from the start of the process until it is healthy, GET /api/functions \
         p50 {p50:.1?}, p99 {p99:.1?}"
    ));
    service.stop()
}

/// Cold starts, against `docker run`, and against the program that runs by hand on the host.
async fn cold(report: &mut Report, dir: &std::path::Path, language: &str) -> Result<()> {
    let service = Service::start(dir, &[("INSTANCE_IDLE_TIMEOUT", "50ms")]).await?;
    let (function, _) = service.submit(language).await?;
    let by_hand = ByHand::new(language, &function, dir)?;
    let (mut host, mut docker, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        for _ in 0..5 {
            host.push(by_hand.on_the_host()?);
        }
        docker.push(by_hand.docker_run()?);
        function.wait_for_containers(0).await?;
        ours.push(service.execute(&function).await?);
    }
    report.add(language, "host", "by hand on the host, p50", median(&mut host));
    report.add(language, "docker", "docker run by hand, p50", median(&mut docker));
    report.add(language, "cold", "execute, cold, p50", median(&mut ours));
    service.delete(&function).await?;
    service.stop()
}

async fn warm(report: &mut Report, dir: &std::path::Path, language: &str, soak: Option<usize>) -> Result<()> {
    let service = Service::start(dir, &[]).await?;
    let (function, to_first_answer) = service.submit(language).await?;
    report.add(language, "submit", "submit to first answer", to_first_answer);
    for _ in 0..100 {
        service.execute(&function).await?;
    }
    let mut times = Vec::with_capacity(WARM_REQUESTS);
    for _ in 0..WARM_REQUESTS {
        times.push(service.execute(&function).await?);
    }
    report.add(language, "p50", "execute, warm, p50", percentile(&mut times, 50));
    report.add(language, "p99", "execute, warm, p99", percentile(&mut times, 99));
    let mut rested = Vec::new();
    for _ in 0..ROUNDS {
        tokio::time::sleep(IDLE).await;
        rested.push(service.execute(&function).await?);
    }
    report.add(language, "rested", "execute after 500 ms of idling, p50", median(&mut rested));
    let alone = service.containers(&function)?;
    for clients in CLIENTS {
        let (rate, containers) = load(&service, &function, clients).await?;
        report.add_rate(language, clients, rate, containers);
    }
    let containers = service.containers(&function)?;
    let (client, container) = service.memory_per_instance(&function)?;
    report.note(format!(
        "{language}: {alone} container for one client, {containers} after the load; of each idle one {client:.1} MB \
         private in the \
         docker client and {container:.1} MB in the container; RSS of the service {:.1} MB",
        service.rss()?
    ));
    report.note(format!("{language}: {}", fairness(&service, &function, language).await?));
    if let Some(count) = soak {
        report.note(format!("{language}: {}", soaked(&service, &function, count).await?));
    }
    service.delete(&function).await?;
    service.stop()
}

/// The number of executions a second with this many clients. Each client sends its next request after an answer.
async fn load(service: &Service, function: &Function, clients: usize) -> Result<(f64, usize)> {
    // The pool grows to the size for the load before the clock runs.
    run_clients(service, function, clients, Duration::from_secs(4)).await?;
    let started = Instant::now();
    let done = run_clients(service, function, clients, LOAD).await?;
    let rate = done as f64 / started.elapsed().as_secs_f64();
    let containers = service.containers(function)?;
    ensure!(containers <= service::CONTAINER_LIMIT, "{containers} containers are more than DOCKER_CONTAINER_LIMIT");
    Ok((rate, containers))
}

async fn run_clients(service: &Service, function: &Function, clients: usize, time: Duration) -> Result<usize> {
    let end = Instant::now() + time;
    let client = async || {
        let mut done = 0;
        while Instant::now() < end {
            service.execute(function).await?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    let mut done = 0;
    for result in futures_util::future::join_all((0..clients).map(|_| client())).await {
        done += result?;
    }
    Ok(done)
}

/// The latency of another function's only client while the first function has 32 clients.
async fn fairness(service: &Service, loaded: &Function, language: &str) -> Result<String> {
    let (other, _) = service.submit(language).await?;
    let end = Instant::now() + LOAD;
    let alone = async {
        let mut times = Vec::new();
        while Instant::now() < end {
            times.push(service.execute(&other).await?);
        }
        anyhow::Ok(times)
    };
    let (load, times) = futures_util::join!(run_clients(service, loaded, 32, LOAD), alone);
    let (load, mut times) = (load?, times?);
    let (count, p50, p99) = (times.len(), percentile(&mut times, 50), percentile(&mut times, 99));
    let (seconds, longest) = (LOAD.as_secs(), percentile(&mut times, 100));
    service.delete(&other).await?;
    Ok(format!(
        "while 32 clients had {load} executions of one function in {seconds} s, one client of another had {count}: p50 \
         {p50:.1?}, \
         p99 {p99:.1?}, longest {longest:.1?}"
    ))
}

/// The footprint before and after many invocations in a row.
async fn soaked(service: &Service, function: &Function, count: usize) -> Result<String> {
    let before = service.footprint(function)?;
    for _ in 0..count {
        service.execute(function).await?;
    }
    let after = service.footprint(function)?;
    Ok(format!("{count} invocations in a row, before: {before}; after: {after}"))
}

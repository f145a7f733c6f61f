//! Functions that are called now and then, which `docker run` by hand starts as seldom: with slots and without.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time;

use crate::by_hand::ByHand;
use crate::many;
use crate::report::{Report, median, percentile};
use crate::service::{CONTAINER_LIMIT, Function, Service};

const TURNS: usize = 10;
const SECOND: Duration = Duration::from_secs(1);
/// The time in which slots start that calls have missed. Warm calls at that time would share the processors with them.
const QUIET: Duration = Duration::from_secs(3);
const BLOCKS: usize = 3;
const WARM_REQUESTS: usize = 100;
const DEPLOYED: usize = 1000;
const CALLED: usize = 200;
const CALLS_A_SECOND: u32 = 4;
/// The submits under way at one time.
const SUBMITS: usize = 3;

/// What a list of calls took, and how their instances started.
#[derive(Default)]
struct Calls {
    times: Vec<Duration>,
    starts: BTreeMap<String, usize>,
}

/// Measures one more function than there may be containers, in turn, and many functions that are called once.
pub(crate) async fn measure(report: &mut Report) -> Result<()> {
    let dir = tempfile::tempdir()?;
    for language in ["python", "go"] {
        in_turn(report, &dir.path().join(language), language).await?;
    }
    once_each(report, &dir.path().join("many")).await
}

async fn in_turn(report: &mut Report, dir: &Path, language: &str) -> Result<()> {
    let on = [("SERVER_PORT", "8087"), ("INSTANCE_UIDS", "71000-71999")];
    let off = [("SERVER_PORT", "8088"), ("INSTANCE_UIDS", "72000-72999"), ("SLOTS_PYTHON", "0"), ("SLOTS_GO", "0")];
    let (on, on_functions) = start(&dir.join("on"), &on, language).await?;
    let by_hand = ByHand::new(language, &on_functions[0], dir)?;
    let (mut calls, mut control) = (Calls::default(), Vec::new());
    for turn in 0..TURNS {
        for function in &on_functions {
            let next = time::Instant::now() + SECOND;
            calls.add(&on, function).await?;
            if turn > 0 && control.len() < TURNS * turn {
                control.push(by_hand.docker_run()?);
            }
            time::sleep_until(next).await;
        }
    }
    let docker = median(&mut control);
    report.note(format!(
        "{language}: {} functions in turn, one call a second, {CONTAINER_LIMIT} containers at most: {} (docker run by \
         hand: p50 {docker:.1?})",
        on_functions.len(),
        calls.of(docker),
    ));
    let (off, off_functions) = start(&dir.join("off"), &off, language).await?;
    let nodes = [(&on, &on_functions), (&off, &off_functions)];
    let (mut misses, mut warm): ([Calls; 2], [Vec<Duration>; 2]) = Default::default();
    for block in 0..2 * BLOCKS {
        // Each service is the first one in every second block.
        for index in [block % 2, 1 - block % 2] {
            let (service, functions) = nodes[index];
            for function in functions {
                misses[index].add(service, function).await?;
            }
            time::sleep(QUIET).await;
            for _ in 0..WARM_REQUESTS {
                warm[index].push(service.execute(&functions[0]).await?);
            }
        }
    }
    let total = misses.each_ref().map(|calls| calls.times.iter().sum::<Duration>().as_secs_f64());
    let p50 = warm.each_mut().map(|times| median(times).as_secs_f64() * 1e3);
    report.note(format!(
        "{language}: the same as fast as one client can: {}; without slots {}; the time of all calls is {:.3} of that \
         without slots; warm p50 {:.2} ms and {:.2} ms without slots: {:.3}",
        misses[0].of(docker),
        misses[1].of(docker),
        total[0] / total[1],
        p50[0],
        p50[1],
        p50[0] / p50[1],
    ));
    for (service, functions) in [(on, on_functions), (off, off_functions)] {
        for function in &functions {
            service.delete(function).await?;
        }
        service.stop()?;
    }
    Ok(())
}

async fn start(dir: &Path, settings: &[(&str, &str)], language: &str) -> Result<(Service, Vec<Function>)> {
    std::fs::create_dir_all(dir)?;
    let service = Service::start(dir, settings).await?;
    let mut functions = Vec::new();
    for _ in 0..=CONTAINER_LIMIT {
        functions.push(service.submit(language).await?.0);
    }
    wait_for_trees(dir, functions.len(), settings).await?;
    Ok((service, functions))
}

/// Waits until the files of all functions are on disk.
async fn wait_for_trees(dir: &Path, count: usize, settings: &[(&str, &str)]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !settings.contains(&("SLOTS_GO", "0")) && trees(dir)?.0 < count {
        ensure!(Instant::now() < deadline, "{} of {count} functions have their files on disk", trees(dir)?.0);
        time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The number of functions whose files are on disk, and the bytes of these.
fn trees(dir: &Path) -> Result<(usize, u64)> {
    let folder = dir.join("data/trees");
    let complete = std::fs::read_dir(&folder)?.flatten().filter(|entry| !is_hidden(&entry.path())).count();
    let said = std::process::Command::new("du").args(["--summarize", "--bytes"]).arg(&folder).output()?;
    let text = String::from_utf8(said.stdout)?;
    Ok((complete, text.split_whitespace().next().context("a size")?.parse()?))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

/// Most functions are there in the store only, as their calls are not measured.
async fn once_each(report: &mut Report, dir: &Path) -> Result<()> {
    many::fill(&dir.join("data"), DEPLOYED - CALLED).await?;
    let service = Service::start(dir, &[]).await?;
    let submit = |number: usize| service.submit(["python", "go"][number % 2]);
    let submits = stream::iter(0..CALLED).map(submit).buffered(SUBMITS);
    let functions: Vec<Function> = submits.map_ok(|(function, _)| function).try_collect().await?;
    wait_for_trees(dir, CALLED, &[]).await?;
    let by_hand = [ByHand::new("python", &functions[0], dir)?, ByHand::new("go", &functions[1], dir)?];
    let mut control = Vec::new();
    for _ in 0..TURNS {
        for program in &by_hand {
            control.push(program.docker_run()?);
        }
    }
    let docker = median(&mut control);
    // The functions of the last submits have instances. The first calls are of others.
    let (mut calls, mut interval) = (Calls::default(), time::interval(SECOND / CALLS_A_SECOND));
    for function in &functions {
        interval.tick().await;
        calls.add(&service, function).await?;
    }
    let within = calls.times.iter().filter(|time| **time <= docker / 10).count();
    report.note(format!(
        "{CALLED} of {DEPLOYED} functions called once each, {CALLS_A_SECOND} a second: {within} within 1/10 of docker \
         run ({docker:.1?}); {}; RSS of the service {:.1} MB, {:.1} MB of files on disk",
        calls.of(docker),
        service.rss()?,
        trees(dir)?.1 as f64 / 1e6,
    ));
    for function in &functions {
        service.delete(function).await?;
    }
    service.stop()
}

impl Calls {
    async fn add(&mut self, service: &Service, function: &Function) -> Result<()> {
        let (time, start) = service.execute_from(function).await?;
        self.times.push(time);
        *self.starts.entry(start).or_default() += 1;
        Ok(())
    }

    /// The times as parts of that of `docker run`, and the starts.
    fn of(&self, docker: Duration) -> String {
        let mut times = self.times.clone();
        let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(&mut times, percent));
        let part = |time: Duration| docker.as_secs_f64() / time.as_secs_f64();
        format!(
            "p50 {p50:.1?} (1/{:.1} of docker run), p95 {p95:.1?}, p99 {p99:.1?} (1/{:.1}), starts {:?}",
            part(p50),
            part(p99),
            self.starts
        )
    }
}

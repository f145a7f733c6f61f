//! Metrics for Prometheus. Counters and histograms are kept at each event; gauges are read at a scrape.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>. The labels are few: outcomes, states, routes, docker's
//! commands, and functions, of which only the first 500 have a series of their own.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use parking_lot::Mutex;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::domain::{FunctionId, Outcome};

/// The number of functions with a series of their own until the next start. All other functions share a series.
const MAX_FUNCTIONS: usize = 500;
/// The time between two foldings of samples into their buckets.
const UPKEEP_PERIOD: Duration = Duration::from_millis(500);
/// The function label of the shared series.
const OTHER: &str = "other";

const INVOCATIONS: &str = "youtube_serverless_invocations_total";
const DURATION: &str = "youtube_serverless_invocation_duration_seconds";
const QUEUE_WAIT: &str = "youtube_serverless_queue_wait_seconds";
const COLD_STARTS: &str = "youtube_serverless_cold_starts_total";
const SLOT_USES: &str = "youtube_serverless_slot_uses_total";
const SLOT_TAKE: &str = "youtube_serverless_slot_take_duration_seconds";
const SLOT_REFILL: &str = "youtube_serverless_slot_refill_duration_seconds";
const INSTANCES: &str = "youtube_serverless_instances";
const QUEUE_DEPTH: &str = "youtube_serverless_queue_depth";
const FUNCTIONS: &str = "youtube_serverless_functions";
const SCHEDULE_SLOTS: &str = "youtube_serverless_schedule_slots_total";
const SCHEDULE_DELAY: &str = "youtube_serverless_schedule_delay_seconds";
const BUILDS: &str = "youtube_serverless_builds_total";
const BUILD_DURATION: &str = "youtube_serverless_build_duration_seconds";
const DOCKER_DURATION: &str = "youtube_serverless_docker_command_duration_seconds";
const DOCKER_ERRORS: &str = "youtube_serverless_docker_command_errors_total";
const REQUESTS: &str = "youtube_serverless_http_requests_total";
const TOKEN_REFUSALS: &str = "youtube_serverless_token_refusals_total";
const EGRESS_CONNECTIONS: &str = "youtube_serverless_egress_connections_total";
const EGRESS_BYTES: &str = "youtube_serverless_egress_bytes_total";
const EGRESS_OPEN: &str = "youtube_serverless_egress_open_connections";
const NOTIFICATION_TRIES: &str = "youtube_serverless_notification_tries_total";

/// Buckets from half a millisecond, the time of a fresh process, to the time limit.
const EXECUTION_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 120.0];
/// Buckets from a look at an image to a build from nothing.
const DOCKER_BUCKETS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

static RECORDER: OnceLock<Option<(PrometheusHandle, Collector)>> = OnceLock::new();
/// Held from the setting of the gauges to the end of the text, so that the text has the gauges of one caller.
static RENDERING: Mutex<()> = Mutex::new(());
static SEEN: Mutex<Option<HashSet<FunctionId>>> = Mutex::new(None);

/// The gauges, read at a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Gauges {
    /// The number of instances by phase.
    pub instances: [(&'static str, usize); 5],
    /// The number of synchronous executions that wait for an instance.
    pub waiting: usize,
    /// The number of asynchronous executions that wait for their turn.
    pub deferred: usize,
    /// The number of functions.
    pub functions: usize,
}

/// A connection at a door of a function that is being served. The gauge counts the connection until the drop.
#[derive(Debug)]
pub struct OpenConnection(());

impl Drop for OpenConnection {
    fn drop(&mut self) {
        gauge!(EGRESS_OPEN).decrement(1.0);
    }
}

/// Begins to record, once in a process. Later calls do nothing.
pub fn start() {
    RECORDER.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), &EXECUTION_BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full(QUEUE_WAIT.to_owned()), &EXECUTION_BUCKETS)
            })
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &DOCKER_BUCKETS)
            });
        let handle = match builder.map(PrometheusBuilder::install_recorder) {
            Ok(Ok(handle)) => handle,
            Ok(Err(error)) | Err(error) => {
                tracing::error!(%error, "metrics are not recorded");
                return None;
            }
        };
        let process = Collector::default();
        process.describe();
        describe();
        Some((handle, process))
    });
}

/// Folds samples into their buckets again and again until the cancellation of `stop`. A sample that is not folded takes
/// memory.
pub async fn run(stop: CancellationToken) {
    loop {
        tokio::select! {
            () = time::sleep(UPKEEP_PERIOD) => {}
            () = stop.cancelled() => return,
        }
        if let Some(Some((handle, _))) = RECORDER.get() {
            handle.run_upkeep();
        }
    }
}

/// All metrics in Prometheus' text format.
pub fn render(gauges: Gauges) -> String {
    let _one = RENDERING.lock();
    for (state, count) in gauges.instances {
        gauge!(INSTANCES, "state" => state).set(count as f64);
    }
    gauge!(QUEUE_DEPTH, "queue" => "synchronous").set(gauges.waiting as f64);
    gauge!(QUEUE_DEPTH, "queue" => "asynchronous").set(gauges.deferred as f64);
    gauge!(FUNCTIONS).set(gauges.functions as f64);
    match RECORDER.get() {
        Some(Some((handle, process))) => {
            process.collect();
            handle.run_upkeep();
            handle.render()
        }
        Some(None) | None => String::new(),
    }
}

/// Notes an invocation.
pub fn invocation(function: FunctionId, outcome: Outcome, duration: Duration, queued: Duration, is_cold: bool) {
    counter!(INVOCATIONS, "function" => series(function), "outcome" => outcome.name()).increment(1);
    histogram!(DURATION, "outcome" => outcome.name()).record(duration);
    histogram!(QUEUE_WAIT).record(queued);
    if is_cold {
        counter!(COLD_STARTS).increment(1);
    }
}

/// Notes that a function that takes slots wanted one, and whether one was ready.
pub fn slot_use(language: &'static str, is_hit: bool) {
    counter!(SLOT_USES, "language" => language, "result" => if is_hit { "hit" } else { "miss" }).increment(1);
}

/// Notes how long a slot took to become a function's instance.
pub fn slot_take(language: &'static str, duration: Duration) {
    histogram!(SLOT_TAKE, "language" => language).record(duration);
}

/// Notes how long the start of a slot took.
pub fn slot_refill(language: &'static str, duration: Duration) {
    histogram!(SLOT_REFILL, "language" => language).record(duration);
}

/// Notes what became of a slot of a schedule: `run`, `made_up` (a run for slots that were missed), `overlap` or
/// `missed`.
pub fn schedule_slot(result: &'static str) {
    counter!(SCHEDULE_SLOTS, "result" => result).increment(1);
}

/// Notes how long after its slot a run of a schedule was accepted.
pub fn schedule_delay(delay: Duration) {
    histogram!(SCHEDULE_DELAY).record(delay);
}

/// Notes a build with its result: `built`, `failed`, `timeout`, `cancelled` or `error`.
pub fn build(result: &'static str, duration: Duration) {
    counter!(BUILDS, "result" => result).increment(1);
    histogram!(BUILD_DURATION).record(duration);
}

/// Notes a docker command by its first word.
pub fn docker_command(command: &'static str, duration: Duration, is_error: bool) {
    histogram!(DOCKER_DURATION, "command" => command).record(duration);
    if is_error {
        counter!(DOCKER_ERRORS, "command" => command).increment(1);
    }
}

/// Notes an answer.
pub fn request(method: &str, route: &str, status: u16) {
    let method = match method {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => OTHER,
    };
    counter!(REQUESTS, "method" => method, "route" => route.to_owned(), "status" => status.to_string()).increment(1);
}

/// Notes a request that its token does not let in: the token is `unknown` or missing, `expired` or not known on a node
/// that is `cut_off`, or lacks the `scope` or the `functions` of the request.
pub fn token_refusal(reason: &'static str) {
    counter!(TOKEN_REFUSALS, "reason" => reason).increment(1);
}

/// Counts a connection at a door of a function as open, until the value is dropped.
pub fn egress_open() -> OpenConnection {
    gauge!(EGRESS_OPEN).increment(1.0);
    OpenConnection(())
}

/// Notes what came of a connection at a door: `ok`, `refused`, `failed` or `timeout`.
pub fn egress_connection(result: &'static str) {
    counter!(EGRESS_CONNECTIONS, "result" => result).increment(1);
}

/// Notes the bytes of a connection at a door that has ended.
pub fn egress_bytes(sent: u64, received: u64) {
    counter!(EGRESS_BYTES, "direction" => "sent").increment(sent);
    counter!(EGRESS_BYTES, "direction" => "received").increment(received);
}

/// Notes what a try of a notification came to: `delivered`, `failed`, or `given_up` where no further try comes.
pub fn notification_try(result: &'static str) {
    counter!(NOTIFICATION_TRIES, "result" => result).increment(1);
}

fn series(function: FunctionId) -> String {
    let mut seen = SEEN.lock();
    let seen = seen.get_or_insert_default();
    if seen.contains(&function) || seen.len() < MAX_FUNCTIONS {
        seen.insert(function);
        return function.to_string();
    }
    OTHER.to_owned()
}

fn describe() {
    describe_counter!(INVOCATIONS, "Invocations that have ended, by function and outcome");
    describe_histogram!(DURATION, Unit::Seconds, "How long invocations ran");
    describe_histogram!(QUEUE_WAIT, Unit::Seconds, "How long executions waited for an instance");
    describe_counter!(COLD_STARTS, "Executions for which an instance was started");
    describe_counter!(SLOT_USES, "Functions that wanted a slot, by language, and whether one was ready");
    describe_histogram!(SLOT_TAKE, Unit::Seconds, "How long slots took to become functions' instances");
    describe_histogram!(SLOT_REFILL, Unit::Seconds, "How long starts of slots took");
    describe_gauge!(INSTANCES, "Instances, by what they are at");
    describe_gauge!(QUEUE_DEPTH, "Executions that wait");
    describe_gauge!(FUNCTIONS, "Functions there are");
    describe_counter!(SCHEDULE_SLOTS, "Slots of schedules, by what became of them");
    describe_histogram!(SCHEDULE_DELAY, Unit::Seconds, "How long after their slots runs of schedules were accepted");
    describe_counter!(BUILDS, "Builds of functions' images, by what they came to");
    describe_histogram!(BUILD_DURATION, Unit::Seconds, "How long builds took");
    describe_histogram!(DOCKER_DURATION, Unit::Seconds, "How long docker commands took");
    describe_counter!(DOCKER_ERRORS, "Docker commands that failed");
    describe_counter!(REQUESTS, "HTTP requests, by method, route and status");
    describe_counter!(TOKEN_REFUSALS, "Requests that their tokens did not let in, by the reason");
    describe_counter!(EGRESS_CONNECTIONS, "Connections at doors of functions, by what they came to");
    describe_counter!(EGRESS_BYTES, "Bytes of ended connections at doors, by direction as functions see it");
    describe_gauge!(EGRESS_OPEN, "Connections at doors of functions that are served");
    describe_counter!(NOTIFICATION_TRIES, "Tries of notifications, by what they came to");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_rendered_and_functions_are_bounded() {
        start();
        let function = FunctionId::random();
        invocation(function, Outcome::Ok, Duration::from_millis(2), Duration::from_micros(10), true);
        for _ in 0..MAX_FUNCTIONS + 10 {
            invocation(FunctionId::random(), Outcome::Exit, Duration::ZERO, Duration::ZERO, false);
        }
        docker_command("rm", Duration::from_millis(30), true);
        request("BREW", "/coffee", 405);
        token_refusal("scope");
        // No other test of this process counts this.
        schedule_slot("of this test");
        schedule_delay(Duration::from_millis(20));
        egress_connection("refused");
        egress_bytes(3, 4);
        drop(egress_open());
        notification_try("given_up");
        let gauges = Gauges {
            instances: [("starting", 0), ("idle", 2), ("busy", 1), ("ending", 0), ("slot", 0)],
            waiting: 3,
            deferred: 4,
            functions: 5,
        };
        let text = render(gauges);
        for line in [
            &format!("youtube_serverless_invocations_total{{function=\"{function}\",outcome=\"ok\"}} 1"),
            "youtube_serverless_invocations_total{function=\"other\",outcome=\"exit\"} 11",
            "youtube_serverless_invocation_duration_seconds_bucket{outcome=\"ok\",le=\"0.002\"} 1",
            "youtube_serverless_instances{state=\"idle\"} 2",
            "youtube_serverless_queue_depth{queue=\"asynchronous\"} 4",
            "youtube_serverless_docker_command_errors_total{command=\"rm\"} 1",
            "youtube_serverless_http_requests_total{method=\"other\",route=\"/coffee\",status=\"405\"} 1",
            "youtube_serverless_token_refusals_total{reason=\"scope\"} 1",
            "# TYPE youtube_serverless_queue_wait_seconds histogram",
            "youtube_serverless_schedule_slots_total{result=\"of this test\"} 1",
            "# TYPE youtube_serverless_schedule_delay_seconds histogram",
            "# TYPE youtube_serverless_egress_connections_total counter",
            "# TYPE youtube_serverless_egress_bytes_total counter",
            "# TYPE youtube_serverless_egress_open_connections gauge",
            "youtube_serverless_notification_tries_total{result=\"given_up\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}

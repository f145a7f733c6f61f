//! The use case "execute a function": registry → instance → invocation → outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;
use tracing::Instrument;

use crate::config;
use crate::docker::{Cause, Failure};
use crate::domain::{FunctionId, InvocationId, InvocationRecord, Outcome, UnknownFunction};
use crate::functions::images::{ImageError, Images};
use crate::functions::{Function, Registry};
use crate::invocations::history::History;
use crate::invocations::live::{Running, RunningInvocations};
use crate::resources::clock;
use crate::sandbox::instance::{End, StartError};
use crate::sandbox::output::Output;
use crate::sandbox::pool::{AcquireError, Lease, Pool, Start, Wait};
use crate::sandbox::protocol::{Nonce, Request};
use crate::telemetry::metrics;

use super::input::{Input, InputError};
use super::outcome;

/// How often an image is made again for one execution, when somebody removes it again and again.
const IMAGE_TRIES: u32 = 2;

/// Executes functions.
#[derive(Debug)]
pub struct Invoker {
    registry: Arc<Registry>,
    images: Arc<Images>,
    pool: Pool,
    history: Arc<History>,
    live: Arc<RunningInvocations>,
    limits: config::Pool,
    /// DOCKER_MEMORY_LIMIT.
    memory_limit: u64,
}

/// What an execution came to. That the function failed is a result, too.
#[derive(Debug)]
pub struct Invocation {
    /// Its id.
    pub id: InvocationId,
    /// Unix milliseconds of its start.
    pub executed_at: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to stdout.
    pub stdout: Bytes,
    /// What it wrote to stderr.
    pub stderr: Bytes,
    /// One of the two was longer than what was kept.
    pub truncated: bool,
    /// How it came by its instance.
    pub start: Start,
    /// The time it waited for an instance.
    pub queued: Duration,
    /// The time it ran.
    pub duration: Duration,
    /// The processor time it took; None when nobody lived to tell.
    pub cpu: Option<Duration>,
    /// Its largest resident set in bytes; None when nobody lived to tell.
    pub peak_memory: Option<u64>,
}

/// Why there was no execution.
#[derive(Clone, Debug, Error)]
pub enum InvokeError {
    /// No such function.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// Its input can't be the function's.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Its image was gone, and could not be made again.
    #[error(transparent)]
    Image(#[from] Arc<ImageError>),
    /// No instance for it.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
}

impl From<&InvokeError> for Failure {
    fn from(error: &InvokeError) -> Self {
        match error {
            InvokeError::Unknown(_) => Self::Abandoned,
            InvokeError::Input(_) => Self::Permanent,
            InvokeError::Image(error) if error.is_for_want_of_connection() => Self::Transient(Cause::Service),
            InvokeError::Image(error) => match Self::from(&**error) {
                // The zip was good once: it is the platform's limits that have changed.
                Self::Permanent => Self::Suspect,
                failure => failure,
            },
            InvokeError::Acquire(error) => error.into(),
        }
    }
}

/// An instance that waits for its invocation.
#[must_use]
#[derive(Debug)]
pub struct Ready {
    function: Arc<Function>,
    lease: Lease,
    queued: Duration,
}

impl Ready {
    /// Refuses an input that the function does not take.
    pub fn check(&self, input: &Input) -> Result<(), InputError> {
        input.check(&self.function.settings)
    }

    /// Gives the instance back unused.
    pub fn release(self) {
        self.lease.release();
    }

    /// The record of an invocation that begins on it.
    pub fn begin(&self, record: InvocationRecord) -> InvocationRecord {
        InvocationRecord {
            executed_at: Some(clock::unix_millis()),
            version: Some(self.function.version.id.number),
            start: Some(self.lease.start().name().to_owned()),
            queued: Some(self.queued),
            ..record
        }
    }
}

impl Invocation {
    /// Completes its record; `cut` is what is kept of an output.
    pub fn complete<'a>(&'a self, record: &mut InvocationRecord, cut: impl Fn(&'a [u8]) -> &'a [u8]) {
        record.outcome = self.outcome.name().to_owned();
        record.exit_code = self.outcome.exit_code();
        record.error = self.outcome.error();
        record.truncated = self.truncated;
        record.duration = Some(self.duration);
        record.cpu = self.cpu;
        record.peak_memory = self.peak_memory;
        record.stdout = cut(&self.stdout).to_vec();
        record.stderr = cut(&self.stderr).to_vec();
    }
}

impl Invoker {
    /// Executes functions of `registry` on instances from `pool`.
    pub fn new(
        registry: Arc<Registry>,
        images: Arc<Images>,
        pool: Pool,
        (history, live): (Arc<History>, Arc<RunningInvocations>),
        limits: config::Pool,
        memory_limit: u64,
    ) -> Self {
        Self { registry, images, pool, history, live, limits, memory_limit }
    }

    /// Runs a function once, and notes what it came to. Dropped, it ends the function, wherever that is.
    pub async fn invoke(&self, id: FunctionId, input: Input) -> Result<Invocation, InvokeError> {
        let created_at = clock::unix_millis();
        let ready = self.prepare(id, Some(&input), false).await?;
        // Only now: who waits for an instance holds no copy of the input.
        let record = InvocationRecord::queued(id, created_at, self.history.keep_input(input.json()));
        let running = self.begin(record.id);
        let mut note = self.history.begin(ready.begin(record));
        let invocation = self.run(ready, note.record().id, input, running.output()).await;
        invocation.complete(note.record(), |output| self.history.cut(output));
        drop(note);
        drop(running);
        self.history.apply_backpressure().await;
        Ok(invocation)
    }

    /// Gets an instance for a function as it then stands. In the background it comes after all that clients wait for.
    /// Without its input, that is to be checked afterwards.
    pub async fn prepare(
        &self,
        id: FunctionId,
        input: Option<&Input>,
        is_background: bool,
    ) -> Result<Ready, InvokeError> {
        let arrived = Instant::now();
        let mut wait = Wait { since: arrived, is_admitted: is_background, patience: None, is_background };
        loop {
            let function = self.registry.get(id).ok_or(UnknownFunction(id))?;
            input.map_or(Ok(()), |input| input.check(&function.settings))?;
            let span = tracing::debug_span!("queue", function.id = %id);
            match self.lease(&function, wait).instrument(span).await {
                // What has come after it is in the registry before it is retired, and so is its absence. It keeps its
                // place in line.
                Err(InvokeError::Acquire(AcquireError::Retired)) => wait.is_admitted = true,
                Err(InvokeError::Image(_)) if function.is_retired() => {}
                Err(error) => return Err(error),
                // Replaced in the moment in which it was granted; given back, it ends.
                Ok(lease) if function.is_retired() => {
                    lease.release();
                    wait.is_admitted = true;
                }
                Ok(lease) => return Ok(Ready { function, lease, queued: arrived.elapsed() }),
            }
        }
    }

    /// Sees to it that an instance of what is to be a function waits for work; waits for that as long as `patience`, or
    /// QUEUE_TIMEOUT.
    pub async fn warm(&self, next: &Arc<Function>, patience: Option<Duration>) -> Result<(), InvokeError> {
        let wait = Wait { since: Instant::now(), is_admitted: true, patience, is_background: false };
        self.lease(next, wait).await.map(Lease::release)
    }

    /// Begins to show an invocation to who looks on. To be dropped when what it came to is written down.
    pub fn begin(&self, id: InvocationId) -> Running<'_> {
        self.live.begin(id, self.limits.max_output_size)
    }

    /// Tells those who look on that an invocation has ended without having run, or all of them that some may be gone.
    pub fn tell(&self, id: Option<InvocationId>) {
        match id {
            Some(id) => self.live.tell(id),
            None => self.live.tell_all(),
        }
    }

    /// What an invocation has written so far, if it runs.
    pub fn snapshot(&self, id: InvocationId) -> Option<(Vec<u8>, Vec<u8>)> {
        self.live.snapshot(id)
    }

    /// Runs a function on the instance that it got. Dropped, it ends both.
    pub async fn run(&self, ready: Ready, id: InvocationId, input: Input, output: &Output) -> Invocation {
        let Ready { function, lease, queued } = ready;
        // Its settings may have changed meanwhile, with the same instances.
        let function =
            self.registry.get(function.id).filter(|now| now.revision == function.revision).unwrap_or(function);
        let start = lease.start();
        let executed_at = clock::unix_millis();
        self.registry.executed(&function, executed_at / 1000);
        let (environment, stdin) = input.into_parts();
        let mut environment = function.settings.complete(environment);
        environment.extend([
            ("FUNCTION_ID".to_owned(), function.id.to_string()),
            ("FUNCTION_NAME".to_owned(), function.name.to_string()),
            ("INVOCATION_ID".to_owned(), id.to_string()),
        ]);
        let output_cap = self.limits.max_output_size;
        let request = Request { nonce: Nonce::random(), output_cap, environment: &environment, stdin: &stdin };
        let started = Instant::now();
        let limit = function.settings.timeout.unwrap_or(self.limits.run_timeout);
        let span = tracing::debug_span!("run", function.id = %function.id, version = function.version.id.number,
            invocation.id = %id);
        let end = lease.invoke(&request, limit, output).instrument(span).await;
        let (stdout, stderr) = output.end();
        let (mut duration, mut cpu, mut peak_memory) = (started.elapsed(), None, None);
        let full = |stream: &[u8]| stream.len() >= output_cap as usize;
        let mut truncated = full(&stdout) || full(&stderr);
        if let End::Exited(exit) = end {
            (duration, cpu, peak_memory) = (exit.duration, Some(exit.cpu), Some(exit.peak_memory));
            truncated = exit.truncated;
        }
        let outcome = outcome::of_end(&end, function.settings.memory.unwrap_or(self.memory_limit));
        metrics::invocation(function.id, outcome.name(), duration, queued, start == Start::Cold);
        Invocation { id, executed_at, outcome, stdout, stderr, truncated, start, queued, duration, cpu, peak_memory }
    }

    /// An instance, for which the image is made again first when it is gone.
    async fn lease(&self, function: &Arc<Function>, wait: Wait) -> Result<Lease, InvokeError> {
        let mut tries = 0..IMAGE_TRIES;
        loop {
            // A warm instance needs no image.
            if !self.pool.has_idle(function.revision) {
                self.images.ensure(&function.version, &function.name).await?;
            }
            match self.pool.acquire(function, wait).await {
                Err(AcquireError::Start(error)) if tries.next().is_some() => match &*error {
                    // Noted once, by the first of those who waited for this start.
                    StartError::NoImage(image) => drop(function.version.mark_missing(image)),
                    StartError::Docker(_) | StartError::Timeout | StartError::Protocol(_) => {
                        return Err(AcquireError::Start(error).into());
                    }
                },
                other => return Ok(other?),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::BuildError;

    #[test]
    fn an_image_is_made_again_once_its_packages_can_be_downloaded() {
        let failed = |log: &str| {
            let error = ImageError::from(BuildError::Failed { log: log.to_owned() });
            Failure::from(&InvokeError::Image(Arc::new(error)))
        };
        let down = "error: Failed to fetch: `https://pypi.org/simple/six/`\n  Caused by: tcp connect error: Connection \
                    refused";
        assert_eq!(failed(down), Failure::Transient(Cause::Service));
        let down = "go: example.org/m@v1.0.0: Get \"https://proxy\": dial tcp: lookup proxy: no such host";
        assert_eq!(failed(down), Failure::Transient(Cause::Service));
        assert_eq!(failed("No solution found when resolving dependencies"), Failure::Suspect);
    }
}

//! The use case "execute a function": registry → instance → invocation → outcome.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::time::Instant;
use tracing::Instrument;

use crate::config;
use crate::docker::{Cause, Failure};
use crate::domain::{FunctionId, InvocationId, InvocationRecord, UnknownFunction};
use crate::egress::Traffic;
use crate::functions::images::{ImageError, Images};
use crate::functions::{Absence, Function, Registry};
use crate::invocations::history::History;
use crate::invocations::live::{Running, RunningInvocations};
use crate::nodes::{CutOff, Membership};
use crate::resources::clock;
use crate::sandbox::instance::{End, StartError};
use crate::sandbox::output::Output;
use crate::sandbox::pool::{AcquireError, Lease, Pool, Start, Wait};
use crate::sandbox::protocol::{Nonce, Request};
use crate::telemetry::{metrics, minutes};

use super::input::{Input, InputError};
use super::verdict;

/// The number of rebuilds of an image for one execution, when an operator removes the image again and again.
const IMAGE_TRIES: u32 = 2;

/// Executes functions.
#[derive(Debug)]
pub struct Invoker {
    registry: Arc<Registry>,
    images: Arc<Images>,
    pool: Pool,
    history: Arc<History>,
    live: Arc<RunningInvocations>,
    nodes: Arc<Membership>,
    limits: config::Pool,
    /// DOCKER_MEMORY_LIMIT.
    memory_limit: u64,
}

/// The reason for no execution.
#[derive(Clone, Debug, Error)]
pub enum InvokeError {
    /// There is no such function.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// The function does not take the input.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The node must not execute functions.
    #[error(transparent)]
    CutOff(#[from] CutOff),
    /// The function's image is gone, and the rebuild failed.
    #[error(transparent)]
    Image(#[from] Arc<ImageError>),
    /// The pool has no instance for the invocation.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
}

impl From<&InvokeError> for Failure {
    fn from(error: &InvokeError) -> Self {
        match error {
            InvokeError::Unknown(_) => Self::Abandoned,
            InvokeError::Input(_) => Self::Permanent,
            InvokeError::CutOff(_) => Self::Transient(Cause::Store),
            InvokeError::Image(error) if error.is_for_want_of_connection() => Self::Transient(Cause::Service),
            InvokeError::Image(error) => match Self::from(&**error) {
                // The zip was good once: the operator's limits have changed.
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

    /// The record of an invocation that begins on this instance.
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

/// The parts that an invoker is made of.
pub(crate) struct InvokerParts {
    pub(crate) registry: Arc<Registry>,
    pub(crate) images: Arc<Images>,
    pub(crate) pool: Pool,
    pub(crate) history: Arc<History>,
    pub(crate) live: Arc<RunningInvocations>,
    pub(crate) nodes: Arc<Membership>,
    pub(crate) limits: config::Pool,
    /// DOCKER_MEMORY_LIMIT.
    pub(crate) memory_limit: u64,
}

impl Invoker {
    /// Executes functions of the registry on instances from the pool.
    pub(crate) fn new(parts: InvokerParts) -> Self {
        let InvokerParts { registry, images, pool, history, live, nodes, limits, memory_limit } = parts;
        Self { registry, images, pool, history, live, nodes, limits, memory_limit }
    }

    /// Runs a function once, and keeps the record. A drop ends the invocation at any point.
    pub async fn invoke(&self, id: FunctionId, input: Input) -> Result<InvocationRecord, InvokeError> {
        let created_at = clock::unix_millis();
        let ready = self.prepare(id, Some(&input), false).await?;
        // Only now: a request that waits for an instance holds no copy of the input.
        let record = InvocationRecord::queued(id, created_at, self.history.keep_input(input.json()));
        let running = self.begin(record.id, id);
        let mut note = self.history.begin(ready.begin(record));
        self.run(ready, note.record(), input, running.output()).await;
        let record = note.record().clone();
        drop(note);
        drop(running);
        self.history.apply_backpressure().await;
        Ok(record)
    }

    /// Runs a function for a request over HTTP, on an instance that waits. What the function writes to stdout flows
    /// through `output`, and neither that nor the input is kept. A drop ends the invocation at any point.
    pub async fn serve(
        &self,
        ready: Ready,
        record: InvocationRecord,
        input: Input,
        output: &Output,
    ) -> InvocationRecord {
        let mut note = self.history.begin(ready.begin(record));
        self.run(ready, note.record(), input, output).await;
        let record = note.record().clone();
        drop(note);
        output.close();
        self.history.apply_backpressure().await;
        record
    }

    /// An output for [`Invoker::serve`].
    pub fn flow(&self) -> Arc<Output> {
        Output::flow(self.limits.max_output_size as usize)
    }

    /// Fails on a node whose lease has run out. This comes before the look-up of a function: such a node may have an
    /// old one, or none.
    pub fn check_lease(&self) -> Result<(), InvokeError> {
        Ok(self.nodes.check()?)
    }

    /// Gets an instance for a function in its current state. Background invocations come after all that clients wait
    /// for. Without `input` the caller checks the input afterwards.
    pub async fn prepare(
        &self,
        id: FunctionId,
        input: Option<&Input>,
        is_background: bool,
    ) -> Result<Ready, InvokeError> {
        self.check_lease()?;
        let arrived = Instant::now();
        let mut wait =
            Wait { since: arrived, is_admitted: is_background, patience: None, is_background, is_warm_up: false };
        loop {
            let function = self.registry.get(id).ok_or(UnknownFunction(id))?;
            input.map_or(Ok(()), |input| input.check(&function.settings))?;
            let span = tracing::debug_span!("queue", function.id = %id);
            match self.lease(&function, wait).instrument(span).await {
                // The registry has the function's next state, or the deletion, before the retirement. The request keeps
                // its place in line.
                Err(InvokeError::Acquire(AcquireError::Retired)) => {
                    wait.is_admitted = true;
                    tokio::task::yield_now().await;
                }
                Err(InvokeError::Image(_)) if function.is_retired() => {}
                Err(error) => return Err(error),
                // The function changed at the moment of the grant. The instance ends when the lease is given back.
                Ok(lease) if function.is_retired() => {
                    lease.release();
                    wait.is_admitted = true;
                }
                Ok(lease) => return Ok(Ready { function, lease, queued: arrived.elapsed() }),
            }
        }
    }

    /// Starts an instance of a function's next state, and waits for the start for as long as `patience`, or
    /// QUEUE_TIMEOUT.
    pub async fn warm(&self, next: &Arc<Function>, patience: Option<Duration>) -> Result<(), InvokeError> {
        let since = Instant::now();
        let wait = Wait { since, is_admitted: true, patience, is_background: false, is_warm_up: true };
        self.lease(next, wait).await.map(Lease::release)
    }

    /// Begins to show a running invocation of a function to readers of its output. The caller drops the result when the
    /// outcome is written down.
    pub fn begin(&self, id: InvocationId, function: FunctionId) -> Running<'_> {
        self.live.begin(id, function, self.limits.max_output_size)
    }

    /// Tells the waiting readers that an invocation has ended without a run, or all readers that invocations may be
    /// gone.
    pub fn tell(&self, id: Option<InvocationId>) {
        match id {
            Some(id) => self.live.tell(id),
            None => self.live.tell_all(),
        }
    }

    /// The output of a running invocation so far; None when the invocation does not run.
    pub fn snapshot(&self, id: InvocationId) -> Option<(Vec<u8>, Vec<u8>)> {
        self.live.snapshot(id)
    }

    /// Runs a function on an instance, and completes the invocation's record. A drop ends function and instance, and
    /// leaves the record as the record was.
    pub async fn run(&self, ready: Ready, record: &mut InvocationRecord, input: Input, output: &Output) {
        let Ready { function, lease, queued } = ready;
        // The function's settings may have changed since, with the same instances.
        let function =
            self.registry.get(function.id).filter(|now| now.revision == function.revision).unwrap_or(function);
        let is_cold = lease.start() == Start::Cold;
        self.registry.executed(&function, record.executed_at.unwrap_or(record.created_at) / 1000);
        let (mut environment, stdin) = input.into_parts();
        // Preloaded modules may have changed the environment since the instance's setup, as an import does.
        if lease.has_environment() {
            environment.retain(|(name, _)| !function.settings.secrets.contains_key(name));
        } else {
            environment = function.settings.complete(environment);
            let doors = lease.variables_of_doors().into_iter();
            environment.extend(doors.map(|(name, value)| (name, value.into_bytes())));
        }
        let own = [
            ("FUNCTION_ID", function.id.to_string()),
            ("FUNCTION_NAME", function.name.to_string()),
            ("INVOCATION_ID", record.id.to_string()),
        ];
        environment.extend(own.map(|(name, value)| (name.to_owned(), value.into_bytes())));
        let output_cap = self.limits.max_output_size;
        let request = Request {
            nonce: Nonce::random(),
            stdout_cap: (!output.flows()).then_some(output_cap),
            stderr_cap: output_cap,
            environment: &environment,
            stdin: &stdin,
        };
        let started = Instant::now();
        let limit = function.settings.timeout.unwrap_or(self.limits.run_timeout);
        let span = tracing::debug_span!("run", function.id = %function.id, version = function.version.id.number,
            invocation.id = %record.id);
        let traffic = Traffic::default();
        let end = lease.invoke(&request, limit, output, &traffic).instrument(span).await;
        record.network = traffic.report();
        (record.stdout, record.stderr) = output.end();
        let full = |stream: &Bytes| stream.len() >= output_cap as usize;
        record.truncated = full(&record.stdout) || full(&record.stderr);
        let mut duration = started.elapsed();
        if let End::Exited(exit) = end {
            duration = exit.duration;
            (record.truncated, record.cpu, record.peak_memory) =
                (exit.truncated, Some(exit.cpu), Some(exit.peak_memory));
        }
        record.duration = Some(duration);
        let memory_limit = function.settings.memory.unwrap_or(self.memory_limit);
        (record.outcome, record.exit_code, record.error) = verdict::of(&end, memory_limit);
        metrics::invocation(function.id, record.outcome, duration, queued, is_cold);
        minutes::note(clock::unix_seconds(), record.outcome, duration, is_cold);
    }

    /// An instance. An image that is gone is built again first.
    async fn lease(&self, function: &Arc<Function>, wait: Wait) -> Result<Lease, InvokeError> {
        let mut tries = 0..IMAGE_TRIES;
        loop {
            // A warm instance needs no image.
            if !self.pool.has_idle(function.revision) {
                self.images.ensure(&function.version, &function.name).await?;
            }
            match self.pool.acquire(function, wait).await {
                Err(AcquireError::Start(error)) if tries.next().is_some() => match &*error {
                    // The first of the requests that wait for this start notes the loss, once.
                    StartError::NoImage(image) => drop(function.version.mark_missing(image, Absence::Lost)),
                    StartError::Docker(_)
                    | StartError::Socket(_)
                    | StartError::Doors(_)
                    | StartError::Timeout
                    | StartError::Protocol(_)
                    | StartError::Preload(_) => {
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

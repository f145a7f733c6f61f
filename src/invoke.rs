//! The use case "execute a function": registry → instance → invocation → outcome.

pub mod input;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time::Instant;
use uuid::Uuid;

use crate::config;
use crate::images::{ImageError, Images};
use crate::instance::{End, StartError};
use crate::pool::{AcquireError, Lease, Pool, Start};
use crate::protocol::{Exit, Nonce, Request};
use crate::registry::{Function, Registry};
use crate::types::{FunctionId, UnknownFunction};

use input::Input;

/// How often an image is made again for one execution, when somebody removes it again and again.
const IMAGE_TRIES: u32 = 2;

/// Executes functions.
#[derive(Debug)]
pub struct Invoker {
    registry: Arc<Registry>,
    images: Arc<Images>,
    pool: Pool,
    limits: config::Pool,
    memory_limit: u64,
}

/// What an execution came to. That the function failed is a result, too.
#[derive(Debug)]
pub struct Invocation {
    /// Its id.
    pub id: Uuid,
    /// Unix seconds of its start.
    pub executed_at: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
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

/// How an execution ended, decided from evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit status 0.
    Ok,
    /// With this exit status.
    Exit(i32),
    /// Killed by this signal.
    Signal(i32),
    /// The kernel's OOM killer acted in its container, whose limit in bytes this is.
    OutOfMemory {
        /// DOCKER_MEMORY_LIMIT.
        limit: u64,
        /// The exit status, when the function's own process got to one.
        exit_code: Option<i32>,
    },
    /// Ended by us after this time.
    Timeout(Duration),
    /// The container or Docker went away under it.
    Lost,
}

/// Why there was no execution.
#[derive(Debug, Error)]
pub enum InvokeError {
    /// No such function.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// Its image was gone, and could not be made again.
    #[error(transparent)]
    Image(#[from] Arc<ImageError>),
    /// No instance for it.
    #[error(transparent)]
    Acquire(#[from] AcquireError),
}

impl Invoker {
    /// Executes functions of `registry` on instances from `pool`.
    pub fn new(registry: Arc<Registry>, images: Arc<Images>, pool: Pool, limits: config::Pool, memory_limit: u64) -> Self {
        Self { registry, images, pool, limits, memory_limit }
    }

    /// Runs a function once. Dropped, it ends the function, wherever that is.
    pub async fn invoke(&self, id: FunctionId, input: Input) -> Result<Invocation, InvokeError> {
        let function = self.registry.get(id).ok_or(UnknownFunction(id))?;
        let arrived = Instant::now();
        let lease = self.lease(&function).await?;
        let (queued, start) = (arrived.elapsed(), lease.start());
        let invocation = Uuid::new_v4();
        let executed_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        self.registry.executed(&function, executed_at);
        let (mut environment, stdin) = input.into_parts();
        environment.extend([
            ("FUNCTION_ID".to_owned(), function.id.to_string()),
            ("FUNCTION_NAME".to_owned(), function.name.to_string()),
            ("INVOCATION_ID".to_owned(), invocation.to_string()),
        ]);
        let output_cap = self.limits.max_output_size;
        let request = Request { nonce: Nonce::random(), output_cap, environment: &environment, stdin: &stdin };
        let started = Instant::now();
        let reply = lease.invoke(&request, self.limits.run_timeout).await;
        let (mut duration, mut cpu, mut peak_memory) = (started.elapsed(), None, None);
        let full = |stream: &[u8]| stream.len() >= output_cap as usize;
        let mut truncated = full(&reply.stdout) || full(&reply.stderr);
        if let End::Exited(exit) = reply.end {
            (duration, cpu, peak_memory) = (exit.duration, Some(exit.cpu), Some(exit.peak_memory));
            truncated = exit.truncated;
        }
        Ok(Invocation {
            id: invocation,
            executed_at,
            outcome: self.outcome(&reply.end),
            stdout: reply.stdout,
            stderr: reply.stderr,
            truncated,
            start,
            queued,
            duration,
            cpu,
            peak_memory,
        })
    }

    /// An instance, for which the image is made again first when it is gone.
    async fn lease(&self, function: &Arc<Function>) -> Result<Lease, InvokeError> {
        let mut tries = 0..IMAGE_TRIES;
        loop {
            // A warm instance needs no image.
            if !self.pool.has_idle(function.id) {
                self.images.ensure(function).await?;
            }
            match self.pool.acquire(function).await {
                Err(AcquireError::Start(error)) if tries.next().is_some() => match &*error {
                    // Noted once, by the first of those who waited for this start.
                    StartError::NoImage(image) => drop(function.lose_image(image)),
                    StartError::Docker(_) | StartError::Timeout | StartError::Protocol(_) => {
                        return Err(AcquireError::Start(error).into());
                    }
                },
                other => return Ok(other?),
            }
        }
    }

    fn outcome(&self, end: &End) -> Outcome {
        match end {
            End::Exited(exit) => outcome_of(exit, self.memory_limit),
            End::Timeout(limit) => Outcome::Timeout(*limit),
            End::OutOfMemory => Outcome::OutOfMemory { limit: self.memory_limit, exit_code: None },
            End::Lost => Outcome::Lost,
        }
    }
}

fn outcome_of(exit: &Exit, limit: u64) -> Outcome {
    // As in wait(2): the low seven bits are the signal, the byte above them is the exit status.
    let signal = exit.wait_status & 0x7f;
    let exit_code = (signal == 0).then_some((exit.wait_status >> 8) & 0xff);
    if exit.oom == Some(true) {
        return Outcome::OutOfMemory { limit, exit_code };
    }
    match exit_code {
        Some(0) => Outcome::Ok,
        Some(code) => Outcome::Exit(code),
        None => Outcome::Signal(signal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(wait_status: i32, oom: Option<bool>, expected: Outcome) {
        let zero = Duration::ZERO;
        let exit = Exit { wait_status, oom, truncated: false, clean: true, duration: zero, cpu: zero, peak_memory: 0 };
        assert_eq!(outcome_of(&exit, 7), expected);
    }

    #[test]
    fn the_outcome_follows_the_evidence() {
        check(0, Some(false), Outcome::Ok);
        check(3 << 8, Some(false), Outcome::Exit(3));
        check(9, Some(false), Outcome::Signal(9));
        check(9, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: None });
        check(137 << 8, Some(false), Outcome::Exit(137));
        check(1 << 8, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: Some(1) });
        check(0, Some(true), Outcome::OutOfMemory { limit: 7, exit_code: Some(0) });
        check(9, None, Outcome::Signal(9));
        check(0x80 | 11, Some(false), Outcome::Signal(11));
    }
}

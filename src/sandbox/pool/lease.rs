//! The right to run one invocation on an instance.

use std::sync::Arc;
use std::time::Duration;

use super::state::Phase;
use super::{Key, Shared};
use crate::egress::Traffic;
use crate::functions::Revision;
use crate::sandbox::instance::{After, End, Instance};
use crate::sandbox::output::Output;
use crate::sandbox::protocol::Request;

/// Whether an invocation's instance existed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The instance existed before the invocation.
    Warm,
    /// A container that ran already took the function's code for this invocation.
    Slot,
    /// The instance was started for this invocation.
    Cold,
}

impl Start {
    /// The word of the HTTP contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Slot => "slot",
            Self::Cold => "cold",
        }
    }
}

/// The time in which an invocation whose client has left may end by itself. Then the instance is used again, so that
/// the next client finds a warm instance.
const GRACE: Duration = Duration::from_millis(250);
/// How long a function takes no slot after it went out of memory. A slot's modules take part of the memory (13 MB in
/// Python), so the function may have enough in a container of its own.
const OUT_OF_MEMORY_PAUSE: Duration = Duration::from_secs(3600);

/// An instance, leased for one invocation. A lease that is dropped ends its instance, unless the invocation ends within
/// `GRACE`: an instance in the middle of an invocation must not be used again.
#[must_use]
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    revision: Revision,
    key: Key,
    instance: Option<Instance>,
    start: Start,
    /// Whether a drop of the lease marks the instance as ending.
    armed: bool,
}

impl Lease {
    pub(super) fn new(shared: Arc<Shared>, revision: Revision, key: Key, instance: Instance, start: Start) -> Self {
        Self { shared, revision, key, instance: Some(instance), start, armed: true }
    }

    /// Whether the instance existed before the invocation.
    pub fn start(&self) -> Start {
        self.start
    }

    /// Whether the instance has the function's own environment already.
    pub fn has_environment(&self) -> bool {
        self.instance.as_ref().is_some_and(Instance::has_environment)
    }

    /// The variables by which a program finds the doors of the instance, beside the function's own variables.
    pub fn variables_of_doors(&self) -> Vec<(String, String)> {
        self.instance.as_ref().map(Instance::variables_of_doors).unwrap_or_default()
    }

    /// Gives the instance back unused.
    pub fn release(mut self) {
        let instance = self.instance.take().expect("a lease has its instance until it is used");
        self.give_back(instance);
    }

    /// Runs the function once, and gives the instance back once the instance is clean. After [`End::Timeout`] and
    /// [`End::OutOfMemory`] the container is gone when this function returns. Connections at the instance's doors count
    /// in `traffic`, and end before this function returns.
    pub async fn invoke(mut self, request: &Request<'_>, limit: Duration, output: &Output, traffic: &Traffic) -> End {
        let instance = self.instance.as_mut().expect("a lease has its instance until it is used");
        let ran = instance.run(request, limit, output, traffic).await;
        let instance = self.instance.take().expect("a lease has its instance until it is used");
        let (end, after) = instance.finish(ran, output).await;
        let is_out_of_memory = match &end {
            End::Exited(exit) => exit.oom == Some(true),
            End::OutOfMemory => true,
            End::Timeout(_) | End::Lost => false,
        };
        if is_out_of_memory {
            self.shared.lock().pause_slots(self.revision, OUT_OF_MEMORY_PAUSE);
        }
        self.go_on(after);
        end
    }

    /// Gives the instance back once the instance is clean.
    fn go_on(self, after: After) {
        match after {
            After::Clean(instance) => self.give_back(instance),
            After::Unclean(unclean) => {
                let tasks = self.shared.tasks.clone();
                tasks.spawn(async move {
                    match unclean.ready().await {
                        Ok(instance) => self.give_back(instance),
                        Err(error) => {
                            tracing::info!(%error, "an instance was not clean after an invocation and is ended")
                        }
                    }
                });
            }
            After::Ended => {}
        }
    }

    /// Takes the instance out of the lease. The caller must set the phase of the instance's permit.
    pub(super) fn into_instance(mut self) -> Instance {
        self.armed = false;
        self.instance.take().expect("a lease has its instance until it is used")
    }

    fn give_back(mut self, instance: Instance) {
        self.armed = false;
        self.shared.offer(self.revision, self.key, instance, Start::Warm);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        match self.instance.take().filter(Instance::may_settle) {
            Some(instance) => {
                let lease = Self { shared: Arc::clone(&self.shared), instance: None, armed: true, ..*self };
                self.shared.tasks.spawn(async move { lease.go_on(instance.settle(GRACE).await) });
            }
            None => self.shared.lock().set_phase(self.key, Phase::Ending),
        }
    }
}

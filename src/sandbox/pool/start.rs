//! Starts of instances.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::state::Phase;
use super::{Key, Shared, Start};
use crate::docker::{Program, RunSpec, label};
use crate::domain::Preload;
use crate::egress::Doors;
use crate::functions::{Function, Revision};
use crate::resources::clock;
use crate::sandbox::doors::{self, DoorsError};
use crate::sandbox::instance::{Instance, Permit, StartError};
use crate::sandbox::preload::Plan;
use crate::sandbox::protocol::Setup;
use crate::sandbox::transport::Rendezvous;

/// How long a function with other instances starts no instance after a start that has failed.
const PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// Starts an instance of the function, and offers the instance to the callers. The callers learn of an error.
    pub(super) async fn start(
        self: &Arc<Self>,
        function: &Function,
        key: Key,
        uid: u32,
    ) -> Result<(), Arc<StartError>> {
        let permit = self.permit(key);
        let doors = self.doors(function);
        let rendezvous = match doors {
            None => self.transport.rendezvous().await.map_err(StartError::from),
            // Where it is not known yet whether sockets work, the start finds out.
            Some(_) if self.transport.has_sockets() || self.transport.is_unknown() => {
                self.transport.open().await.map(Some).map_err(StartError::from)
            }
            Some(_) => Err(StartError::Doors(DoorsError::Pipes)),
        };
        let rendezvous = match rendezvous {
            Ok(rendezvous) => rendezvous,
            Err(error) => {
                let error = self.start_failed(function.revision, key, error);
                // The end of the permit lets the next instance start, so the callers learn of the error before.
                drop(permit);
                return Err(error);
            }
        };
        match self.run(function, uid, (rendezvous, doors), permit).await {
            Ok(instance) => self.offer(function.revision, key, instance, Start::Cold),
            Err(error) => return Err(self.start_failed(function.revision, key, error)),
        }
        Ok(())
    }

    /// Runs a container for the function.
    async fn run(
        &self,
        function: &Function,
        uid: u32,
        (rendezvous, doors): (Option<Rendezvous>, Option<Arc<doors::Plan>>),
        permit: Permit,
    ) -> Result<Instance, StartError> {
        let name = format!("youtube-serverless-{}", Uuid::new_v4());
        let created = clock::unix_seconds();
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::FUNCTION_ID, function.id.to_string()),
            (label::FUNCTION_NAME, function.name.to_string()),
            (label::VERSION, function.version.id.number.to_string()),
            (label::LANGUAGE, function.version.language.as_str().to_owned()),
            (label::CREATED, created.to_string()),
        ];
        let image = function.version.image().id;
        let sandbox = self.sandbox.with(&function.settings);
        let hosts = doors.as_ref().map(|plan| plan.doors.hosts()).unwrap_or_default();
        let spec = RunSpec {
            name: &name,
            image: image.as_str(),
            labels: &labels,
            sandbox: &sandbox,
            uid,
            program: Program::Own,
            mounts: &[],
            hosts: &hosts,
        };
        let (mut setup, was_known) = self.setup(function);
        if let (Some(plan), true) = (&doors, setup.preload.preload != Preload::Off) {
            setup.environment.extend(plan.doors.variables());
        }
        let ways = (&setup, doors.as_ref());
        let started = Instance::start(&self.docker, &spec, ways, rendezvous, permit, &self.tasks).await;
        match &started {
            Ok(instance) => {
                function.note_preloaded(instance.preloaded());
                self.want_tree(function);
            }
            Err(error @ StartError::Preload(_)) => {
                tracing::warn!(function.id = %function.id, %error, "an instance ended while modules were preloaded");
                function.note_preload_failed(was_known);
            }
            Err(_) => {}
        }
        started
    }

    /// The doors of the function's instances. None where the function has no network, or where the operator allows no
    /// rule of the network any more.
    fn doors(&self, function: &Function) -> Option<Arc<doors::Plan>> {
        let network = function.settings.network.as_ref()?.within(&self.network.allow)?;
        let (doors, egress, connections) = (Doors::of(&network), self.egress.clone(), self.network.connections);
        Some(Arc::new(doors::Plan { function: function.id, network, doors, egress, connections }))
    }

    /// The permit with this key. The permit's end lets a caller that waits for room go on.
    pub(super) fn permit(self: &Arc<Self>, key: Key) -> Permit {
        let shared = Arc::clone(self);
        Permit::new(move || {
            let mut state = shared.lock();
            state.free(key);
            shared.rebalance(&mut state);
            shared.keep.notify_one();
        })
    }

    /// The setup of the function's next instance, and whether an earlier instance has found out what can be preloaded.
    pub(super) fn setup(&self, function: &Function) -> (Setup, bool) {
        let (preload, known) = function.preload_plan(function.preload(self.preload));
        let was_known = known.is_some();
        // Without preloading each request brings the environment, so that another environment needs no other instance.
        let environment = if preload == Preload::Off { Vec::new() } else { function.settings.variables() };
        let processors = self.sandbox.with(&function.settings).cpus;
        (Setup { environment, preload: Plan { preload, limit: self.preload, processors, known } }, was_known)
    }

    fn start_failed(self: &Arc<Self>, revision: Revision, key: Key, error: StartError) -> Arc<StartError> {
        let error = Arc::new(error);
        let mut state = self.lock();
        state.set_phase(key, Phase::Ending);
        let waiters = match &*error {
            // Another start from the same image would fail as well.
            StartError::NoImage(_) => state.take_waiters(revision),
            // The next instance preloads less.
            StartError::Preload(_) => Vec::new(),
            StartError::Docker(_)
            | StartError::Socket(_)
            | StartError::Doors(_)
            | StartError::Timeout
            | StartError::Protocol(_) => state.waiters_without_hope(revision, PAUSE),
        };
        if waiters.is_empty() {
            tracing::warn!(function.id = %revision.function, %error, "failed to start an instance");
        }
        drop(state);
        for waiter in waiters {
            // A caller that has left needs no error.
            let _ = waiter.send(Err(Arc::clone(&error)));
        }
        error
    }
}

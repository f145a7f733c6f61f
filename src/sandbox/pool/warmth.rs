//! Functions' own limits on invocations at one time, and instances that are kept whatever idles.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};

use super::policy::IN_USE;
use super::{Bookkeeping, Pool, Shared, Start};
use crate::functions::{Function, Revision};
use crate::sandbox::instance::{Instance, StartError};

/// The pause between two looks whether kept instances are alive, and whether there is room for an instance to keep.
const KEEP_LOOK: Duration = Duration::from_secs(1);

impl Pool {
    /// Takes over how many invocations of a function run at one time, and how many instances are kept. Callers that
    /// wait see the change at once. The function must be in the registry.
    pub fn configure(&self, function: &Arc<Function>) {
        let mut state = self.0.lock();
        if state.closed || function.is_retired() {
            return;
        }
        if state.configure(function) {
            tracing::warn!(
                function.id = %function.id,
                "`keepWarm` of all functions is more than DOCKER_CONTAINER_LIMIT leaves: fewer instances are kept"
            );
        }
        self.0.rebalance(&mut state);
        drop(state);
        self.0.keep.notify_one();
    }

    /// Waits until an instance to keep may be lacking.
    pub(crate) async fn keep_due(&self) {
        let keeps_any = self.0.lock().keeps_any();
        tokio::select! {
            () = self.0.keep.notified() => {}
            () = time::sleep(KEEP_LOOK), if keeps_any => {}
        }
    }

    /// The function that is next to have an instance to keep started, as there is room and no caller waits. Makes room
    /// where there is none, of an instance that nobody keeps or of a slot.
    pub(crate) fn next_to_keep(&self) -> Option<Arc<Function>> {
        let shared = &self.0;
        let mut state = shared.lock();
        for instance in state.take_dead(Instance::is_alive) {
            tracing::warn!(container.name = instance.name(), "a kept container went away");
        }
        if state.closed || state.is_pressed() || shared.docker.health().trouble().is_some() {
            return None;
        }
        let now = Instant::now();
        let function = state.next_to_keep(now)?;
        if state.free_permits() > 0 {
            return Some(function);
        }
        if state.ending() == 0 {
            let is_unused = |since: Instant| since + IN_USE <= now;
            match state.longest_idle().filter(|&(since, _)| is_unused(since)) {
                Some((_, revision)) => drop(state.evict_for_room(revision)),
                None => drop(state.slots.end_least(now)),
            }
        }
        None
    }

    /// Starts an instance to keep, unless the room is gone meanwhile. The next instance of the function starts after a
    /// pause when this one fails.
    pub(crate) async fn start_to_keep(&self, function: &Function) -> Result<(), Arc<StartError>> {
        let shared = &self.0;
        let revision = function.revision;
        let begun = {
            let mut state = shared.lock();
            let is_lacking = !state.closed && state.lacks_one(revision, Instant::now());
            let has_room = state.free_permits() > 0 && !state.is_pressed();
            if is_lacking && has_room { state.begin_start(revision, false) } else { None }
        };
        let Some((key, uid, function)) = begun else { return Ok(()) };
        shared.start(&function, key, uid).await
    }

    /// Notes that an instance to keep can't start. The next try comes after a pause, longer each time.
    pub(crate) fn note_keep_failure(&self, revision: Revision) {
        self.0.lock().note_keep_failure(revision, Instant::now());
    }
}

impl Shared {
    /// Gives idle instances to callers that wait and that may run now.
    pub(super) fn serve(self: &Arc<Self>, state: &mut Bookkeeping) {
        while let Some(revision) = state.servable() {
            let Some((key, mut instance)) = state.take_idle(revision) else { return };
            if instance.is_alive() {
                self.prestart_successor(state, revision, &instance);
                self.hand_out(state, revision, key, instance, Start::Warm);
            } else {
                tracing::warn!(container.name = instance.name(), "an idle container went away");
                state.set_phase(key, super::Phase::Ending);
            }
        }
    }
}

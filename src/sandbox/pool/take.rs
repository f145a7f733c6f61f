//! Takes: a slot gets a function's code, and becomes the function's instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::state::Phase;
use super::{Bookkeeping, Shared, Start, fitness};
use crate::functions::trees::Tree;
use crate::functions::{Function, Revision};
use crate::sandbox::instance::{Instance, Slot, TakeError};
use crate::telemetry::metrics;

/// How long a function takes no slot after a slot that did not become its instance.
const PAUSE: Duration = Duration::from_secs(60);
/// The longest time from the files in a slot to the function's instance, beside the time of the function's imports. A
/// container starts then: the caller waits not much longer than for that start.
const LIMIT: Duration = Duration::from_secs(2);

impl Shared {
    /// The tree of the function's version, when the function takes slots. Without a slot that is ready, this says
    /// whether the function would take a slot.
    fn tree_for_slot(&self, state: &Bookkeeping, function: &Function) -> Option<Arc<Tree>> {
        let image = state.slots.image(function.version.language)?;
        fitness::check(function, &self.sandbox, self.preload).ok()?;
        self.trees.get(&function.version.image().id, &image.runtime)
    }

    /// Whether the function takes slots of this runtime image.
    pub(super) fn takes_slots(&self, function: &Function, runtime: Option<&str>) -> bool {
        runtime.is_some_and(|runtime| {
            fitness::check(function, &self.sandbox, self.preload).is_ok()
                && self.trees.get(&function.version.image().id, runtime).is_some()
        })
    }

    /// Has the files of a function's version put on disk, so that the next instance can take a slot. This program must
    /// have made the version's image, or must have started the image.
    pub(super) fn want_tree(&self, function: &Function) {
        if fitness::check(function, &self.sandbox, self.preload).is_err() {
            return;
        }
        let (language, image) = (function.version.language, function.version.image().id);
        let mut state = self.lock();
        match state.slots.image(language).map(|slot| slot.runtime.clone()) {
            Some(runtime) => {
                drop(state);
                self.trees.want(&image, language, &runtime);
            }
            None => state.slots.note_early(language, image),
        }
    }

    /// Whether a function, for which an instance starts, takes slots and has found none. Counts such a start.
    pub(super) fn misses_slot(&self, state: &Bookkeeping, revision: Revision) -> bool {
        let Some(function) = state.function(revision) else { return false };
        let misses = state.waits_for(revision) && self.tree_for_slot(state, function).is_some();
        if misses {
            metrics::slot_use(function.version.language.as_str(), false);
        }
        misses
    }

    /// Makes a ready slot an instance of the revision.
    pub(super) fn begin_take(self: &Arc<Self>, state: &mut Bookkeeping, revision: Revision) {
        self.drop_dead_slots(state);
        let Some((key, slot, function)) = state.begin_take(revision) else { return };
        let Some(tree) = self.tree_for_slot(state, &function) else {
            return state.set_phase(key, Phase::Ending);
        };
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let began = Instant::now();
            match shared.take(&function, slot, &tree).await {
                Ok(instance) => {
                    let language = function.version.language.as_str();
                    metrics::slot_use(language, true);
                    metrics::slot_take(language, began.elapsed());
                    shared.offer(revision, key, instance, Start::Slot);
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(function.id = %function.id, error, "a slot did not take a function's code: \
                                                                       starting a container");
                    let mut state = shared.lock();
                    state.note_failed_take(revision, key, PAUSE);
                    shared.rebalance(&mut state);
                }
            }
        });
    }

    /// Gives a slot a function's code. What is known of the function's imports stays: a slot has most modules already,
    /// so it tells neither the time that imports take nor, when it fails, anything of the imports.
    async fn take(&self, function: &Function, slot: Slot, tree: &Arc<Tree>) -> Result<Instance, TakeError> {
        let (setup, _) = self.setup(function);
        let imports = setup.preload.known.as_ref().map_or(Duration::ZERO, |known| known.saved);
        slot.take(&self.trees, (&function.version.image().id, tree), &setup, LIMIT + imports, &self.tasks).await
    }

    /// Ends the slots whose containers went away.
    pub(super) fn drop_dead_slots(&self, state: &mut Bookkeeping) {
        for slot in state.slots.take_dead(Slot::is_alive) {
            tracing::warn!(container.name = slot.name(), "a slot went away");
        }
    }
}

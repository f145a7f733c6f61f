//! Slots: containers that run already, without a function, and become a function's instance.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::refill::Refill;
use super::slots::SlotImage;
use super::{Bookkeeping, Key, Pool, Shared, Start, fitness};
use crate::config;
use crate::docker::{Program, RunSpec, label};
use crate::domain::Language;
use crate::functions::trees::Tree;
use crate::functions::{Function, Revision};
use crate::resources::clock;
use crate::sandbox::instance::{Instance, Slot, StartError, TakeError};
use crate::telemetry::metrics;

/// How long a function takes no slot after a slot that did not become its instance.
const PAUSE: Duration = Duration::from_secs(60);

impl Pool {
    /// Whether there are to be slots of a language. There are none where instances are reached by pipes.
    pub(crate) fn wants_slots(&self, language: Language) -> bool {
        let config::Slots { python, go } = self.0.limits.slots;
        let count = match language {
            Language::Python => python,
            Language::Go => go,
        };
        count > 0 && self.0.transport.has_sockets()
    }

    /// Holds slots of a language ready from now on, from this image.
    pub(crate) fn hold_slots(&self, language: Language, image: SlotImage) {
        let mut state = self.0.lock();
        let early = state.slots.set_image(language, image.clone());
        self.0.refill(&mut state);
        drop(state);
        self.0.wake.notify_one();
        for function in early {
            self.0.trees.want(&function, language, &image.runtime);
        }
    }
}

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

    /// Has the files of a function's version put on disk, so that the next instance can take a slot. An instance of the
    /// version must have started.
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

    /// Notes that a function that takes slots found none.
    pub(super) fn note_miss(&self, state: &mut Bookkeeping, function: &Function) {
        if self.tree_for_slot(state, function).is_some() {
            state.slots.note_use(function.version.language, Instant::now());
            metrics::slot_use(function.version.language.as_str(), false);
        }
    }

    /// Makes a ready slot an instance of the revision.
    pub(super) fn begin_take(self: &Arc<Self>, state: &mut Bookkeeping, revision: Revision) {
        while let Some((key, slot, function)) = state.begin_take(revision) {
            let Some(tree) = self.tree_for_slot(state, &function).filter(|_| slot.is_alive()) else {
                tracing::warn!(container.name = slot.name(), "a slot went away");
                state.set_phase(key, super::Phase::Ending);
                continue;
            };
            state.note_start(revision);
            state.slots.note_use(function.version.language, Instant::now());
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
            return;
        }
    }

    async fn take(&self, function: &Function, slot: Slot, tree: &Arc<Tree>) -> Result<Instance, TakeError> {
        let (setup, was_known) = self.setup(function);
        let taken = slot.take(&self.trees, (&function.version.image().id, tree), &setup).await;
        match &taken {
            Ok(instance) => function.note_preloaded(instance.preloaded()),
            Err(TakeError::Start(error @ StartError::Preload(_))) => {
                self.note_preload_failed(function, error, was_known)
            }
            Err(_) => {}
        }
        taken
    }

    /// Ends the slots whose containers went away.
    pub(super) fn drop_dead_slots(&self, state: &mut Bookkeeping) {
        for slot in state.slots.take_dead(Slot::is_alive) {
            tracing::warn!(container.name = slot.name(), "a slot went away");
        }
    }

    /// Takes all steps for slots that are wanted now. Nothing starts while Docker is known to be away.
    pub(super) fn refill(self: &Arc<Self>, state: &mut Bookkeeping) {
        if self.docker.health().trouble().is_some() {
            return;
        }
        while let Some(step) = state.next_refill() {
            match step {
                Refill::Start(language) => self.begin_slot(state, language),
                Refill::Evict => drop(state.evict_longest_idle()),
                Refill::End(language) => drop(state.slots.end_one(Some(language))),
            }
        }
    }

    fn begin_slot(self: &Arc<Self>, state: &mut Bookkeeping, language: Language) {
        let Some(image) = state.slots.image(language).cloned() else { return };
        let (key, uid) = state.begin_slot(language);
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let began = Instant::now();
            match shared.start_slot(language, &image.name, key, uid).await {
                Ok(slot) => {
                    metrics::slot_refill(language.as_str(), began.elapsed());
                    let mut state = shared.lock();
                    if state.closed {
                        state.slots.note_failure(key, Instant::now());
                        drop(state);
                        drop(slot);
                        return;
                    }
                    state.slots.put(key, slot);
                    shared.rebalance(&mut state);
                }
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(language = language.as_str(), error, "a slot did not start");
                    shared.lock().slots.note_failure(key, Instant::now());
                }
            }
        });
    }

    async fn start_slot(
        self: &Arc<Self>,
        language: Language,
        image: &str,
        key: Key,
        uid: u32,
    ) -> Result<Slot, StartError> {
        let name = format!("youtube-serverless-slot-{}", Uuid::new_v4());
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::LANGUAGE, language.as_str().to_owned()),
            (label::CREATED, clock::unix_seconds().to_string()),
        ];
        let (program, sandbox) = (Program::Own, &self.sandbox);
        let spec = RunSpec { name: &name, image, labels: &labels, sandbox, uid, program, mounts: &[] };
        let permit = self.permit(key);
        let rendezvous = self.transport.open().await?;
        Slot::start(&self.docker, &spec, language, (rendezvous, &self.scratch), permit, &self.tasks).await
    }
}

//! The supply of slots: starts of slots, the images that slots start from, and the ends of slots that nobody wants.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::refill::Refill;
use super::slots::SlotImage;
use super::{Bookkeeping, Pool, Shared};
use crate::config;
use crate::docker::{Program, RunSpec, label};
use crate::domain::Language;
use crate::resources::clock;
use crate::sandbox::instance::{Permit, Slot, StartError};
use crate::telemetry::metrics;

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

    /// Whether slots of a language have no image to start from, or one that was made from another runtime image.
    pub(crate) fn lacks_slot_image(&self, language: Language, runtime: &str) -> bool {
        let slots = &self.0.lock().slots;
        slots.lacks_image(language) || slots.image(language).is_some_and(|image| image.runtime != runtime)
    }

    /// Returns once a language may lack its image since the last call.
    pub(crate) async fn slot_image_is_wanted(&self) {
        self.0.images.notified().await;
    }

    /// Has the waiter for [`Pool::slot_image_is_wanted`] look.
    pub(crate) fn look_for_slot_images(&self) {
        self.0.images.notify_one();
    }

    /// Holds slots of a language ready from now on, from this image.
    pub(crate) fn hold_slots(&self, language: Language, image: SlotImage) {
        let mut state = self.0.lock();
        let (early, others) = state.slots.set_image(language, image.clone());
        self.0.refill(&mut state);
        drop(state);
        drop(others);
        self.0.wake.notify_one();
        for function in early {
            self.0.trees.want(&function, language, &image.runtime);
        }
    }

    /// Ends the slots of a language, and holds none until [`Pool::hold_slots`].
    pub(crate) fn refuse_slots(&self, language: Language) {
        let slots = self.0.lock().slots.refuse(language);
        drop(slots);
    }
}

impl Shared {
    /// Takes all steps for slots that are wanted now. Nothing starts while Docker is known to be away.
    pub(super) fn refill(self: &Arc<Self>, state: &mut Bookkeeping) {
        if self.docker.health().trouble().is_some() {
            return;
        }
        while let Some(step) = state.next_refill() {
            match step {
                Refill::Start(language) => self.begin_slot(state, language),
                Refill::Evict => drop(state.evict_longest_idle()),
                Refill::End(language) => drop(state.slots.end_one(language)),
            }
        }
    }

    pub(super) fn begin_slot(self: &Arc<Self>, state: &mut Bookkeeping, language: Language) {
        let image = state.slots.image(language).cloned().expect("slots start only where there is an image");
        let (key, uid) = state.begin_slot(language);
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let began = Instant::now();
            match shared.start_slot(language, &image.name, uid, shared.permit(key)).await {
                Ok(slot) => {
                    metrics::slot_refill(language.as_str(), began.elapsed());
                    let mut state = shared.lock();
                    let unwanted = if state.closed { Some(slot) } else { state.slots.put(key, slot, &image) };
                    shared.rebalance(&mut state);
                    drop(state);
                    drop(unwanted);
                }
                // The end of the permit has noted the failure.
                Err(error) => {
                    if matches!(error, StartError::NoImage(_)) && shared.lock().slots.note_lost(language, &image) {
                        shared.images.notify_one();
                    }
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(language = language.as_str(), error, "a slot did not start");
                }
            }
        });
    }

    async fn start_slot(&self, language: Language, image: &str, uid: u32, permit: Permit) -> Result<Slot, StartError> {
        let name = format!("youtube-serverless-slot-{}", Uuid::new_v4());
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::LANGUAGE, language.as_str().to_owned()),
            (label::CREATED, clock::unix_seconds().to_string()),
        ];
        let (program, sandbox) = (Program::Own, &self.sandbox);
        let spec = RunSpec { name: &name, image, labels: &labels, sandbox, uid, program, mounts: &[], hosts: &[] };
        let rendezvous = self.transport.open().await?;
        Slot::start(&self.docker, &spec, language, (rendezvous, &self.scratch), permit, &self.tasks).await
    }
}

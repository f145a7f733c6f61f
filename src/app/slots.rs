//! The preparation of slots: their images, and the look into a slot.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::build::Builder;
use crate::build::runtime_image::RuntimeError;
use crate::docker::health::Health;
use crate::docker::retry::Retries;
use crate::domain::Language;
use crate::sandbox::isolation::Isolation;
use crate::sandbox::pool::{Pool, SlotImage};

/// What slots need before the pool may hold any.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlotPreparation<'a> {
    pub(super) builder: &'a Builder,
    pub(super) isolation: &'a Arc<Isolation>,
    pub(super) pool: &'a Pool,
    pub(super) health: &'a Health,
    /// Ends the work.
    pub(super) stop: &'a CancellationToken,
}

impl SlotPreparation<'_> {
    /// Makes the images of slots that are wanted and have none, and looks into a slot. Where a slot lacks a part of the
    /// isolation, there are no slots until a later look. A language that is not looked into at all has no slots.
    pub(super) async fn prepare(&self) -> anyhow::Result<()> {
        let are_wanted = |language: &Language| self.isolation.is_checked(*language) && self.pool.wants_slots(*language);
        let (mut made, mut failed) = (Vec::new(), Ok(()));
        for language in Language::ALL.into_iter().filter(are_wanted) {
            match self.image(language).await {
                Ok(image) => made.extend(image.map(|image| (language, image))),
                Err(error) => failed = Err(error.into()),
            }
        }
        if made.is_empty() {
            return failed;
        }
        // A slot of Go has no shell that could look, and differs in nothing but the image.
        let python = self.builder.prepare(Language::Python, self.stop).await?;
        if !self.isolation.check_slot(python).await? {
            Language::ALL.into_iter().for_each(|language| self.pool.refuse_slots(language));
            return Ok(());
        }
        for (language, image) in made {
            self.pool.hold_slots(language, image);
        }
        failed
    }

    /// The image of a language's slots, where the slots have no image of the current runtime image.
    async fn image(&self, language: Language) -> Result<Option<SlotImage>, RuntimeError> {
        let runtime = self.builder.prepare(language, self.stop).await?;
        if !self.pool.lacks_slot_image(language, &runtime) {
            return Ok(None);
        }
        Ok(Some(SlotImage { name: self.builder.prepare_slot(language, &runtime, self.stop).await?, runtime }))
    }

    /// Prepares slots again after a preparation that failed, and when an image is gone.
    pub(super) async fn keep(&self, mut prepared: anyhow::Result<()>) {
        let retries = Retries::new("slots can't be prepared", self.health.clone());
        loop {
            let mut retry = retries.begin();
            while let Err(error) = prepared {
                retry.failed(&*error).await;
                prepared = self.prepare().await;
            }
            retry.done();
            self.pool.slot_image_is_wanted().await;
            prepared = self.prepare().await;
        }
    }
}

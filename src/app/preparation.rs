//! The work that is done as soon as Docker answers, and again from time to time: reconciliation, runtime images and the
//! check of the isolation.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::reconcile::{self, ReconcileError};
use super::slots::SlotPreparation;
use crate::build::Builder;
use crate::docker::Docker;
use crate::docker::health::Health;
use crate::docker::platform::Platform;
use crate::docker::retry::Retries;
use crate::domain::Language;
use crate::functions::Registry;
use crate::functions::images::Images;
use crate::resources::disk::{self, DiskSpace};
use crate::sandbox::isolation::Isolation;
use crate::sandbox::pool::Pool;
use crate::store::Store;

/// The wait at the start for the first reconciliation. A longer reconciliation goes on in the background.
const RECONCILE_LIMIT: Duration = Duration::from_secs(10);
/// A build goes on for a while when the service is killed: the build's leftovers come late.
const RECONCILE_AGAIN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];
/// An operator may prune images at any time.
const RECONCILE_PERIOD: Duration = Duration::from_secs(10 * 60);

/// The work that is done as soon as Docker answers.
#[derive(Clone, Debug)]
pub(super) struct Preparation {
    pub(super) docker: Docker,
    pub(super) platform: Arc<Platform>,
    pub(super) registry: Arc<Registry>,
    pub(super) store: Store,
    pub(super) builder: Builder,
    pub(super) images: Arc<Images>,
    pub(super) room: Arc<DiskSpace>,
    pub(super) isolation: Arc<Isolation>,
    pub(super) pool: Pool,
    pub(super) health: Health,
    /// Ends the work.
    pub(super) stop: CancellationToken,
    /// Cancelled when Docker and the registry agree.
    pub(super) reconciled: CancellationToken,
    /// Cancelled after the check of the isolation.
    pub(super) checked: CancellationToken,
}

impl Preparation {
    /// Does the work until the cancellation of the token `stop`.
    pub(super) async fn run(self) {
        tokio::select! {
            () = self.prepare() => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Waits for the first reconciliation, unless Docker is slow or does not answer, or the service stops.
    pub(super) async fn wait(&self, stop: &CancellationToken) {
        tokio::select! {
            () = self.reconciled.cancelled() => {}
            // Requests do not wait for a Docker that does not answer. The work is done when Docker answers again.
            () = self.health.clone().in_trouble() => {}
            () = time::sleep(RECONCILE_LIMIT) => tracing::warn!("Docker is slow: serving before what an earlier run \
                                                                 left is removed"),
            () = stop.cancelled() => {}
        }
    }

    /// Reconciles, builds the runtime images ahead of need, and reconciles again from time to time.
    async fn prepare(&self) {
        let retries = Retries::new("what earlier runs left in Docker can't be looked for", self.health.clone());
        let mut retry = retries.begin();
        retry.ready().await;
        while let Err(error) = self.reconcile().await {
            retry.failed(&error).await;
        }
        retry.done();
        self.reconciled.cancel();
        // IMAGE_CACHE_LIMIT may be lower than at the last run.
        self.images.trim_later();
        if let Err(error) = self.room.find_docker(&self.docker).await {
            tracing::warn!(%error, "failed to find Docker's disk: how full it is stays unknown");
        }
        let mut unchecked = Language::ALL.to_vec();
        self.check(&mut unchecked).await;
        let slots = SlotPreparation {
            builder: &self.builder,
            isolation: &self.isolation,
            pool: &self.pool,
            health: &self.health,
            stop: &self.stop,
        };
        if !self.executes_programs() {
            self.checked.cancel();
            return self.look_again(unchecked).await;
        }
        let prepared = slots.prepare().await;
        self.checked.cancel();
        tokio::join!(self.look_again(unchecked), slots.keep(prepared));
    }

    /// Whether a slot could execute programs and libraries of a zip, which it has from a folder.
    fn executes_programs(&self) -> bool {
        match disk::executes(self.platform.temp_dir()) {
            Ok(true) => return true,
            Ok(false) => tracing::warn!("there are no slots: TEMP_DIR_BASE is on a file system mounted with noexec"),
            Err(error) => {
                tracing::warn!(%error, "there are no slots: failed to look at the file system of TEMP_DIR_BASE")
            }
        }
        false
    }

    /// Reconciles from time to time, and does what could not be done before.
    async fn look_again(&self, mut unchecked: Vec<Language>) {
        let (mut pauses, mut looked_at) = (RECONCILE_AGAIN.into_iter(), Instant::now());
        loop {
            if let Err(error) = self.builder.remove_old_runtimes().await {
                tracing::warn!(%error, "failed to look for old runtime images, trying again later");
            }
            let pause = pauses.next().unwrap_or(RECONCILE_PERIOD);
            tokio::select! {
                () = time::sleep(pause) => self.health.wait().await,
                // An engine that was killed leaves containers of builds.
                () = self.health.recovered_since(looked_at) => pauses = RECONCILE_AGAIN.into_iter(),
            }
            looked_at = Instant::now();
            if let Err(error) = self.reconcile().await {
                tracing::error!(error = %chain(error), "failed to look for what earlier runs left in Docker, trying \
                                                        again later");
            }
            self.check(&mut unchecked).await;
            self.pool.look_for_slot_images();
        }
    }

    /// Builds runtime images ahead of need, and looks into a container of each. A language without a look stays in
    /// `unchecked`.
    async fn check(&self, unchecked: &mut Vec<Language>) {
        for language in std::mem::take(unchecked) {
            let checked = match self.builder.prepare(language, &self.stop).await {
                Ok(image) => {
                    if language == Language::Python {
                        self.isolation.try_socket(image.clone()).await;
                    }
                    self.isolation.check(language, image).await.map_err(chain)
                }
                Err(error) => Err(chain(error)),
            };
            if let Err(error) = checked {
                tracing::error!(
                    error,
                    language = language.as_str(),
                    "no runtime image or no look into it: submits will fail"
                );
                self.isolation.note(language.as_str(), vec!["not checked, see the log".to_owned()]);
                unchecked.push(language);
            }
        }
    }

    async fn reconcile(&self) -> Result<(), ReconcileError> {
        reconcile::run(&self.docker, &self.platform, &self.registry, &self.store, &self.builder, &self.images).await
    }
}

fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

//! The use cases "update", "roll back" and "configure": a successor takes a function's place at one moment, when the
//! successor is ready.
//!
//! ```text
//! build (update), or the image of another version (roll back) ──> an instance waits ──> on disk ──> in the registry
//!                                                     └── on error the function stays, and the new image goes
//! ```
//! Requests before that moment run the old revision; requests after that moment never do. An invocation that has the
//! old function, and no instance yet, has to look the function up again.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Built, Code, DeployError, Deployer, Upload, declared, deployed, digest};
use crate::build::BuildError;
use crate::domain::settings::{Change, Settings, SettingsError};
use crate::domain::{
    Changed, DeclaredSchedule, Deployed, FunctionId, FunctionName, IdempotencyKey, Language, Manifest, UnknownFunction,
    UnknownVersion, Update, VersionId, VersionRecord,
};
use crate::functions::{Function, Version};
use crate::invocations::invoke::InvokeError;
use crate::sandbox::pool::AcquireError;

/// The planned change of a function.
#[derive(Debug, Default)]
struct ChangePlan {
    name: Option<FunctionName>,
    settings: Change,
    version: Option<Arc<Version>>,
    /// The result of the version's build, if the version is new.
    built: Option<Built>,
    /// The idempotency key of the request.
    key: Option<IdempotencyKey>,
}

impl Deployer {
    /// Makes a version from an upload, and has the function run that version from then on. When the future is dropped
    /// before the version is on disk, the update undoes its work; an update with a key goes on.
    pub async fn update(self: &Arc<Self>, id: FunctionId, upload: Upload) -> Result<Deployed, DeployError> {
        let (this, has_key) = (Arc::clone(self), upload.key.is_some());
        self.run(has_key, |stop| async move { this.update_until(id, upload, &stop).await }).await
    }

    async fn update_until(
        &self,
        id: FunctionId,
        upload: Upload,
        stop: &CancellationToken,
    ) -> Result<Deployed, DeployError> {
        let Upload { mut zip, name, language, settings, manifest, key, live, .. } = upload;
        let zip_sha256 = digest::of_zip(&mut zip).await?;
        let key = key.map(|key| {
            let language = language.map_or("", Language::as_str);
            let name = name.as_ref().map_or("", FunctionName::as_str);
            let request_sha256 = format!("{id} {zip_sha256} {language} {name}{}", digest::of_settings(&settings));
            IdempotencyKey { key, request_sha256 }
        });
        self.once(key, async |key| {
            let (manifest, settings) = declared::with_form(manifest, settings);
            let code = Code { zip, zip_sha256, language, manifest, live };
            self.update_now(id, name, code, settings, key, stop).await
        })
        .await
    }

    pub(super) async fn update_now(
        &self,
        id: FunctionId,
        name: Option<FunctionName>,
        code: Code,
        settings: Change,
        key: Option<&IdempotencyKey>,
        stop: &CancellationToken,
    ) -> Result<Deployed, DeployError> {
        let shared = Arc::clone(self.function(id)?.shared());
        let place = self.images.enter()?;
        let _deploying = place.wait(shared.deploying.lock(), stop).await?;
        // Settings that are refused must be refused before a build, not after a build.
        let function = self.function(id)?;
        self.settings(Some(&function), settings.clone(), code.manifest.as_deref(), stop).await?;
        let number = self.store.next_version(id).await?.ok_or(UnknownFunction(id))?;
        let version = VersionId { function: id, number };
        let _held = self.images.pin(version);
        let called = name.as_ref().unwrap_or(&function.name);
        let built = self.build(&place, version, called, code, stop).await?;
        // The wait for a container must not take a place from builds.
        drop(place);
        let made = Arc::new(Version::new(id, built.version.clone()));
        let plan = ChangePlan { name, settings, version: Some(made), built: Some(built), key: key.cloned() };
        self.change(id, plan, stop).await.map(|(_, deployed)| deployed)
    }

    /// Has the function run another of its versions from then on: `number`, or by default the version that ran before.
    pub async fn roll_back(self: &Arc<Self>, id: FunctionId, number: Option<u32>) -> Result<Deployed, DeployError> {
        let this = Arc::clone(self);
        self.run(false, |stop| async move { this.roll_back_until(id, number, &stop).await }).await
    }

    async fn roll_back_until(
        &self,
        id: FunctionId,
        number: Option<u32>,
        stop: &CancellationToken,
    ) -> Result<Deployed, DeployError> {
        // The default is the version that ran before this request: a rollback does not wait for an update that is being
        // built.
        let function = self.function(id)?;
        let number = match (number, &function.previous) {
            (Some(number), _) => number,
            (None, Some(previous)) => previous.id.number,
            (None, None) => return Err(DeployError::NoFormer(id)),
        };
        let version_id = VersionId { function: id, number };
        let version = match function.versions().find(|version| version.id == version_id) {
            Some(version) => Arc::clone(version),
            None => {
                let record = self.store.versions(id).await?.into_iter().find(|record| record.number == number);
                Arc::new(Version::new(id, record.ok_or(UnknownVersion(version_id))?))
            }
        };
        let _held = self.images.pin(version_id);
        // The image comes before the wait for a container: the image may need a build.
        tokio::select! {
            ready = self.images.ensure(&version, &function.name) => ready.map_err(InvokeError::from)?,
            () = stop.cancelled() => return Err(cancelled()),
        }
        let plan = ChangePlan { version: Some(version), ..ChangePlan::default() };
        self.change(id, plan, stop).await.map(|(_, deployed)| deployed)
    }

    /// Gives a function another name or other settings. Returns the function, and what a client is told of the change.
    pub async fn configure(
        self: &Arc<Self>,
        id: FunctionId,
        name: Option<FunctionName>,
        settings: Change,
    ) -> Result<(Arc<Function>, Deployed), DeployError> {
        let this = Arc::clone(self);
        let plan = ChangePlan { name, settings, ..ChangePlan::default() };
        self.run(false, |stop| async move { this.change(id, plan, &stop).await }).await
    }

    /// The versions of a function that are kept, the newest first.
    pub async fn versions(&self, id: FunctionId) -> Result<Vec<VersionRecord>, DeployError> {
        self.function(id)?;
        Ok(self.store.versions(id).await?)
    }

    /// A version of a function, and the log of its last build.
    pub async fn version(&self, id: VersionId) -> Result<(VersionRecord, String), DeployError> {
        self.function(id.function)?;
        Ok(self.store.version(id).await?.ok_or(UnknownVersion(id))?)
    }

    /// A version's zip, as a client has sent the zip.
    pub async fn code(&self, id: VersionId) -> Result<Vec<u8>, DeployError> {
        self.function(id.function)?;
        Ok(self.store.zip(id).await?.ok_or(UnknownVersion(id))?)
    }

    async fn change(
        &self,
        id: FunctionId,
        mut to: ChangePlan,
        stop: &CancellationToken,
    ) -> Result<(Arc<Function>, Deployed), DeployError> {
        loop {
            let current = self.function(id)?;
            let version = to.version.as_ref().unwrap_or(&current.version);
            let settings =
                self.settings(Some(&current), to.settings.clone(), version.manifest.as_deref(), stop).await?;
            let name = to.name.clone().or_else(|| declared::next_name(&current, version));
            let name = name.unwrap_or_else(|| current.name.clone());
            let next = Arc::new(current.successor(name, settings, to.version.clone()));
            let takes_over = next.revision != current.revision;
            let switched = match self.warm(&next, takes_over, to.built.is_some(), stop).await {
                // From here on the change runs to its end, even when the caller leaves.
                Ok(()) => {
                    to.built.iter_mut().for_each(|built| built.warn_of(&next));
                    // This comes after the wait for a container, which may be long.
                    let schedules = match &to.version {
                        Some(_) => self.declared_schedules(&next).await.map(Some),
                        None => Ok(None),
                    };
                    match schedules {
                        Ok(schedules) => self.switch(&current, &next, &to, schedules.as_deref()).await,
                        Err(error) => Err(error),
                    }
                }
                Err(error) => Err(error),
            };
            let change = match switched {
                Ok(Some(change)) => change,
                not_switched => {
                    if takes_over {
                        self.pool.retire(&next);
                    }
                    not_switched?;
                    continue;
                }
            };
            self.replace(&current, &next);
            self.images.trim_later();
            tracing::info!(
                function.id = %id,
                function.name = %next.name,
                version = next.version.id.number,
                "function changed"
            );
            self.scheduler.wake();
            self.nodes.acknowledged(change).await?;
            let warnings = to.built.map_or_else(Vec::new, |built| built.warnings);
            // A function that had a key goes on with that key.
            let made = next.settings.notify.as_ref().filter(|_| current.settings.notify.is_none());
            let deployed = deployed(&next, warnings, made.map(|notify| notify.key.clone()));
            return Ok((next, deployed));
        }
    }

    /// Puts a successor in the place of `current`, and lets go what only `current` needs.
    pub(super) fn replace(&self, current: &Arc<Function>, next: &Arc<Function>) {
        let Some(predecessor) = self.registry.replace(Arc::clone(next)) else {
            // A function that is deleted in this moment has no successor. Another node's later change may have come
            // before, and have the same revision: that revision must not be retired.
            if self.registry.get(next.id).is_none_or(|now| now.revision != next.revision) {
                self.pool.retire(next);
            }
            return;
        };
        // The store's news of this very change may have come before.
        for function in [current, &predecessor] {
            if function.revision != next.revision {
                self.pool.retire(function);
            }
            let kept = |version: &Version| next.versions().any(|kept| kept.id == version.id);
            for version in function.versions().filter(|version| !kept(version)) {
                self.images.remove_later(version.id);
            }
        }
        self.pool.configure(next);
        self.queue.look_again();
    }

    /// The settings of a function, or of a new function, after a client's change, with a version that has this
    /// function.toml. Fails when the operator's limits, the way to instances or other functions stand against these.
    pub(super) async fn settings(
        &self,
        current: Option<&Function>,
        change: Change,
        manifest: Option<&Manifest>,
        stop: &CancellationToken,
    ) -> Result<Settings, DeployError> {
        let before = current.map_or_else(Settings::default, |function| function.settings.clone());
        let (no_manifest, asked) = (Manifest::default(), (change.network.is_some(), change.notify.is_some()));
        let settings = before.changed(change, &manifest.unwrap_or(&no_manifest).settings, &self.limits)?;
        tokio::select! {
            checked = self.network.check(&before, &settings, asked) => checked?,
            () = stop.cancelled() => return Err(cancelled()),
        }
        self.check_kept(current, &settings)?;
        Ok(settings)
    }

    /// Fails when a function that gets these settings asks for more kept instances than before, and all functions then
    /// ask for more than a node keeps. With two such changes at one time the pool keeps fewer.
    fn check_kept(&self, current: Option<&Function>, next: &Settings) -> Result<(), SettingsError> {
        let (before, asked) = (current.map_or(0, |function| function.settings.kept()), next.kept());
        let is_other = |function: &Arc<Function>| current.is_none_or(|current| function.id != current.id);
        let others = self.registry.list().into_iter().filter(is_other).map(|function| function.settings.kept());
        let all = others.fold(asked, u32::saturating_add);
        if asked > before && all > self.limits.max_kept {
            return Err(SettingsError::KeptTogether(all, self.limits.max_kept));
        }
        Ok(())
    }

    /// Starts an instance of the successor, if the successor has another revision. A version that has run before may do
    /// without an instance when all containers are in use.
    async fn warm(
        &self,
        next: &Arc<Function>,
        takes_over: bool,
        is_new: bool,
        stop: &CancellationToken,
    ) -> Result<(), DeployError> {
        if !takes_over {
            return Ok(());
        }
        // A new version waits for a container as long as other functions' invocations may take.
        let patience = is_new.then_some(self.limits.max_timeout);
        let warm = tokio::select! {
            warm = self.invoker.warm(next, patience) => warm,
            () = stop.cancelled() => return Err(cancelled()),
        };
        match warm {
            Err(InvokeError::Acquire(AcquireError::QueueTimeout { .. })) if !is_new => {
                tracing::warn!(
                    function.id = %next.id,
                    "no container is free: the function changes, and its next execution starts a container"
                );
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Puts the successor in the place of `current` on disk. Returns the number of the change; None when another
    /// function has taken that place meanwhile.
    async fn switch(
        &self,
        current: &Arc<Function>,
        next: &Arc<Function>,
        to: &ChangePlan,
        schedules: Option<&[DeclaredSchedule]>,
    ) -> Result<Option<u64>, DeployError> {
        let _switching = current.shared().switching.lock().await;
        if !Arc::ptr_eq(&self.function(next.id)?, current) {
            return Ok(None);
        }
        let preloaded = next.preloaded();
        let update = Update {
            id: next.id,
            from: current.generation,
            name: &next.name,
            settings: &next.settings,
            preloaded: preloaded.as_ref(),
            version: next.version.id.number,
            previous: next.previous.as_ref().map(|version| version.id.number),
            declared: schedules,
            max_versions: self.limits.max_versions,
        };
        let zip = match &to.built {
            Some(built) => built.zip().await?,
            None => Vec::new(),
        };
        let built = to.built.as_ref().map(|built| (&built.version, built.package(&zip)));
        match self.store.update(&update, built, to.key.as_ref()).await? {
            Changed::Now(change) => Ok(Some(change)),
            Changed::Since => {
                // Another node was faster. This node must know of that before the next try.
                self.nodes.follow_now().await;
                Ok(None)
            }
            Changed::Claimed => Err(DeployError::InProgress),
            Changed::NameTaken => Err(DeployError::NameTaken(next.name.clone())),
            Changed::TooManySchedules => Err(DeployError::TooManySchedules(next.id)),
            Changed::Gone => {
                self.function(next.id)?;
                Err(UnknownVersion(next.version.id).into())
            }
        }
    }

    fn function(&self, id: FunctionId) -> Result<Arc<Function>, DeployError> {
        if let Some(function) = self.registry.get(id) {
            return Ok(function);
        }
        // Another node may have made the function since this node's lease has run out.
        self.nodes.check()?;
        Err(UnknownFunction(id).into())
    }
}

fn cancelled() -> DeployError {
    DeployError::Image(BuildError::Cancelled.into())
}

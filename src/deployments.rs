//! The use cases "submit" and "delete": a submit makes a function from a zip, or leaves nothing; a delete removes a
//! function with its images. The module `change` has the changes of functions.

mod change;
mod declared;
mod delete;
mod digest;
mod error;
mod follow;
mod key;
mod named;
mod network;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use error::{DeleteError, DeployError};
pub use follow::Follower;
pub use network::NetworkRefusal;
pub(crate) use network::Networks;

use crate::build::package::Program;
use crate::build::{BuildError, Place};
use crate::docker::LiveLog;
use crate::domain::settings::Change;
use crate::domain::{
    Changed, Deployed, Executions, FunctionId, FunctionName, IdempotencyKey, Language, Manifest, Package, Preload,
    Preloaded, Record, VersionId, VersionRecord,
};
use crate::functions::images::{Draft, Images};
use crate::functions::{Function, Registry};
use crate::invocations::invoke::Invoker;
use crate::invocations::queue::InvocationQueue;
use crate::nodes::Membership;
use crate::resources::clock;
use crate::resources::disk::{DiskSpace, LowDisk};
use crate::resources::scratch::Temporary;
use crate::sandbox::pool::Pool;
use crate::schedules::Scheduler;
use crate::store::Store;
use crate::{config, telemetry};

/// The longest time that a submit waits for the function's first instance.
const FIRST_LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Makes, changes and deletes functions.
#[derive(Debug)]
pub struct Deployer {
    images: Arc<Images>,
    invoker: Arc<Invoker>,
    queue: Arc<InvocationQueue>,
    registry: Arc<Registry>,
    store: Store,
    pool: Pool,
    room: Arc<DiskSpace>,
    limits: config::Functions,
    network: Networks,
    nodes: Arc<Membership>,
    scheduler: Arc<Scheduler>,
    /// The idempotency keys that tasks of this process have.
    claimed: Arc<Mutex<HashSet<String>>>,
    /// The functions that this node has deleted, until the node has read its own deletions in the store. Stays empty
    /// where no other node uses the store.
    deleted: Mutex<HashSet<FunctionId>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The parts that a deployer is made of.
pub(crate) struct DeployerParts {
    pub(crate) images: Arc<Images>,
    pub(crate) invoker: Arc<Invoker>,
    pub(crate) queue: Arc<InvocationQueue>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) store: Store,
    pub(crate) pool: Pool,
    pub(crate) room: Arc<DiskSpace>,
    pub(crate) limits: config::Functions,
    pub(crate) network: Networks,
    pub(crate) nodes: Arc<Membership>,
    pub(crate) scheduler: Arc<Scheduler>,
    pub(crate) tasks: TaskTracker,
    /// Ends deployments under way.
    pub(crate) stop: CancellationToken,
}

/// The content of a submit or of an update.
#[derive(Debug)]
pub struct Upload {
    /// The zip, in an unnamed file.
    pub zip: Temporary<File>,
    /// The function's name, if the client gives a name.
    pub name: Option<FunctionName>,
    /// The name of a new function for which the client gives no name.
    pub default_name: FunctionName,
    /// The program's language, if the client gives a language.
    pub language: Option<Language>,
    /// The settings that the client gives.
    pub settings: Change,
    /// What the zip's function.toml says. The client's own word stands above the file.
    pub manifest: Option<Manifest>,
    /// The client's idempotency key: a request that is sent again must not make a second function.
    pub key: Option<String>,
    /// Receives the build's output while the build runs.
    pub live: Option<LiveLog>,
}

/// What a version is built of.
struct Code {
    zip: Temporary<File>,
    zip_sha256: String,
    language: Option<Language>,
    /// The function.toml, with the form of the submit above.
    manifest: Option<Arc<Manifest>>,
    /// Receives the build's output.
    live: Option<LiveLog>,
}

/// A version that was built and is not yet stored.
#[derive(Debug)]
struct Built {
    version: VersionRecord,
    /// The zip is read into memory for the store only: before that, an update may wait long for a container.
    zip: Temporary<File>,
    log: String,
    warnings: Vec<String>,
    /// How many of the warnings are of the build.
    build_warnings: usize,
}

impl Built {
    async fn zip(&self) -> Result<Vec<u8>, DeployError> {
        let mut zip = self.zip.share()?;
        Ok(tokio::task::spawn_blocking(move || read_again(&mut zip)).await??)
    }

    /// Adds warnings of imports that cost each invocation much time, and of declared settings that do not count.
    fn warn_of(&mut self, function: &Function) {
        self.warnings.truncate(self.build_warnings);
        self.warnings.extend(function.preloaded().iter().flat_map(Preloaded::warnings));
        self.warnings.extend(declared::warnings(function.version.manifest.as_deref(), &function.settings));
    }

    fn package<'a>(&'a self, zip: &'a [u8]) -> Package<'a> {
        Package { zip, build_log: &self.log, warnings: &self.warnings }
    }
}

impl Deployer {
    /// Makes a deployer, which puts new functions into the store and then into the registry.
    pub(crate) fn new(parts: DeployerParts) -> Arc<Self> {
        let DeployerParts { images, invoker, queue, registry, store, pool, room, limits, network, nodes, .. } = parts;
        let DeployerParts { scheduler, tasks, stop, .. } = parts;
        Arc::new(Self {
            images,
            invoker,
            queue,
            registry,
            store,
            pool,
            room,
            limits,
            network,
            nodes,
            scheduler,
            claimed: Arc::default(),
            deleted: Mutex::default(),
            tasks,
            stop,
        })
    }

    /// Fails when a disk is nearly full: then no upload may come.
    pub async fn check_room(&self) -> Result<(), LowDisk> {
        self.room.check().await
    }

    /// Makes a function from an upload. When this method returns, the function is on disk. When the future is dropped
    /// before that, the deployment undoes its work; a deployment with a key goes on.
    pub async fn deploy(self: &Arc<Self>, upload: Upload) -> Result<Deployed, DeployError> {
        let (this, has_key) = (Arc::clone(self), upload.key.is_some());
        self.run(has_key, |stop| async move { this.deploy_until(upload, &stop).await }).await
    }

    /// Runs a deployment in a task of its own, so that undoing goes on after the caller has left. A caller that leaves
    /// cancels the deployment's token, unless `goes_on` is true.
    async fn run<F, T>(&self, goes_on: bool, deployment: impl FnOnce(CancellationToken) -> F) -> Result<T, DeployError>
    where
        F: Future<Output = Result<T, DeployError>> + Send + 'static,
        T: Send + 'static,
    {
        let stop = self.stop.child_token();
        let _caller = (!goes_on).then(|| stop.clone().drop_guard());
        self.tasks.spawn(telemetry::carried(deployment(stop))).await?
    }

    async fn deploy_until(&self, upload: Upload, stop: &CancellationToken) -> Result<Deployed, DeployError> {
        let Upload { mut zip, name, default_name, language, settings, manifest, key, live } = upload;
        let name = name.or_else(|| manifest.as_ref()?.name.clone()).unwrap_or(default_name);
        let zip_sha256 = digest::of_zip(&mut zip).await?;
        let key = key.map(|key| {
            let language = language.map_or("", Language::as_str);
            let request_sha256 = format!("{zip_sha256} {language} {name}{}", digest::of_settings(&settings));
            IdempotencyKey { key, request_sha256 }
        });
        self.once(key, async |key| {
            let (manifest, settings) = declared::with_form(manifest, settings);
            let code = Code { zip, zip_sha256, language, manifest, live };
            self.deploy_new((name, false), code, settings, key, stop).await
        })
        .await
    }

    /// Makes a function, which no request has made before.
    async fn deploy_new(
        &self,
        (name, is_only): (FunctionName, bool),
        code: Code,
        settings: Change,
        key: Option<&IdempotencyKey>,
        stop: &CancellationToken,
    ) -> Result<Deployed, DeployError> {
        let manifest = code.manifest.clone();
        let settings = self.settings(None, settings, manifest.as_deref(), stop).await?;
        let notify_secret = settings.notify.as_ref().map(|notify| notify.key.clone());
        let place = self.images.enter()?;
        let id = FunctionId::random();
        let version = VersionId { function: id, number: 1 };
        let _held = self.images.pin(version);
        let mut built = self.build(&place, version, &name, code, stop).await?;
        drop(place);
        let mut record = Record {
            id,
            // The store gives the number.
            number: 0,
            generation: 1,
            name,
            created_at: built.version.created_at,
            executions: Executions::default(),
            settings,
            preloaded: None,
            version: built.version.clone(),
            previous: None,
        };
        let function = Arc::new(Function::from(record.clone()));
        let stored = async {
            self.look(&function, stop).await?;
            record.preloaded = function.preloaded();
            built.warn_of(&function);
            let zip = built.zip().await?;
            let schedules = self.declared_schedules(&function).await?;
            match self.store.insert(&mut record, built.package(&zip), &schedules, key, is_only).await? {
                Changed::Now(change) => Ok((record.number, change)),
                Changed::NameTaken => Err(DeployError::NameTaken(record.name)),
                Changed::Since => Err(DeployError::MadeMeanwhile(record.name)),
                Changed::TooManySchedules => Err(DeployError::TooManySchedules(id)),
                Changed::Claimed | Changed::Gone => Err(DeployError::InProgress),
            }
        };
        let (number, change) = stored.await.inspect_err(|_| self.pool.retire(&function))?;
        let function = self.put(function.numbered(number));
        self.scheduler.wake();
        self.nodes.acknowledged(change).await?;
        let language = function.version.language.as_str();
        tracing::info!(function.id = %id, function.name = %function.name, language, "function deployed");
        // Start an instance, so that the first execution is warm.
        self.pool.warm(&function);
        self.images.trim_later();
        Ok(deployed(&function, built.warnings, notify_secret))
    }

    /// Puts a new function of this node into the registry. Other nodes may have changed or deleted the function before.
    fn put(&self, function: Function) -> Arc<Function> {
        let function = Arc::new(function);
        if self.deleted.lock().remove(&function.id) {
            self.pool.retire(&function);
            return function;
        }
        let followed = self.registry.get(function.id);
        let present = self.registry.insert(Arc::clone(&function));
        for other in followed.iter().chain([&function]) {
            if other.revision != present.revision {
                self.pool.retire(other);
            }
        }
        self.pool.configure(&present);
        present
    }

    /// Has the function's first instance find out what can be preloaded. A submit does without, where no container is
    /// free or where the instance does not start.
    async fn look(&self, function: &Arc<Function>, stop: &CancellationToken) -> Result<(), DeployError> {
        if function.preload(self.limits.preload) == Preload::Off {
            return Ok(());
        }
        tokio::select! {
            warm = self.invoker.warm(function, Some(FIRST_LOOK_LIMIT)) => {
                warm.unwrap_or_else(|error| {
                    tracing::warn!(function.id = %function.id, %error, "a submit goes on without an instance");
                });
                Ok(())
            }
            () = stop.cancelled() => Err(DeployError::Image(BuildError::Cancelled.into())),
        }
    }

    /// Builds a version that the caller has pinned. A caller that left by the end of the build is an error, too.
    async fn build(
        &self,
        place: &Place,
        id: VersionId,
        name: &FunctionName,
        Code { zip, zip_sha256, language, manifest, live }: Code,
        stop: &CancellationToken,
    ) -> Result<Built, DeployError> {
        let created_at = clock::unix_seconds();
        let language = language.or_else(|| manifest.as_ref()?.language);
        let entry = manifest.as_ref().and_then(|manifest| manifest.entry.clone());
        let draft =
            Draft { id, name: name.clone(), language, entry, keeps_manifest: false, created_at, unpacked_size: None };
        let turn = self.images.turn(place, stop).await?;
        let (package, built) = self.images.make(&turn, &draft, zip.share()?, live.as_ref(), stop).await?;
        drop(turn);
        if stop.is_cancelled() {
            // The client has gone, so nobody will know of this version.
            return Err(DeployError::Image(BuildError::Cancelled.into()));
        }
        let version = VersionRecord {
            number: id.number,
            language: package.program.language(),
            entry: match package.program {
                Program::Python { entry, .. } => Some(entry),
                Program::Go { .. } => None,
            },
            created_at,
            zip_size: zip.share()?.metadata()?.len(),
            zip_sha256,
            unpacked_size: package.size,
            manifest,
            image: built.image,
        };
        let warnings: Vec<String> = package.warnings.into_iter().chain(built.warnings).collect();
        Ok(Built { version, zip, log: built.log, build_warnings: warnings.len(), warnings })
    }
}

/// The answer to the client about a function. `notify_secret` is the key of notifications that the request has made.
fn deployed(function: &Function, warnings: Vec<String>, notify_secret: Option<config::Secret>) -> Deployed {
    Deployed {
        function_id: function.id.to_string(),
        image_id: function.version.image().id.as_str().to_owned(),
        version: function.version.id.number,
        name: function.name.to_string(),
        warnings,
        notify_secret,
    }
}

fn read_again(zip: &mut File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    zip.rewind()?;
    zip.read_to_end(&mut bytes)?;
    Ok(bytes)
}

//! The use cases "submit" and "delete": a zip becomes a function, or leaves nothing; a function goes, with its image.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::BuildError;
use crate::disk::{self, LowDisk};
use crate::docker::{Docker, DockerError, LiveLog};
use crate::images::{Draft, ImageError, Images};
use crate::package::Program;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::registry::{Function, Registry};
use crate::store::{Executions, IdempotencyKey, Known, Record, Store, StoreError};
use crate::types::{FunctionId, FunctionName, Language, UnknownFunction};

/// Makes and deletes functions.
#[derive(Debug)]
pub struct Deployer {
    images: Arc<Images>,
    registry: Arc<Registry>,
    store: Store,
    pool: Pool,
    room: Arc<Room>,
    /// The keys of requests that are being carried out.
    claimed: Mutex<HashSet<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Knows the disks that a submit writes to.
#[derive(Debug)]
pub struct Room {
    docker_dir: OnceLock<PathBuf>,
    platform: Arc<Platform>,
    floor: u64,
}

/// What was uploaded.
#[derive(Debug)]
pub struct Upload {
    /// The zip, in an unnamed file.
    pub zip: File,
    /// The function's name.
    pub name: FunctionName,
    /// The uploader's word on the language.
    pub language: Option<Language>,
    /// What the client calls its request, to send it again without making two functions.
    pub key: Option<String>,
    /// Gets what the build prints, as it prints it.
    pub live: Option<LiveLog>,
}

/// Why there is no function.
#[derive(Debug, Error)]
pub enum DeployError {
    /// Its image could not be made.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The key was used before, for something else.
    #[error("this Idempotency-Key came with another request; use a new one")]
    OtherRequest,
    /// The same request is being carried out.
    #[error("a request with this Idempotency-Key is being carried out; try again later")]
    InProgress,
    /// It could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The zip could not be read again.
    #[error("failed to read the upload")]
    Io(#[from] io::Error),
    /// The task died.
    #[error("the deployment died")]
    Died(#[from] tokio::task::JoinError),
}

/// Why a function is not deleted.
#[derive(Debug, Error)]
pub enum DeleteError {
    /// There is none of this id.
    #[error(transparent)]
    Unknown(#[from] UnknownFunction),
    /// That could not be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The task died.
    #[error("the deletion died")]
    Died(#[from] tokio::task::JoinError),
}

impl Room {
    /// Submits are taken while `floor` bytes are free.
    pub fn new(platform: Arc<Platform>, floor: u64) -> Arc<Self> {
        Arc::new(Self { docker_dir: OnceLock::new(), platform, floor })
    }

    /// Finds out where Docker keeps its images. Until that is known its disk is not looked at.
    pub async fn find_docker(&self, docker: &Docker) -> Result<(), DockerError> {
        let folder = docker.root_dir().await?;
        self.docker_dir.get_or_init(|| folder);
        Ok(())
    }

    /// Whether there is more than the floor on each disk.
    pub fn check(&self) -> Result<(), LowDisk> {
        let mut folders =
            vec![("DATA_DIR", self.platform.data_dir().to_owned()), ("TEMP_DIR_BASE", self.platform.temp_dir().to_owned())];
        folders.extend(self.docker_dir.get().map(|folder| ("Docker", folder.clone())));
        disk::check(&folders, self.floor)
    }
}

impl Deployer {
    /// Registers what it makes in `store` and then in `registry`. When `stop` is cancelled, deployments under way end.
    pub fn new(
        images: Arc<Images>,
        registry: Arc<Registry>,
        store: Store,
        pool: Pool,
        room: Arc<Room>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { images, registry, store, pool, room, claimed: Mutex::default(), tasks, stop })
    }

    /// Whether an upload may come: not when a disk is nearly full.
    pub fn check_room(&self) -> Result<(), LowDisk> {
        self.room.check()
    }

    /// Makes a function of an upload. Dropped before that is on disk, it undoes what it has done. Returned, it is on disk.
    pub async fn deploy(self: &Arc<Self>, upload: Upload) -> Result<Arc<Function>, DeployError> {
        // A task of its own, so that undoing goes on when the caller leaves; the guard tells it of that.
        let stop = self.stop.child_token();
        let _caller = stop.clone().drop_guard();
        let this = Arc::clone(self);
        let span = tracing::Span::current();
        let task = async move { this.deploy_until(upload, &stop).await };
        self.tasks.spawn(tracing::Instrument::instrument(task, span)).await?
    }

    async fn deploy_until(&self, upload: Upload, stop: &CancellationToken) -> Result<Arc<Function>, DeployError> {
        let Upload { mut zip, name, language, key, live } = upload;
        let zip_sha256;
        (zip, zip_sha256) = tokio::task::spawn_blocking(move || digest(&mut zip).map(|sha256| (zip, sha256))).await??;
        let key = key.map(|key| {
            let language = language.map_or("", Language::as_str);
            IdempotencyKey { key, request_sha256: format!("{zip_sha256} {language} {name}") }
        });
        let _claim = key.as_ref().map(|key| self.claim(&key.key)).transpose()?;
        if let Some(key) = &key {
            match self.store.submitted(key).await? {
                Known::New => {}
                Known::Other => return Err(DeployError::OtherRequest),
                // One that was deleted in this moment is made again.
                Known::Same(id) => {
                    if let Some(function) = self.registry.get(id) {
                        return Ok(function);
                    }
                }
            }
        }
        let created_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let draft = Draft { id: FunctionId::random(), name, language, created_at, unpacked_size: None };
        let (package, built) = self.images.make(&draft, zip.try_clone()?, live.as_ref(), stop).await?;
        let Draft { id, name, .. } = draft;
        let kept = async {
            let zip = tokio::task::spawn_blocking(move || read_again(zip)).await??;
            let record = Record {
                id,
                name,
                language: package.program.language(),
                entry: match package.program {
                    Program::Python { entry, .. } => Some(entry),
                    Program::Go { .. } => None,
                },
                created_at,
                executions: Executions::default(),
                zip_size: zip.len() as u64,
                zip_sha256,
                unpacked_size: package.size,
                image: built.image,
            };
            if stop.is_cancelled() {
                // The caller left as the build ended: nobody will ever know the id.
                return Err(DeployError::Image(BuildError::Cancelled.into()));
            }
            self.store.insert(&record, &zip, &built.log, key.as_ref()).await?;
            Ok(record)
        };
        let record = match kept.await {
            Ok(record) => record,
            Err(error) => {
                self.remove_image_later(id);
                return Err(error);
            }
        };
        let function = self.registry.insert(record.into());
        tracing::info!(function.id = %id, function.name = %function.name, language = function.language.as_str(), "function deployed");
        // So that the first execution is warm.
        self.pool.warm(&function);
        self.images.trim_later();
        Ok(function)
    }

    /// Deletes a function for good: no execution begins any more, those under way end by themselves, then its image goes.
    pub async fn delete(self: &Arc<Self>, id: FunctionId) -> Result<(), DeleteError> {
        let this = Arc::clone(self);
        // A task of its own: what is deleted on disk must not live on in memory because the caller left.
        let task = async move {
            if !this.store.delete(id).await? {
                return Err(UnknownFunction(id).into());
            }
            if let Some(function) = this.registry.remove(id) {
                this.pool.retire(&function);
                tracing::info!(function.id = %id, function.name = %function.name, "function deleted");
            }
            this.remove_image_later(id);
            Ok(())
        };
        self.tasks.spawn(task).await?
    }

    fn claim(&self, key: &str) -> Result<Claim<'_>, DeployError> {
        let is_free = self.claims().insert(key.to_owned());
        is_free.then(|| Claim { deployer: self, key: key.to_owned() }).ok_or(DeployError::InProgress)
    }

    fn claims(&self) -> MutexGuard<'_, HashSet<String>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove_image_later(&self, id: FunctionId) {
        let images = Arc::clone(&self.images);
        self.tasks.spawn(async move { images.remove(id).await });
    }
}

/// A key while its request is being carried out.
#[derive(Debug)]
struct Claim<'a> {
    deployer: &'a Deployer,
    key: String,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.deployer.claims().remove(&self.key);
    }
}

/// The SHA-256 of the zip, hexadecimal.
fn digest(zip: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    zip.rewind()?;
    io::copy(zip, &mut hash)?;
    zip.rewind()?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read_again(mut zip: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    zip.rewind()?;
    zip.read_to_end(&mut bytes)?;
    Ok(bytes)
}

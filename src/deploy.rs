//! The use cases "submit" and "delete": a zip becomes a function, or leaves nothing; a function goes, with its image.

use std::fs::{self, File};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::{BuildError, Builder, CODE_FOLDER, Source};
use crate::docker::DockerError;
use crate::package::{self, PackageError};
use crate::platform::Platform;
use crate::pool::Pool;
use crate::registry::{Function, Registry};
use crate::types::{FunctionId, FunctionName, Language};

/// A deleted function's image is tried again this often while executions still use it.
const IMAGE_RETRY: Duration = Duration::from_secs(1);

/// Makes and deletes functions.
#[derive(Debug)]
pub struct Deployer {
    builder: Builder,
    registry: Arc<Registry>,
    pool: Pool,
    platform: Arc<Platform>,
    max_unpacked_size: u64,
    tasks: TaskTracker,
    stop: CancellationToken,
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
}

/// Why there is no function.
#[derive(Debug, Error)]
pub enum DeployError {
    /// The zip is no good.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A matter of this machine's disk.
    #[error("failed to make room for the package")]
    Io(#[from] io::Error),
    /// The task died.
    #[error("the deployment died")]
    Died(#[from] tokio::task::JoinError),
}

/// There is no function of this id.
#[derive(Debug, Error)]
#[error("no function with id {0}; GET /api/functions lists those there are")]
pub struct UnknownFunction(pub FunctionId);

impl Deployer {
    /// Registers what it builds in `registry`. When `stop` is cancelled, builds under way end.
    pub fn new(
        builder: Builder,
        registry: Arc<Registry>,
        pool: Pool,
        platform: Arc<Platform>,
        max_unpacked_size: u64,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { builder, registry, pool, platform, max_unpacked_size, tasks, stop })
    }

    /// Makes a function of an upload. Dropped, it undoes what it has done.
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
        let Upload { mut zip, name, language } = upload;
        let context = tempfile::tempdir_in(self.platform.temp_dir())?;
        let code = context.path().join(CODE_FOLDER);
        let max_size = self.max_unpacked_size;
        let program = tokio::task::spawn_blocking(move || {
            fs::create_dir(&code)?;
            Ok::<_, DeployError>(package::open(&mut zip, &code, max_size, language)?)
        })
        .await??;
        let id = FunctionId::random();
        let created_at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let source = Source { id, name: &name, program: &program, context: context.path(), created_at };
        let image_id = self.builder.build(&source, stop).await?;
        tracing::info!(function.id = %id, function.name = %name, language = program.language().as_str(), "function deployed");
        let function = Function::new(id, name, program.language(), image_id, created_at);
        if stop.is_cancelled() {
            // The caller left as the build ended: nobody will ever know the id.
            self.remove_image(id).await;
            return Err(BuildError::Cancelled.into());
        }
        let function = self.registry.insert(function);
        // So that the first execution is warm.
        self.pool.warm(&function);
        Ok(function)
    }

    /// Deletes a function: no execution begins any more, those under way end by themselves, then its image goes.
    pub fn delete(self: &Arc<Self>, id: FunctionId) -> Result<(), UnknownFunction> {
        let function = self.registry.remove(id).ok_or(UnknownFunction(id))?;
        self.pool.retire(&function);
        tracing::info!(function.id = %id, function.name = %function.name, "function deleted");
        let this = Arc::clone(self);
        self.tasks.spawn(async move { this.remove_image(id).await });
        Ok(())
    }

    async fn remove_image(&self, id: FunctionId) {
        while let Err(error) = self.builder.remove_image(id).await {
            match error {
                DockerError::Failed { message, .. } if message.contains("conflict") => {}
                error => tracing::warn!(function.id = %id, %error, "failed to remove an image, trying again"),
            }
            tokio::select! {
                () = tokio::time::sleep(IMAGE_RETRY) => {}
                // What is left then is removed at the next start.
                () = self.stop.cancelled() => return,
            }
        }
    }
}

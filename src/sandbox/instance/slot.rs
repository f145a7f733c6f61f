//! A slot: a container that runs already, without a function. A slot takes the code of one function, and is that
//! function's instance from then on.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time;
use tokio_util::task::TaskTracker;

use super::code::CodeFolder;
use super::guard::{Guard, Permit};
use super::launch::launch;
use super::{Instance, SETUP_LIMIT, StartError};
use crate::docker::{Docker, RunSpec};
use crate::domain::{ImageId, Language};
use crate::functions::trees::{Tree, TreeError, Trees};
use crate::resources::scratch::Scratch;
use crate::sandbox::protocol::{self, ProtocolError, Setup};
use crate::sandbox::transport::{Rendezvous, Wire};

/// A container whose bootstrap waits for a function's code. No code of any function has run in the container.
#[must_use]
#[derive(Debug)]
pub struct Slot {
    wire: Wire,
    guard: Guard,
}

/// Why a slot did not become an instance. The slot's container is removed in the background.
#[derive(Debug, Error)]
pub enum TakeError {
    /// The function's files could not be put into the container.
    #[error("the function's files can't be put into the container")]
    Tree(#[from] TreeError),
    /// The container went away, or was not ready in time.
    #[error("the container went away or was not ready in time")]
    Protocol(#[from] ProtocolError),
    /// The bootstrap did not take the function.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Slot {
    /// Runs a container from a language's slot image, with the limits of `spec`, and waits for its bootstrap.
    ///
    /// # Errors
    /// On an error the container is removed in the background; the permit becomes free after the removal.
    pub async fn start(
        docker: &Docker,
        spec: &RunSpec<'_>,
        language: Language,
        (rendezvous, scratch): (Rendezvous, &Scratch),
        permit: Permit,
        tasks: &TaskTracker,
    ) -> Result<Self, StartError> {
        let code = CodeFolder::make(scratch, language).await?;
        let mounts = code.mounts();
        let spec = RunSpec { mounts: &mounts, ..*spec };
        let (wire, guard) = launch(docker, &spec, Some(rendezvous), Guard::with_code(permit, code, tasks)).await?;
        Ok(Self { wire, guard })
    }

    /// Whether the bootstrap still holds its end of the socket.
    pub fn is_alive(&self) -> bool {
        self.wire.is_open() == Some(true)
    }

    /// The container's name.
    pub fn name(&self) -> &str {
        self.guard.name()
    }

    /// Gives the slot a function's files within `limit`, and makes the slot the function's instance within `limit`
    /// after that.
    ///
    /// # Errors
    /// On an error the container is removed in the background; the permit becomes free after the removal.
    pub async fn take(
        self,
        trees: &Arc<Trees>,
        (image, tree): (&ImageId, &Arc<Tree>),
        setup: &Setup,
        limit: Duration,
        tasks: &TaskTracker,
    ) -> Result<Instance, TakeError> {
        let (trees, image, files) = (Arc::clone(trees), image.clone(), Arc::clone(tree));
        // A copy to a disk that hangs goes on. The folder and the permit must not go before the copy's end.
        let filled = tasks.spawn(async move {
            let code = self.guard.code().expect("a slot's container has folders for code");
            let filled = code.fill(&trees, &image, &files).await;
            filled.map(|()| self)
        });
        let filled = time::timeout(limit, filled).await.map_err(|_| ProtocolError::Late(limit))?;
        let slot = filled.map_err(|error| TreeError::Io(std::io::Error::other(error)))??;
        slot.go_on(tree.arguments(), setup, limit).await
    }

    /// Gives the slot one Python file as its program.
    ///
    /// # Errors
    /// On an error the container is removed in the background; the permit becomes free after the removal.
    pub async fn take_file(self, name: &str, content: String, setup: &Setup) -> Result<Instance, TakeError> {
        let code = self.guard.code().expect("a slot's container has folders for code");
        code.put(name, content).await.map_err(TreeError::from)?;
        self.go_on(&[name.to_owned()], setup, SETUP_LIMIT).await
    }

    /// Lets the bootstrap go on, as the files are there.
    async fn go_on(mut self, arguments: &[String], setup: &Setup, limit: Duration) -> Result<Instance, TakeError> {
        let prepared = time::timeout(limit, async {
            protocol::send_code(&mut self.wire.writer, arguments).await?;
            Ok(Instance::prepare(self.wire, self.guard, setup).await?)
        });
        prepared.await.unwrap_or(Err(TakeError::Protocol(ProtocolError::Late(limit))))
    }
}

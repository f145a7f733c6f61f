//! Keeps as many instances of functions started as the functions' `keepWarm` says.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::functions::images::Images;
use crate::functions::{Absence, Function, Registry};
use crate::nodes::Membership;
use crate::sandbox::instance::StartError;
use crate::sandbox::pool::Pool;

/// Starts instances that are to be kept, one at a time.
#[derive(Debug)]
pub struct Keeper {
    pool: Pool,
    images: Arc<Images>,
    registry: Arc<Registry>,
    nodes: Arc<Membership>,
}

impl Keeper {
    /// A keeper, which does nothing yet.
    pub(crate) fn new(pool: Pool, images: Arc<Images>, registry: Arc<Registry>, nodes: Arc<Membership>) -> Self {
        Self { pool, images, registry, nodes }
    }

    /// Keeps instances until the cancellation of `stop`.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.keep() => {}
            () = stop.cancelled() => {}
        }
    }

    async fn keep(&self) {
        for function in self.registry.list() {
            self.pool.configure(&function);
        }
        loop {
            self.pool.keep_due().await;
            // A node whose lease has run out may know an old version of the function.
            while self.nodes.check().is_ok()
                && let Some(function) = self.pool.next_to_keep()
            {
                self.start(&function).await;
            }
        }
    }

    async fn start(&self, function: &Function) {
        let ready = self.images.ensure(&function.version, &function.name).await;
        let started = match ready {
            // The image may have taken minutes.
            Ok(()) if self.nodes.check().is_err() => return,
            Ok(()) => self.pool.start_to_keep(function).await.map_err(|error| {
                if let StartError::NoImage(image) = &*error {
                    function.version.mark_missing(image, Absence::Lost);
                }
                anyhow::Error::new(error)
            }),
            Err(error) => Err(anyhow::Error::new(error)),
        };
        if let Err(error) = started {
            let error = format!("{error:#}");
            tracing::warn!(function.id = %function.id, error, "an instance to keep did not start, trying again later");
            self.pool.note_keep_failure(function.revision);
        }
    }
}

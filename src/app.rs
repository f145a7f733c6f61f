//! Builds every part once, and stops all parts in order. No other module sees the whole configuration.

mod composition;
mod copies;
mod listeners;
mod preparation;
mod reconcile;
mod requirement;
mod risks;
mod slots;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::{self, error::Elapsed};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::deployments::Follower;
use crate::docker::Docker;
use crate::docker::health::{self, Monitor};
use crate::docker::platform::Platform;
use crate::functions::images::Images;
use crate::http;
use crate::invocations::keeper::Keeper;
use crate::invocations::lookout::Lookout;
use crate::schedules::Scheduler;
use crate::store::Store;
use crate::telemetry::metrics;
pub use copies::{backup, migrate_store};
pub use listeners::Listeners;
use preparation::Preparation;

/// The time limit for the removal of containers and files, after the grace for requests.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(60);

/// The time limits for the last invocations to be written down, and for the end of the store's connections.
const KEEPER_LIMIT: Duration = Duration::from_secs(40);
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// The time limit for the removal of deleted functions' images, at the end.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

/// Serves on the listeners until the cancellation of `stop` and for SERVER_DRAIN_TIME after that. Then removes all
/// containers of this run.
///
/// The future is boxed, so that the compiler makes the service's code once: what awaits an `async fn` of another crate
/// has the code of all its parts made again.
///
/// # Errors
/// DATA_DIR can't be used, or the end takes too long.
pub fn run(config: Config, listeners: Listeners, stop: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(run_parts(config, listeners, stop))
}

async fn run_parts(config: Config, listeners: Listeners, stop: CancellationToken) -> anyhow::Result<()> {
    metrics::start();
    let (monitor, health) = health::channel();
    let (leaving, drain_time) = (stop, config.http.drain_time);
    let service = Service::compose(config, health, leaving.clone(), listeners.ports()?).await?;
    service.start(monitor);
    let stop = service.stop.clone();
    service.tasks.spawn(async move {
        tokio::select! {
            () = leaving.cancelled() => {}
            () = stop.cancelled() => return,
        }
        if !drain_time.is_zero() {
            tracing::info!(?drain_time, "not ready any more, and still serving");
            tokio::select! {
                () = time::sleep(drain_time) => {}
                () = stop.cancelled() => {}
            }
        }
        stop.cancel();
    });
    service.preparation.wait(&service.stop).await;
    let refusal = service.refusal().await;
    let keeper = service.keep_history();
    risks::warn_about_address(&service.state.config);
    if refusal.is_none() {
        service.serve(listeners).await?;
    }
    service.stop(keeper, refusal).await
}

/// The parts of the service that `run` starts and stops.
struct Service {
    docker: Docker,
    platform: Arc<Platform>,
    store: Store,
    images: Arc<Images>,
    preparation: Preparation,
    scheduler: Arc<Scheduler>,
    /// REQUIRE_ISOLATION.
    requires_isolation: bool,
    gateway: http::Gateway,
    state: http::State,
    /// All tasks but the keeping of the history.
    tasks: TaskTracker,
    /// Cancelled when the service begins no more work.
    stop: CancellationToken,
    /// Cancelled at the end of the grace for requests: invocations that still run are ended.
    end: CancellationToken,
    /// Cancelled when no invocation is left, which ends the keeping of the history.
    ended: CancellationToken,
}

impl Service {
    /// Starts the tasks that do not wait for requests.
    fn start(&self, monitor: Monitor) {
        self.tasks.spawn(self.state.pool.clone().run());
        let (docker, end) = (self.docker.clone(), self.end.clone());
        self.tasks.spawn(async move { docker.watch(monitor, end).await });
        self.tasks.spawn(self.preparation.clone().run());
        self.tasks.spawn(metrics::run(self.end.clone()));
        let http::Api { deferred, deployer, nodes, tokens, health, live, .. } = &*self.state;
        self.tasks.spawn(Lookout::new(self.store.clone(), Arc::clone(live)).run(self.end.clone()));
        let (deployer, queue, nodes) = (Arc::clone(deployer), Arc::clone(deferred), Arc::clone(nodes));
        self.tasks.spawn(Arc::clone(tokens).run(self.end.clone()));
        let follower = Follower::new(deployer, queue, nodes, Arc::clone(tokens), health.clone());
        self.tasks.spawn(follower.run(self.end.clone()));
    }

    /// The reason why the service must not serve, if there is one.
    async fn refusal(&self) -> Option<String> {
        let Preparation { isolation, checked, health, .. } = &self.preparation;
        if self.requires_isolation { requirement::refusal(isolation, checked, health, &self.stop).await } else { None }
    }

    /// Starts the keeping of the history, which outlives all invocations.
    fn keep_history(&self) -> JoinHandle<()> {
        tokio::spawn(Arc::clone(&self.state.history).run(self.ended.clone()))
    }

    /// Serves until the cancellation of the token `stop`, and then for the grace.
    async fn serve(&self, Listeners { api, functions }: Listeners) -> anyhow::Result<()> {
        let http::Api { deferred, config, pool, registry, nodes, notifications, leaving, .. } = &*self.state;
        self.tasks.spawn(Arc::clone(deferred).run());
        self.tasks.spawn(Arc::clone(notifications).run(self.stop.clone(), self.end.clone()));
        // No slot begins on a node that is about to leave: the next process here, or another node, has the slot.
        self.tasks.spawn(Arc::clone(&self.scheduler).run(leaving.clone()));
        let images = Arc::clone(&self.images);
        let keeper = Keeper::new(pool.clone(), images, Arc::clone(registry), Arc::clone(nodes));
        self.tasks.spawn(keeper.run(self.stop.clone()));
        tracing::info!(address = %api.local_addr()?, platform.id = %self.platform.id(), "serving");
        let served = http::serve(api, http::router(self.state.clone()), config, &self.stop);
        let functions = async {
            let Some(listener) = functions else { return Ok(()) };
            tracing::info!(address = ?listener.local_addr(), "serving functions over HTTP");
            http::serve(listener, http::functions(self.gateway.clone()), config, &self.stop).await
        };
        // Background invocations have the same grace as invocations that a client waits for.
        let idle = async {
            self.stop.cancelled().await;
            time::timeout(config.shutdown_timeout, deferred.idle()).await
        };
        let (served, functions, idle) = tokio::join!(served, functions, idle);
        for error in [served, functions].into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "shutdown");
        }
        if idle.is_err() {
            tracing::warn!("asynchronous executions still ran and are lost");
        }
        Ok(())
    }

    /// Ends all tasks, looks for containers and images that are left, and closes the store. Fails with the refusal, if
    /// there is one.
    async fn stop(self, keeper: JoinHandle<()>, refusal: Option<String>) -> anyhow::Result<()> {
        // Upkeep and monitors end with this cancellation.
        self.stop.cancel();
        self.end.cancel();
        self.state.nodes.end().await;
        self.tasks.close();
        let wound_up = time::timeout(CLEAN_UP_LIMIT, self.tasks.wait()).await;
        self.ended.cancel();
        match time::timeout(KEEPER_LIMIT, keeper).await {
            Ok(kept) => kept.context("the keeper of the history died")?,
            Err(_) => tracing::error!("the last invocations could not be written down in time"),
        }
        let cleaned_up = match refusal {
            // The service has served no request, so leftovers may wait for the next start.
            Some(refusal) => Err(anyhow::anyhow!(refusal)),
            None => self.clean_up(wound_up).await,
        };
        self.state.nodes.leave().await;
        // A task that did not end in time may still write what the task has done.
        if time::timeout(CLOSE_LIMIT, self.store.close()).await.is_err() {
            tracing::warn!("the connections to the database could not be ended in time");
        }
        cleaned_up?;
        tracing::info!("stopped");
        Ok(())
    }

    /// Removes the images and containers that are left. Fails when tasks have not ended in time.
    async fn clean_up(&self, wound_up: Result<(), Elapsed>) -> anyhow::Result<()> {
        time::timeout(REMOVAL_LIMIT, self.images.finish_removals()).await.unwrap_or(());
        wound_up.context("containers or builds could not be ended in time")?;
        reconcile::at_end(&self.docker, &self.platform).await.context("failed to look for containers left")
    }
}

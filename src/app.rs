//! Builds every component once, and stops them in order. The only place that sees all of the configuration.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::builder::Builder;
use crate::config::Config;
use crate::deploy::Deployer;
use crate::docker::Docker;
use crate::health::{self, Health};
use crate::http;
use crate::invoke::Invoker;
use crate::platform::Platform;
use crate::pool::Pool;
use crate::registry::Registry;
use crate::runtime::Runtimes;
use crate::sweep;
use crate::types::Language;

/// After the grace for requests: how long removing what is left may take.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(60);

/// Serves on `listener` until `stop` is cancelled; then everything is wound up: no container of ours is left.
///
/// # Errors
/// When DATA_DIR can't be had, or when something could not be wound up in time.
pub async fn run(config: Config, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    let platform = Arc::new(Platform::open(&config.data_dir, &config.temp_dir_base)?);
    let docker = Docker::default();
    let tasks = TaskTracker::new();
    let (monitor, health) = health::channel(docker.clone());
    let runtimes = Runtimes::new(docker.clone(), config.builds.clone());
    let registry = Arc::new(Registry::default());
    // Cancelled once the grace for requests is over: what still runs then is ended.
    let end = CancellationToken::new();
    let pool = Pool::new(
        docker.clone(),
        Arc::clone(&platform),
        (config.sandbox.clone(), config.pool.clone()),
        tasks.clone(),
        stop.clone(),
    );
    tasks.spawn(pool.clone().run());
    let builder =
        Builder::new(docker.clone(), runtimes, Arc::clone(&platform), config.builds.clone(), tasks.clone(), end.clone());
    let deployer = Deployer::new(
        builder.clone(),
        Arc::clone(&registry),
        pool.clone(),
        Arc::clone(&platform),
        config.builds.max_unpacked_size,
        tasks.clone(),
        end.clone(),
    );
    let invoker = Arc::new(Invoker::new(Arc::clone(&registry), pool, config.pool.clone(), config.sandbox.memory));
    tasks.spawn(monitor.run(end.clone()));
    tasks.spawn(prepare(docker.clone(), Arc::clone(&platform), builder, health.clone(), end.clone()));
    let settings = Arc::new(config.http.clone());
    let state = http::State { invoker, deployer, registry, health, platform: Arc::clone(&platform), settings };
    tracing::info!(address = %listener.local_addr()?, platform.id = %platform.id(), "serving");
    let served = http::serve(listener, http::router(state), &config.http, &stop).await;
    if let Err(error) = &served {
        tracing::warn!(%error, "shutdown");
    }
    end.cancel();
    tasks.close();
    time::timeout(CLEAN_UP_LIMIT, tasks.wait()).await.context("containers or builds could not be ended in time")?;
    sweep::this_run(&docker, &platform).await.context("failed to look for containers left")?;
    tracing::info!("stopped");
    Ok(())
}

/// Once Docker answers: removes what a crashed run of this platform left, then makes the runtime images ahead of need.
async fn prepare(docker: Docker, platform: Arc<Platform>, builder: Builder, mut health: Health, stop: CancellationToken) {
    let work = async {
        health.wait().await;
        // The steps of a build under way look like what an earlier run left.
        let paused = builder.pause().await;
        let swept = async {
            sweep::earlier_runs(&docker, &platform).await?;
            builder.remove_dangling(&paused).await
        };
        if let Err(error) = swept.await {
            tracing::error!(%error, "failed to remove what an earlier run left");
        }
        drop(paused);
        for language in Language::ALL {
            if let Err(error) = builder.prepare(language, &stop).await {
                let error = anyhow::Error::from(error);
                tracing::error!(error = format!("{error:#}"), "submits in this language will fail");
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

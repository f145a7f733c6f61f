//! Builds every part once, and stops all parts in order. No other file sees the whole configuration.

mod reconcile;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::Builder;
use crate::build::runtime::Runtimes;
use crate::config::Config;
use crate::deployments::Deployer;
use crate::docker::Docker;
use crate::docker::health::{self, Health};
use crate::docker::platform::Platform;
use crate::docker::retry::Retries;
use crate::domain::Language;
use crate::functions::images::Images;
use crate::functions::{Function, Registry};
use crate::http;
use crate::invocations::history::History;
use crate::invocations::invoke::Invoker;
use crate::invocations::live::RunningInvocations;
use crate::invocations::queue::InvocationQueue;
use crate::resources::budget::Budget;
use crate::resources::disk::DiskSpace;
use crate::resources::scratch::Scratch;
use crate::sandbox::isolation::Isolation;
use crate::sandbox::pool::Pool;
use crate::store::Store;
use crate::telemetry::metrics;
use reconcile::ReconcileError;

/// The memory for all request bodies and waiting inputs together, in bytes.
const MAX_REQUESTS: u64 = 256 << 20;

/// The time limit for the removal of containers and files, after the grace for requests.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(60);

/// The time limit for the removal of deleted functions' images, at the end.
const REMOVAL_LIMIT: Duration = Duration::from_secs(20);

/// The wait at the start for the first reconciliation. A longer reconciliation goes on in the background.
const RECONCILE_LIMIT: Duration = Duration::from_secs(10);
/// The time limit for the check of the isolation, where REQUIRE_ISOLATION is set: for Docker's answer, the runtime
/// images and a look into a container of each.
const TROUBLE_LIMIT: Duration = Duration::from_secs(10);
const CHECK_LIMIT: Duration = Duration::from_secs(40 * 60);

/// A build goes on for a while when the service is killed: the build's leftovers come late.
const RECONCILE_AGAIN: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(30)];
/// An operator may prune images at any time.
const RECONCILE_PERIOD: Duration = Duration::from_secs(10 * 60);

/// Serves on `listener` until the cancellation of `stop`, and then removes all containers of this run.
///
/// # Errors
/// DATA_DIR can't be used, or the end takes too long.
pub async fn run(config: Config, listener: TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
    metrics::start();
    let (data_dir, temp_dir_base) = (config.data_dir.clone(), config.temp_dir_base.clone());
    let platform = Arc::new(tokio::task::spawn_blocking(move || Platform::open(&data_dir, &temp_dir_base)).await??);
    let store = Store::open(&config.data_dir).await?;
    let registry = Arc::new(Registry::default());
    for record in store.functions().await? {
        registry.insert(Function::from(record));
    }
    let (monitor, health) = health::channel();
    let docker = Docker::new(health.clone());
    let tasks = TaskTracker::new();
    let scratch = Scratch::new(platform.temp_dir().to_owned(), tasks.clone());
    let runtimes = Runtimes::new(docker.clone(), config.builds.clone(), config.uids, scratch.clone());
    // Cancelled at the end of the grace for requests: invocations that still run are ended.
    let end = CancellationToken::new();
    let limits = (config.sandbox.clone(), config.pool.clone(), config.uids, config.functions.preload);
    let pool = Pool::new(docker.clone(), Arc::clone(&platform), limits, tasks.clone(), stop.clone());
    let builder = Builder::new(
        docker.clone(),
        runtimes,
        Arc::clone(&platform),
        config.builds.clone(),
        scratch.clone(),
        tasks.clone(),
        end.clone(),
    );
    let room = DiskSpace::new(Arc::clone(&platform), config.builds.min_free_disk);
    let images = Images::new(
        builder.clone(),
        Arc::clone(&registry),
        store.clone(),
        (scratch.clone(), Arc::clone(&room)),
        config.builds.clone(),
        tasks.clone(),
        end.clone(),
    );
    let checked = (config.sandbox.clone(), config.uids.of_check());
    let isolation = Isolation::new(docker.clone(), Arc::clone(&platform), checked, tasks.clone(), end.clone());
    if config.builds.buildkit {
        isolation.note(
            "builds",
            vec!["BuildKit (DOCKER_BUILDKIT=1) takes no limits of memory and processor time".to_owned()],
        );
    }
    if config.builds.allow_source_builds && !config.builds.environment.is_empty() {
        let names: Vec<&str> = config.builds.environment.iter().map(|(name, _)| name.as_str()).collect();
        tracing::warn!(
            variables = names.join(", "),
            "PYTHON_ALLOW_SOURCE_BUILDS is true: code of packages that are built from source sees the variables of \
             BUILD_ENV"
        );
    }
    let history = History::new(Arc::clone(&registry), store.clone(), config.history.clone());
    let live = Arc::new(RunningInvocations::default());
    let invoker = Arc::new(Invoker::new(
        Arc::clone(&registry),
        Arc::clone(&images),
        pool.clone(),
        (Arc::clone(&history), Arc::clone(&live)),
        config.pool.clone(),
        config.sandbox.memory,
    ));
    let deployer = Deployer::new(
        (
            Arc::clone(&images),
            Arc::clone(&invoker),
            Arc::clone(&registry),
            store.clone(),
            pool.clone(),
            Arc::clone(&room),
        ),
        config.functions.clone(),
        tasks.clone(),
        end.clone(),
    );
    let deferred = InvocationQueue::new(
        (
            Arc::clone(&registry),
            Arc::clone(&invoker),
            Arc::clone(&history),
            store.clone(),
            Arc::clone(&room),
            health.clone(),
        ),
        (config.pool.async_queue_limit, config.pool.container_limit),
        tasks.clone(),
        (stop.clone(), end.clone()),
    );
    deferred.resume().await?;
    let preparation = Preparation {
        docker: docker.clone(),
        platform: Arc::clone(&platform),
        registry: Arc::clone(&registry),
        store: store.clone(),
        builder,
        images: Arc::clone(&images),
        room,
        isolation: Arc::clone(&isolation),
        reconciled: CancellationToken::new(),
        checked: CancellationToken::new(),
    };
    let (reconciled, checked) = (preparation.reconciled.clone(), preparation.checked.clone());
    tasks.spawn(pool.clone().run());
    let (asking, asked_until) = (docker.clone(), end.clone());
    tasks.spawn(async move { asking.watch(monitor, asked_until).await });
    tasks.spawn(preparation.run(health.clone(), end.clone()));
    tokio::select! {
        () = reconciled.cancelled() => {}
        // Requests do not wait for a Docker that does not answer. The work is done when Docker answers again.
        () = health.clone().in_trouble() => {}
        () = time::sleep(RECONCILE_LIMIT) => tracing::warn!("Docker is slow: serving before what an earlier run left \
                                                             is removed"),
        () = stop.cancelled() => {}
    }
    let refusal =
        if config.sandbox.required { incomplete(&isolation, checked, health.clone(), &stop).await } else { None };
    // The history outlives all invocations.
    let ended = CancellationToken::new();
    let keeper = tokio::spawn(Arc::clone(&history).run(ended.clone()));
    let http = Arc::new(config.http.clone());
    let state = http::State {
        pool: pool.clone(),
        invoker,
        deferred: Arc::clone(&deferred),
        history,
        live,
        deployer,
        registry,
        health,
        isolation,
        scratch,
        budget: Budget::new(MAX_REQUESTS.max(2 * config.http.max_file_size)),
        config: http,
        preload: config.functions.preload,
        stop: stop.clone(),
    };
    if !config.http.host.is_loopback() && config.http.api_token.is_none() {
        tracing::warn!(
            address = %config.http.host,
            "ANYONE WHO REACHES THIS ADDRESS CAN RUN CODE HERE AND DELETE FUNCTIONS: set API_TOKEN, or SERVER_HOST to \
             127.0.0.1"
        );
    }
    if refusal.is_none() {
        tasks.spawn(Arc::clone(&deferred).run());
        tracing::info!(address = %listener.local_addr()?, platform.id = %platform.id(), "serving");
        let served = http::serve(listener, http::router(state), &config.http, &stop);
        // Background invocations have the same grace as invocations that a client waits for.
        let deferred = async {
            stop.cancelled().await;
            time::timeout(config.http.shutdown_timeout, deferred.idle()).await
        };
        let (served, deferred) = tokio::join!(served, deferred);
        if let Err(error) = served {
            tracing::warn!(%error, "shutdown");
        }
        if deferred.is_err() {
            tracing::warn!("asynchronous executions still ran and are lost");
        }
    }
    // Upkeep and monitors end with this cancellation.
    stop.cancel();
    end.cancel();
    tasks.close();
    let wound_up = time::timeout(CLEAN_UP_LIMIT, tasks.wait()).await;
    ended.cancel();
    keeper.await.context("the keeper of the history died")?;
    store.close().await;
    // The service has served no request, so leftovers may wait for the next start.
    refusal.map_or(Ok(()), |refusal| Err(anyhow::anyhow!(refusal)))?;
    time::timeout(REMOVAL_LIMIT, images.finish_removals()).await.unwrap_or(());
    wound_up.context("containers or builds could not be ended in time")?;
    reconcile::at_end(&docker, &platform).await.context("failed to look for containers left")?;
    tracing::info!("stopped");
    Ok(())
}

/// The reason why the service must not serve, where REQUIRE_ISOLATION is set. Waits for the check; meanwhile no request
/// is served.
async fn incomplete(
    isolation: &Isolation,
    checked: CancellationToken,
    health: Health,
    stop: &CancellationToken,
) -> Option<String> {
    tracing::info!("REQUIRE_ISOLATION: serving once it was looked whether isolation is complete");
    let in_lasting_trouble = async {
        loop {
            health.clone().in_trouble().await;
            // Docker's answer may come late while a runtime image is built.
            time::sleep(TROUBLE_LIMIT).await;
            if health.trouble().is_some() {
                return;
            }
        }
    };
    tokio::select! {
        () = checked.cancelled() => {}
        () = in_lasting_trouble => return Some("REQUIRE_ISOLATION is true, but Docker does not answer".to_owned()),
        () = time::sleep(CHECK_LIMIT) => return Some("REQUIRE_ISOLATION is true, but it could not be checked in \
                                                      time".to_owned()),
        () = stop.cancelled() => return None,
    }
    let missing = isolation.missing();
    (!missing.is_empty())
        .then(|| format!("REQUIRE_ISOLATION is true, but isolation is not complete: {}", missing.join("; ")))
}

/// The work that is done as soon as Docker answers.
struct Preparation {
    docker: Docker,
    platform: Arc<Platform>,
    registry: Arc<Registry>,
    store: Store,
    builder: Builder,
    images: Arc<Images>,
    room: Arc<DiskSpace>,
    isolation: Arc<Isolation>,
    /// Cancelled when Docker and the registry agree.
    reconciled: CancellationToken,
    /// Cancelled after the check of the isolation.
    checked: CancellationToken,
}

impl Preparation {
    async fn run(self, health: Health, stop: CancellationToken) {
        tokio::select! {
            () = self.prepare(&health, &stop) => {}
            () = stop.cancelled() => {}
        }
    }

    /// Reconciles, builds the runtime images ahead of need, and reconciles again from time to time.
    async fn prepare(&self, health: &Health, stop: &CancellationToken) {
        let retries = Retries::new("what earlier runs left in Docker can't be looked for", health.clone());
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
        self.check(&mut unchecked, stop).await;
        self.checked.cancel();
        let mut pauses = RECONCILE_AGAIN.into_iter();
        loop {
            if let Err(error) = self.builder.remove_old_runtimes().await {
                tracing::warn!(%error, "failed to look for old runtime images, trying again later");
            }
            time::sleep(pauses.next().unwrap_or(RECONCILE_PERIOD)).await;
            health.wait().await;
            if let Err(error) = self.reconcile().await {
                tracing::error!(error = %chain(error), "failed to look for what earlier runs left in Docker, trying \
                                                        again later");
            }
            self.check(&mut unchecked, stop).await;
        }
    }

    /// Builds runtime images ahead of need, and looks into a container of each. A language without a look stays in
    /// `unchecked`.
    async fn check(&self, unchecked: &mut Vec<Language>, stop: &CancellationToken) {
        for language in std::mem::take(unchecked) {
            let checked = match self.builder.prepare(language, stop).await {
                Ok(image) => self.isolation.check(language, image).await.map_err(chain),
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
        reconcile::run(&self.docker, &self.platform, &self.registry, &self.store, &self.builder).await
    }
}

fn chain(error: impl Into<anyhow::Error>) -> String {
    format!("{:#}", error.into())
}

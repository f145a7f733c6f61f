//! Builds every part of the service once, and hands each part what the part needs.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::preparation::Preparation;
use super::{Service, risks};
use crate::build::Builder;
use crate::build::runtime::Runtimes;
use crate::config::Config;
use crate::deployments::Deployer;
use crate::docker::Docker;
use crate::docker::health::Health;
use crate::docker::platform::Platform;
use crate::functions::Registry;
use crate::functions::images::Images;
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

/// The memory for all request bodies and waiting inputs together, in bytes.
const MAX_REQUESTS: u64 = 256 << 20;

impl Service {
    /// Builds all parts. Invocations that an earlier run has accepted are in the queue after that.
    ///
    /// # Errors
    /// DATA_DIR can't be used.
    pub(super) async fn compose(config: Config, health: Health, stop: CancellationToken) -> anyhow::Result<Self> {
        let (data_dir, temp_dir_base) = (config.data_dir.clone(), config.temp_dir_base.clone());
        let platform = Arc::new(tokio::task::spawn_blocking(move || Platform::open(&data_dir, &temp_dir_base)).await??);
        let store = Store::open(&config.data_dir).await?;
        let registry = Arc::new(Registry::default());
        for record in store.functions().await? {
            registry.insert(record.into());
        }
        let docker = Docker::new(health.clone());
        let tasks = TaskTracker::new();
        let scratch = Scratch::new(platform.temp_dir().to_owned(), tasks.clone());
        let runtimes = Runtimes::new(docker.clone(), config.builds.clone(), config.uids, scratch.clone());
        let end = CancellationToken::new();
        let limits = (config.sandbox.clone(), config.pool.clone(), config.uids);
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
        risks::note_builds(&config.builds, &isolation);
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
            health: health.clone(),
            stop: end.clone(),
            reconciled: CancellationToken::new(),
            checked: CancellationToken::new(),
        };
        let state = http::State {
            pool,
            invoker,
            deferred,
            history,
            live,
            deployer,
            registry,
            health,
            isolation,
            scratch,
            budget: Budget::new(MAX_REQUESTS.max(2 * config.http.max_file_size)),
            config: Arc::new(config.http),
            stop: stop.clone(),
        };
        Ok(Self {
            docker,
            platform,
            store,
            images,
            preparation,
            requires_isolation: config.sandbox.required,
            state,
            tasks,
            stop,
            end,
            ended: CancellationToken::new(),
        })
    }
}

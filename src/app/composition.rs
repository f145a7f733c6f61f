//! Builds every part of the service once, and hands each part what the part needs.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::preparation::Preparation;
use super::{Service, risks};
use crate::build::runtime_image::Runtimes;
use crate::build::{Builder, BuilderParts};
use crate::config::{self, Config};
use crate::deployments::{Deployer, DeployerParts, Networks};
use crate::docker::Docker;
use crate::docker::health::Health;
use crate::docker::platform::Platform;
use crate::egress::{self, Egress, Forbidden, Server};
use crate::functions::images::{Images, ImagesParts};
use crate::functions::trees::{Trees, TreesParts};
use crate::functions::{Function, Registry};
use crate::http;
use crate::invocations::history::History;
use crate::invocations::invoke::{Invoker, InvokerParts};
use crate::invocations::live::RunningInvocations;
use crate::invocations::queue::{InvocationQueue, QueueParts};
use crate::nodes::{Membership, Peers};
use crate::notifications::Notifier;
use crate::resources::budget::Budget;
use crate::resources::clock::Moment;
use crate::resources::disk::DiskSpace;
use crate::resources::scratch::Scratch;
use crate::sandbox::isolation::{Isolation, IsolationParts};
use crate::sandbox::pool::{Pool, PoolParts};
use crate::sandbox::transport::Transport;
use crate::schedules::{Scheduler, Schedules};
use crate::store::Store;
use crate::tokens::Tokens;

/// The memory for all request bodies and waiting inputs together, in bytes.
const MAX_REQUESTS: u64 = 256 << 20;

impl Service {
    /// Builds all parts. Invocations that an earlier run has accepted are in the queue after that. `ports` are those on
    /// which the service listens.
    ///
    /// # Errors
    /// DATA_DIR can't be used.
    pub(super) async fn compose(
        config: Config,
        health: Health,
        leaving: CancellationToken,
        ports: Vec<u16>,
    ) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let functions_port = ports.get(1).copied();
        let (data_dir, temp_dir_base) = (config.data_dir.clone(), config.temp_dir_base.clone());
        let platform = Arc::new(tokio::task::spawn_blocking(move || Platform::open(&data_dir, &temp_dir_base)).await??);
        let store = Store::open(&config.store, &config.data_dir).await?;
        let registry = Arc::new(Registry::default());
        let id = platform.id().to_string();
        let nodes = Membership::join(store.clone(), id, config.node.url.clone(), platform.data_dir()).await?;
        let nodes = Arc::new(nodes);
        risks::warn_about_nodes(&config, nodes.is_shared());
        let token = config.node.token.filter(|token| config.http.api_token.as_ref() != Some(token));
        let peers = Arc::new(Peers::new(store.clone(), token));
        let began = Moment::now();
        let all = store.changes(None).await?;
        for record in all.changed {
            registry.insert(Function::from(record));
        }
        // No change waits for this node from now on.
        nodes.renew(began, all.last, 0, false).await?;
        let docker = Docker::new(health.clone());
        let tasks = TaskTracker::new();
        let api_token = config.http.api_token.clone();
        let of_clients = all.tokens.unwrap_or_default();
        let tokens = Tokens::new(store.clone(), Arc::clone(&nodes), api_token, of_clients, tasks.clone());
        risks::warn_about_tokens(&tokens);
        let scratch = Scratch::new(platform.temp_dir().to_owned(), tasks.clone());
        let runtimes =
            Runtimes::new(docker.clone(), config.builds.clone(), config.uids, scratch.clone(), store.clone());
        let end = CancellationToken::new();
        let preload = config.functions.preload;
        let transport = Arc::new(Transport::new(scratch.clone(), config.pool.wants_pipes));
        let room = DiskSpace::new(Arc::clone(&platform), config.builds.min_free_disk);
        let trees = Trees::open(TreesParts {
            docker: docker.clone(),
            platform: Arc::clone(&platform),
            registry: Arc::clone(&registry),
            scratch: scratch.clone(),
            room: Arc::clone(&room),
            budget: config.pool.slot_cache,
            tasks: tasks.clone(),
            stop: end.clone(),
        })
        .await?;
        let egress = Egress::new(&config.egress, forbidden(ports, &store, &config.builds, &nodes));
        let notifications = Notifier::new(store.clone(), egress.clone(), Arc::clone(&nodes));
        let connections = egress::connections_of_each(&config.egress, config.pool.container_limit);
        let network = config::Egress { connections, ..config.egress.clone() };
        let pool = Pool::new(PoolParts {
            docker: docker.clone(),
            platform: Arc::clone(&platform),
            transport: Arc::clone(&transport),
            trees: Arc::clone(&trees),
            scratch: scratch.clone(),
            sandbox: config.sandbox.clone(),
            network,
            egress,
            limits: config.pool.clone(),
            uids: config.uids,
            preload,
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let builder = Builder::new(BuilderParts {
            docker: docker.clone(),
            runtimes,
            platform: Arc::clone(&platform),
            config: config.builds.clone(),
            scratch: scratch.clone(),
            tasks: tasks.clone(),
            stop: end.clone(),
        });
        let images = Images::new(ImagesParts {
            builder: builder.clone(),
            registry: Arc::clone(&registry),
            store: store.clone(),
            scratch: scratch.clone(),
            trees,
            room: Arc::clone(&room),
            settings: config.builds.clone(),
            tasks: tasks.clone(),
            stop: end.clone(),
        });
        let isolation = Isolation::new(IsolationParts {
            docker: docker.clone(),
            platform: Arc::clone(&platform),
            sandbox: config.sandbox.clone(),
            uid: config.uids.of_check(),
            transport: Arc::clone(&transport),
            scratch: scratch.clone(),
            tasks: tasks.clone(),
            stop: end.clone(),
        });
        risks::note_builds(&config.builds, &isolation);
        let history = History::new(Arc::clone(&registry), store.clone(), config.history.clone());
        let live = Arc::new(RunningInvocations::default());
        let invoker = Arc::new(Invoker::new(InvokerParts {
            registry: Arc::clone(&registry),
            images: Arc::clone(&images),
            pool: pool.clone(),
            history: Arc::clone(&history),
            live: Arc::clone(&live),
            nodes: Arc::clone(&nodes),
            limits: config.pool.clone(),
            memory_limit: config.sandbox.memory,
        }));
        let deferred = InvocationQueue::new(QueueParts {
            registry: Arc::clone(&registry),
            invoker: Arc::clone(&invoker),
            history: Arc::clone(&history),
            store: store.clone(),
            room: Arc::clone(&room),
            health: health.clone(),
            max_waiting: config.pool.async_queue_limit,
            max_running: config.pool.container_limit,
            tasks: tasks.clone(),
            stop: stop.clone(),
            end: end.clone(),
        });
        let scheduler = Scheduler::new(store.clone(), Arc::clone(&deferred), Arc::clone(&nodes), health.clone());
        let deployer = Deployer::new(DeployerParts {
            images: Arc::clone(&images),
            invoker: Arc::clone(&invoker),
            queue: Arc::clone(&deferred),
            registry: Arc::clone(&registry),
            store: store.clone(),
            pool: pool.clone(),
            room: Arc::clone(&room),
            limits: config.functions,
            network: Networks { allow: config.egress.allow, transport: Arc::clone(&transport) },
            nodes: Arc::clone(&nodes),
            scheduler: Arc::clone(&scheduler),
            tasks: tasks.clone(),
            stop: end.clone(),
        });
        deferred.adopt(true, false).await?;
        let (disk, containers) = (Arc::clone(&room), config.pool.container_limit);
        let (known, queue) = (Arc::clone(&registry), Arc::clone(&deferred));
        let schedules = Schedules::new(store.clone(), known, queue, Arc::clone(&scheduler));
        let preparation = Preparation {
            docker: docker.clone(),
            platform: Arc::clone(&platform),
            registry: Arc::clone(&registry),
            store: store.clone(),
            builder,
            images: Arc::clone(&images),
            room,
            isolation: Arc::clone(&isolation),
            pool: pool.clone(),
            health: health.clone(),
            stop: end.clone(),
            reconciled: CancellationToken::new(),
            checked: CancellationToken::new(),
        };
        let state = Arc::new(http::Api {
            pool,
            invoker,
            deferred,
            history,
            live,
            deployer,
            schedules: Arc::new(schedules),
            nodes,
            tokens,
            peers,
            notifications,
            registry,
            health,
            isolation,
            transport,
            scratch,
            disks: Arc::clone(&disk),
            containers,
            functions_port,
            functions_domain: config.http_functions.domain.clone(),
            budget: Budget::new(MAX_REQUESTS.max(2 * config.http.max_file_size)),
            config: Arc::new(config.http),
            preload,
            leaving,
            stop: stop.clone(),
        });
        let gateway = http::Gateway {
            state: Arc::clone(&state),
            config: Arc::new(config.http_functions),
            room: disk,
            tasks: tasks.clone(),
        };
        Ok(Self {
            gateway,
            docker,
            platform,
            store,
            images,
            preparation,
            scheduler,
            requires_isolation: config.sandbox.required,
            state,
            tasks,
            stop,
            end,
            ended: CancellationToken::new(),
        })
    }
}

/// What no function reaches, whatever the operator allows.
fn forbidden(ports: Vec<u16>, store: &Store, builds: &config::Builds, nodes: &Membership) -> Forbidden {
    let server = |kind, (host, port)| Server { kind, host, port };
    let database = store.server().map(|place| server("the database of STORE_URL", place));
    let registry = builds.registry().into_iter().map(|place| server("the registry of DOCKER_IMAGE_PREFIX", place));
    Forbidden { ports, servers: database.into_iter().chain(registry).collect(), nodes: nodes.urls() }
}

//! YouTube Serverless Platform: post a zip with Python or Go code, it becomes a container image and runs on demand over HTTP.
//!
//! # Map
//! A submit goes through [`http`] (multipart to a temp file) to [`deploy`]: [`package`] unpacks and checks the zip and finds
//! out what to run, [`builder`] makes the image on top of the language's [`runtime`] image, [`registry`] lists the function.
//!
//! An execution goes through [`http`] (JSON) to [`invoke`]: [`registry`] knows the function, [`pool`] leases an
//! [`instance`], which is a container with a bootstrap (`src/runtimes`) in it; request and reply cross its stdin and stdout
//! by [`protocol`]; what came back, and what Docker knows, decides the outcome. The bootstrap runs the function in a fresh
//! process, cleans up after it and says so: then the instance goes back to the pool.
//!
//! [`docker`] is the one way to Docker, [`platform`] says which containers and images are ours, [`sweep`] removes what
//! crashed runs left, [`health`] asks Docker in the background, [`app`] builds all of it once and stops it in order.
//!
//! # Direction
//! `main → app → http → deploy, invoke → builder, pool, registry, package, sweep, health → instance, runtime, platform →
//! docker, protocol → types, config`. Never upward; a test reads the source for it.
//!
//! # Invariants
//! - A container exists only while its [`instance::Slot`] is held: the slot is given back after `docker rm`, not before. So
//!   no more containers than DOCKER_CONTAINER_LIMIT exist, whatever happens to clients.
//! - Dropping an instance, in any state, removes its container. A client that leaves drops the handler's future and with it
//!   the instance; a caller that is still in the queue starts no container.
//! - After a timeout the answer leaves when the container is gone. Killing the docker *client* never stops a container.
//! - An instance runs one invocation at a time, each in a process of its own. It is used again only after its bootstrap
//!   has killed all other processes, emptied what can be written and said so, under the invocation's nonce; whatever else
//!   it says, or if it says nothing in time, ends it.
//! - A build runs in a task of its own: when its client leaves it is cancelled, and then cleans up after itself.
//! - Every docker command has a deadline and is killed with its process group; its output is drained and capped.
//! - All that is made in Docker bears the platform's label, from a build's first step on; all temp files are in the
//!   platform's own folder. What a crash leaves of either is found by that at the next start. One process has DATA_DIR.
//! - Values of input stand on no command line and in no container's configuration.
//! - Nothing of a zip but its own files gets into a build's context, and there only below `app/`.
//!
//! # Tasks
//! ```text
//! app::run ── http::serve ── one task per connection (JoinSet; cut at the end of the grace)
//!    └─ TaskTracker: health monitor · pool upkeep · preparation at the start · deployments · starts and removals of
//!                    containers · instances between two invocations · removals of images
//! ```
//! At a stop: no more connections → requests under way have SERVER_SHUTDOWN_TIMEOUT → what is left is cancelled, which ends
//! builds and removes containers → the tracker is awaited → a last look for containers of this run.

pub mod app;
pub mod builder;
pub mod config;
pub mod deploy;
pub mod docker;
pub mod health;
pub mod http;
pub mod instance;
pub mod invoke;
pub mod package;
pub mod platform;
pub mod pool;
pub mod protocol;
pub mod registry;
pub mod runtime;
pub mod sweep;
pub mod telemetry;
pub mod types;

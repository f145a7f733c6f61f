//! YouTube Serverless Platform: post a zip with Python or Go code, it becomes a container image and runs on demand over HTTP.
//!
//! # Map
//! A submit goes through [`http`] (multipart to a temp file) to [`deploy`]: [`package`] unpacks and checks the zip and finds
//! out what to run and what that needs, [`builder`] fetches packages and makes the image on top of the language's [`runtime`] image, [`store`] writes the function down
//! with its zip, and [`registry`] lists it. [`images`] are a cache: one that is gone is made again from the zip. A function is one
//! immutable state; an update, a rollback or other [`settings`] make the next, which takes its place when it is ready.
//!
//! An execution goes through [`http`] (JSON) to [`invoke`]: [`registry`] knows the function, [`pool`] leases an
//! [`instance`], which is a container with a bootstrap (`src/runtimes`) in it; request and reply cross its stdin and stdout
//! by [`protocol`]; what came back, and what Docker knows, decides the outcome. The bootstrap runs the function in a fresh
//! process, cleans up after it and says so: then the instance goes back to the pool.
//!
//! [`cli`] is a client of that API, and the way to start the service.
//!
//! One that nobody waits for, or that has an `Idempotency-Key`, is on disk first: [`deferred`] accepts, runs and cancels it.
//! Whose fault a failure is, and whether waiting helps, is [`failure`]'s to say; what is tried again pauses by [`retry`].
//!
//! What an invocation writes goes to its [`output`], where [`live`] has others look on.
//!
//! [`docker`] is the one way to Docker, [`platform`] says which containers and images are ours, [`reconcile`] removes what
//! crashed runs left and notes what is gone, [`history`] writes down what invocations came to, [`metrics`] counts them, [`disk`] and [`room`] say when
//! there is no room, [`scratch`] has the files and folders that live for a while, [`budget`] bounds what requests hold in memory, [`health`] knows whether Docker answers,
//! [`failure`] says whose fault a failure is, [`retry`] has the pauses between tries, [`isolation`] looks from inside a container whether Docker gives what it
//! is asked for, [`app`] builds all of it once and stops it in order.
//!
//! # Direction
//! `main → app → http → deferred → deploy, invoke → images, reconcile, history, failure → builder, pool, registry, package, isolation, live
//! → instance, room, runtime → platform, store → docker, protocol, disk, output, scratch → retry → health → settings → types, config, metrics, budget`. Never upward; a test reads the source for it.
//!
//! # Invariants
//! - A container exists only while its [`instance::Slot`] is held: the slot is given back after `docker rm`, not before. So
//!   no more containers than DOCKER_CONTAINER_LIMIT exist, whatever happens to clients; beside them one at a time at the
//!   start, which [`isolation`] looks into.
//! - A container's user is no other container's while its slot is held: the kernel counts much by user.
//! - What a container writes is read until it is removed, or our end of its pipe is closed: Docker does not end a container
//!   while that has nowhere to go.
//! - Dropping an instance, in any state, removes its container. A client that leaves drops the handler's future and with it
//!   the instance; a caller that is still in the queue starts no container.
//! - After a timeout the answer leaves when the container is gone; when Docker does not remove it in time, it says `lost`.
//!   Killing the docker *client* never stops a container.
//! - An instance runs one invocation at a time, each in a process of its own. It is used again only after its bootstrap
//!   has killed all other processes, found itself as it began (its limits and priorities are every later process's), emptied what can be written and said so, under the invocation's nonce; whatever else
//!   it says, or if it says nothing in time, ends it.
//! - Nothing of a zip is unpacked before its build has its turn, and the turn ends when what was unpacked is gone. So no more than
//!   MAX_CONCURRENT_BUILDS contents are on disk; what waits has its zip there, and BUILD_QUEUE_LIMIT and DOCKER_BUILD_TIMEOUT bound that.
//! - A removal waits for no build, and no build for a removal. An image's last step goes at once, as no other build comes upon it; the
//!   steps below go in a moment without builds.
//! - A request's body and the input in it count in one budget until an invocation or the store has taken the input.
//! - A build runs in a task of its own: when its client leaves it is cancelled, and then cleans up after itself. With a key it goes on.
//! - Every docker command has a deadline and is killed with its process group; its output is drained and capped.
//! - All that is made in Docker bears the platform's label, from a build's first step on; all temp files are in the
//!   platform's own folder. What a crash leaves of either is found by that at the next start. One process has DATA_DIR.
//! - What a submit has answered 200 to is on disk, and what a delete has answered 200 to is gone from there: the store is
//!   written and synced first, the registry after it. An image or container that no row owns is removed at the next start.
//! - What takes a function's place is built, warm and on disk before; then it is in the registry, and only then the one before is
//!   retired. Who waits for an instance of that looks again. So no request fails, and none runs old code after the answer.
//! - The images of a function's version and of the one before are kept; what else there was is removed, unless it is made again first.
//! - A secret is in memory, in the store and in a function's environment, and nowhere else.
//! - An asynchronous invocation is `queued`, `running`, ended: each on disk before it has an effect, and only from the one
//!   before. So none that was accepted is forgotten, and none runs twice.
//! - No accepted invocation is given up for a fault of the platform, nor are its tries forgotten with the process.
//! - Nothing is tried again while Docker is known to be away: neither invocations in the background nor removals.
//! - The key of a submit or an update holds the answer to it; such a request goes on when its client leaves.
//! - Every other invocation is noted once, when it ends or its client leaves, and is on disk half a second later.
//! - Values of input stand on no command line and in no container's configuration.
//! - Nothing of a zip but its own files gets into a build's context, and there only below `app/`; beside that there may be a
//!   link to the code, by the name of the zip's top folder where that is an identifier.
//! - A build runs no code of the zip or of what it names, unless PYTHON_ALLOW_SOURCE_BUILDS says so.
//! - A connection is closed by its own side first, and what the client still sends is read for a while: so an answer that leaves early
//!   arrives. What is written while no request is open is a refusal of the HTTP parser, and leaves as a problem.
//! - Only download containers and builds of runtime images have a network. A download container gets requirements and the values
//!   of BUILD_ENV by its stdin, and nothing else; what comes out is checked like an archive. No build that has such a value has
//!   anything else worth having.
//!
//! # Tasks
//! ```text
//! app::run ── http::serve ── one task per connection (JoinSet; cut at the end of the grace)
//!    └─ TaskTracker: health monitor · pool upkeep · preparation at the start · looks at the isolation · deployments, updates and rollbacks ·
//!                    deletions · images made again, evicted and removed · starts and removals of containers ·
//!                    instances being cleaned up · asynchronous executions
//!    └─ history::History::keep, until all others have ended
//! ```
//! At a stop: no more connections → requests under way have SERVER_SHUTDOWN_TIMEOUT → what is left is cancelled, which ends
//! builds and removes containers → the tracker is awaited → a last look for containers of this run → the store is closed.
//!
//! # Threads
//! - One thread runs all tasks. A task does nothing on it that waits for a disk: the longest that it holds the thread for is the reading
//!   of a JSON text of a mebibyte, or the copy of a zip on its way to or from the database.
//! - Blocking threads, up to 32, each of which ends when there was nothing to do for 10 s: making, filling, hashing, unpacking and removing what is in
//!   the temp folder ([`scratch`], [`images`], [`deploy`]), uploads' writes, build contexts, looks at disks ([`room`]), and DATA_DIR's lock at the
//!   start. The tracker of tasks knows removals, so that a stop waits for them.
//! - SQLite has a thread of its own, where it reads, writes and syncs; tasks only send it statements ([`store`]).
//! - The exporter of traces has one, too ([`telemetry`]).

pub mod app;
pub mod budget;
pub mod builder;
pub mod cli;
pub mod config;
pub mod deferred;
pub mod deploy;
pub mod disk;
pub mod docker;
pub mod failure;
pub mod health;
pub mod history;
pub mod http;
pub mod images;
pub mod instance;
pub mod invoke;
pub mod isolation;
pub mod live;
pub mod metrics;
pub mod output;
pub mod package;
pub mod platform;
pub mod pool;
pub mod protocol;
pub mod reconcile;
pub mod registry;
pub mod retry;
pub mod room;
pub mod runtime;
pub mod scratch;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod types;

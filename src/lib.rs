//! YouTube Serverless Platform: a client posts a zip with Python or Go code, the zip becomes a container image, and the
//! function runs on demand over HTTP.
//!
//! # Map
//! - [`app`]: builds all parts once, starts them, and stops them in order.
//! - [`http`]: routes, bodies and problems. [`cli`]: the command line, which is a client of that API.
//! - [`deployments`]: submit, update, rollback and deletion of a function.
//! - [`schedules`]: the times at which functions run by themselves.
//! - [`invocations`]: an invocation from a request, or from the queue, to its record in the history.
//! - [`sandbox`]: instances, their pool and their protocol.
//! - [`functions`]: functions and versions in memory, and the cache of their images.
//! - [`build`]: from a zip to an image.
//! - [`notifications`]: the ends of invocations, told to the receivers that functions name.
//! - [`egress`]: what functions may reach, and the connections to there.
//! - [`tokens`]: the tokens of clients, and what each token lets its holder do.
//! - [`nodes`]: this node among the nodes that share a store.
//! - [`store`]: functions, zips and invocations on disk.
//! - [`resources`]: disks, temporary files, and memory for what clients send.
//! - [`docker`]: the one way to Docker.
//! - [`telemetry`]: log lines, metrics and traces.
//! - [`runtimes`]: what goes into images: the bootstraps, and the programs that download packages.
//! - [`domain`]: the platform's words as types. [`config`]: the operator's configuration.
//!
//! `docs/architecture.md` has the direction of imports, a submit and an execution step by step, the invariants, the
//! tasks and the threads.

pub mod app;
pub mod build;
pub mod cli;
pub mod config;
pub mod deployments;
pub mod docker;
pub mod domain;
pub mod egress;
pub mod functions;
pub mod http;
pub mod invocations;
pub mod nodes;
pub mod notifications;
pub mod resources;
pub mod runtimes;
pub mod sandbox;
pub mod schedules;
pub mod starters;
pub mod store;
pub mod telemetry;
pub mod tokens;

//! Tests of the whole service: real HTTP, real zips, a real Docker engine. `make test` prepares both.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may fail, and runs real commands"
)]

mod api;
mod app;
mod browser;
mod builds;
mod cgi;
mod circles;
mod cli;
mod clock;
mod conformance;
mod console;
mod console_tour;
mod console_triggers;
mod console_views;
mod crash;
mod dependencies;
mod docs;
mod doors;
mod durability;
mod engine;
mod faults;
mod followers;
mod forwarding;
mod held;
mod idle;
mod image_registry;
mod input;
mod invocations;
mod isolation;
mod keys;
mod layouts;
mod leftovers;
mod lifecycle;
mod lost_nodes;
mod manifests;
mod metrics;
mod network_settings;
mod nodes;
mod notifications;
mod outages;
mod outcomes;
mod output;
mod overview;
mod packages;
mod peers;
mod pool;
mod preload;
mod queue;
mod registry;
mod rehearsal;
mod runtimes;
mod sandbox;
mod schedules;
mod service;
mod slot_faults;
mod slots;
mod starters;
mod stored;
#[path = "../support/mod.rs"]
mod support;
mod tidy;
mod token_cli;
mod token_limits;
mod token_nodes;
mod tokens;
mod traces;
mod transport;
mod turns;
mod twins;
mod uploads;
mod vanished_postgres;
mod versions;
mod warmth;

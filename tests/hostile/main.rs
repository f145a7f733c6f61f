//! Attacks, and what they come to. Each file is one side that they come from.
//!
//! One at a time, and apart from the other tests: what an attack does to its neighbours is measured.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may fail, and runs real commands"
)]

mod archives;
mod builds;
mod clients;
mod early;
mod escapes;
mod functions;
mod inheritance;
mod load;
mod packages;
mod protocol;
mod schema;
mod service;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
mod users;

use tokio::sync::{Mutex, MutexGuard};

/// While it is held, no other attack goes on.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

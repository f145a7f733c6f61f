//! Attacks and their ends. Each file has the attacks of one side.
//!
//! Attacks go on one at a time, and apart from the other tests, as the tests measure an attack's effect on neighbours.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may fail, and runs real commands"
)]

mod archives;
mod builds;
mod clients;
mod doors;
mod early;
mod escapes;
mod functions;
mod growth;
mod inheritance;
mod load;
mod packages;
mod protocol;
mod schema;
mod service;
mod stalls;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod users;

use tokio::sync::{Mutex, MutexGuard};

/// While a test holds this guard, no other attack goes on.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

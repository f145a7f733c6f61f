//! Tests of three nodes with engines of their own behind HAProxy, on the cluster of `scripts/cluster`:
//! `make test-cluster`. The tests take turns, as each has the whole cluster.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may fail, and runs real commands"
)]

mod client;
mod cluster;
mod faults;
mod figures;
mod random;
mod rounds;
mod scale;
mod settle;
#[path = "../support/zips.rs"]
mod zips;

use tokio::sync::{Mutex, MutexGuard};

/// While a test holds this guard, no other test uses the cluster.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

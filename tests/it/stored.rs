//! What a service has left in its store.

use std::path::Path;

use youtube_serverless::config::Secret;
use youtube_serverless::domain::Open;
use youtube_serverless::store::Store;

use crate::support::store_url;

/// The setting of a test that is about the file of SQLite, also where other tests run on PostgreSQL.
pub(crate) const FILE: (&str, &str) = ("STORE_URL", "");

/// The store of the service in a folder, which must not run.
pub(crate) async fn store(dir: &Path) -> Store {
    match store_url(dir) {
        Some(url) => Store::postgres(&Secret(url)).await.unwrap(),
        None => Store::sqlite(&dir.join("data")).await.unwrap(),
    }
}

/// The invocations that the service in a folder, which must not run, will go on with.
pub(crate) async fn open_invocations(dir: &Path) -> Vec<Open> {
    let store = store(dir).await;
    let read = |name: &str| std::fs::read_to_string(dir.join("data").join(name)).unwrap_or_default();
    // The file is there where other nodes may use the store.
    let last_run = read("last-run");
    let joined = store.join(&read("platform-id"), None, last_run.split_whitespace().next()).await.unwrap();
    assert_eq!(joined, None, "the service does not run");
    let open = store.adopt_invocations(1000, false).await.unwrap();
    store.leave().await.unwrap();
    store.close().await;
    open
}

//! What a service has left in its store.

use std::path::Path;

use youtube_serverless::config::Secret;
use youtube_serverless::domain::Open;
use youtube_serverless::store::Store;

use crate::support::store_url;

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
    store.join(&std::fs::read_to_string(dir.join("data/platform-id")).unwrap(), None).await.unwrap();
    let open = store.adopt_invocations(1000, false).await.unwrap();
    store.leave().await.unwrap();
    store.close().await;
    open
}

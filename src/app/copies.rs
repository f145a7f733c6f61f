//! Copies of the store, which commands make.

use std::path::Path;

use anyhow::Context;
use futures_util::future::BoxFuture;

use crate::config::Config;
use crate::docker::platform::Platform;
use crate::store::{Store, StoreError};

/// Writes the store's file to another file. The service may run meanwhile.
///
/// # Errors
/// The store is PostgreSQL, there is no store, or the other file is there or can't be written.
pub fn backup<'a>(config: &'a Config, file: &'a Path) -> BoxFuture<'a, anyhow::Result<()>> {
    Box::pin(async {
        if config.store.url.is_some() {
            return Err(StoreError::NoFile.into());
        }
        Ok(Store::backup(&config.data_dir, file).await?)
    })
}

/// Copies the store's file into the PostgreSQL of STORE_URL.
///
/// # Errors
/// STORE_URL is not set, a service runs on DATA_DIR, or a database can't be used.
pub fn migrate_store(config: &Config) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async {
        let url = config.store.url.as_ref().context("set STORE_URL to the PostgreSQL that takes the functions")?;
        // No service may use the file while the rows are copied.
        let _platform = Platform::open(&config.data_dir, &config.temp_dir_base)?;
        let functions = Store::migrate_to_postgres(&config.data_dir, url, &config.store.keys).await?;
        tracing::info!(functions, "copied functions with their versions and history");
        Ok(())
    })
}

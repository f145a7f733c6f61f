//! Functions that are made without builds, straight in the store.

use std::path::Path;

use anyhow::{Context, Result};
use youtube_serverless::domain::settings::Settings;
use youtube_serverless::domain::{Executions, FunctionId, Image, ImageId, Language, Package, Record, VersionRecord};
use youtube_serverless::store::Store;

/// Makes this many functions in the store of a DATA_DIR, with zips of a usual size.
pub(crate) async fn fill(data_dir: &Path, count: usize) -> Result<()> {
    std::fs::create_dir_all(data_dir)?;
    let store = Store::sqlite(data_dir).await?;
    let image = ImageId::parse(&format!("sha256:{}", "0".repeat(64))).context("an image id")?;
    for n in 0..count {
        let version = VersionRecord {
            manifest: None,
            number: 1,
            language: Language::Python,
            entry: Some("main.py".to_owned()),
            created_at: 1_700_000_000,
            zip_size: 4096,
            zip_sha256: "0".repeat(64),
            unpacked_size: 10_000,
            image: Image { id: image.clone(), size: 10_000, present: true, digest: None },
        };
        let mut record = Record {
            id: FunctionId::random(),
            number: 0,
            generation: 1,
            name: format!("function {n}").parse()?,
            created_at: 1_700_000_000,
            executions: Executions::default(),
            preloaded: None,
            settings: Settings::default(),
            version,
            previous: None,
        };
        store
            .insert(&mut record, Package { zip: &[0; 4096], build_log: "a log", warnings: &[] }, &[], None, false)
            .await?;
    }
    store.close().await;
    Ok(())
}

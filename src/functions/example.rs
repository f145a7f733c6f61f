//! A function for unit tests.

use crate::domain::settings::Settings;
use crate::domain::{Executions, FunctionId, Image, ImageId, Language, Record, VersionRecord};

/// The record of a new function without settings.
pub(crate) fn record(language: Language) -> Record {
    let id = ImageId::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
    let version = VersionRecord {
        number: 1,
        language,
        entry: None,
        created_at: 0,
        zip_size: 0,
        zip_sha256: String::new(),
        manifest: None,
        unpacked_size: 0,
        image: Image { id, size: 1, present: true, digest: None },
    };
    Record {
        id: FunctionId::random(),
        number: 1,
        generation: 1,
        name: "a".parse().unwrap(),
        created_at: 0,
        settings: Settings::default(),
        version,
        previous: None,
        preloaded: None,
        executions: Executions::default(),
    }
}

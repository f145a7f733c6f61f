//! Digests that tell requests with one idempotency key apart.

use std::fs::File;
use std::io::{self, Seek};

use sha2::{Digest, Sha256};

use super::DeployError;
use crate::domain::settings::Change;
use crate::resources::scratch::Temporary;

/// The SHA-256 of the zip, hexadecimal.
pub(super) async fn of_zip(zip: &mut Temporary<File>) -> Result<String, DeployError> {
    let digested = zip.with(|zip| {
        let mut hash = Sha256::new();
        zip.rewind()?;
        io::copy(zip, &mut hash)?;
        zip.rewind()?;
        Ok::<_, io::Error>(hexadecimal(hash))
    });
    Ok(digested.await??)
}

/// A digest of a request's settings; empty when there are none. Different secrets have different digests, and a digest
/// does not reveal a secret.
pub(super) fn of_settings(settings: &Change) -> String {
    let Change { memory, cpus, timeout, concurrency, keep_warm, preload, environment, secrets } = settings;
    let is_empty =
        (memory, cpus, timeout, preload) == (&None, &None, &None, &None) && (concurrency, keep_warm) == (&None, &None);
    if is_empty && environment.is_empty() && secrets.is_empty() {
        return String::new();
    }
    let secrets: Vec<_> = secrets.iter().map(|(name, value)| (name, value.as_ref().map(|secret| &secret.0))).collect();
    let mut hash = Sha256::new();
    hash.update(format!("{memory:?} {cpus:?} {timeout:?} {environment:?} {secrets:?}"));
    // The digests of requests that earlier versions of this program have written down stay the same.
    if let Some(preload) = preload {
        hash.update(format!("{preload:?}"));
    }
    for (name, number) in [("concurrency", concurrency), ("keepWarm", keep_warm)] {
        if let Some(number) = number {
            hash.update(format!("{name} {number:?}"));
        }
    }
    format!(" {}", hexadecimal(hash))
}

fn hexadecimal(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}

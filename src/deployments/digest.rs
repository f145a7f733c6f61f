//! Digests that tell requests with one idempotency key apart.

use std::fs::File;
use std::io::{self, Seek};

use sha2::{Digest, Sha256};

use super::DeployError;
use crate::domain::settings::Change;
use crate::domain::settings::network::Network;
use crate::domain::{FunctionName, Language};
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

/// What tells a request apart that means a function by its name, whether or not the function was there.
pub(super) fn of_named(name: &FunctionName, zip_sha256: &str, language: Option<Language>, settings: &Change) -> String {
    let language = language.map_or("", Language::as_str);
    format!("name {name}: {zip_sha256} {language}{}", of_settings(settings))
}

/// A digest of a request's settings; empty when there are none. Different secrets have different digests, and a digest
/// does not reveal a secret.
pub(super) fn of_settings(settings: &Change) -> String {
    let Change { memory, cpus, timeout, concurrency, keep_warm, preload, network, http, notify, environment, secrets } =
        settings;
    let is_empty = (memory, cpus, timeout, preload) == (&None, &None, &None, &None)
        && (concurrency, keep_warm, network, http) == (&None, &None, &None, &None)
        && notify.is_none();
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
    if let Some(network) = network {
        hash.update(format!("network {:?}", network.as_ref().map(Network::rules)));
    }
    if let Some(http) = http {
        hash.update(format!("http {http:?}"));
    }
    if let Some(notify) = notify {
        // A request that is sent again brings another key.
        let target = notify.as_ref().map(|notify| (notify.target.url().as_str(), notify.target.events()));
        hash.update(format!("notify {target:?}"));
    }
    format!(" {}", hexadecimal(hash))
}

fn hexadecimal(hash: Sha256) -> String {
    format!("{:x}", hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::settings::notify::{Notify, Target};

    #[test]
    fn requests_with_other_receivers_have_other_digests_and_keys_are_no_matter() {
        let with = |notify: Option<(&str, &str)>| {
            let notify = notify.map(|(url, on)| Notify::new(Target::new(url, &[on]).unwrap()));
            of_settings(&Change { notify: Some(notify), ..Change::default() })
        };
        let digests = [None, Some(("https://a.example", "failure")), Some(("https://a.example", "success"))].map(with);
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
        assert_eq!(with(Some(("https://A.example/", "failure"))), digests[1]);
    }

    #[test]
    fn requests_with_other_networks_have_other_digests() {
        let with = |network: Option<&[&str]>| {
            let network = network.map(|rules| Network::new(rules).unwrap());
            of_settings(&Change { network: Some(network), ..Change::default() })
        };
        assert_eq!(of_settings(&Change::default()), "");
        let digests = [with(None), with(Some(&["a.example:443"])), with(Some(&["a.example:443", "b.example:443"]))];
        assert!(digests.iter().all(|digest| digest.len() == 65), "{digests:?}");
        assert!(digests[0] != digests[1] && digests[1] != digests[2] && digests[0] != digests[2]);
        assert_eq!(with(Some(&["A.example.:443"])), digests[1], "the same rule in other letters");
        // A digest that an earlier version of this program may have written down.
        let concurrency = Change { concurrency: Some(Some(1)), ..Change::default() };
        let earlier = " b10180e7292a8f8eb08e21f7019e282ef7156206edfe77f21944fbef7a41e4c5";
        assert_eq!(of_settings(&concurrency), earlier);
    }
}

//! The descriptors of this process, which connections and the docker clients' pipes share.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The number of descriptors that the service can use.
const MOST: u64 = 32_768;

/// Raises this process's soft limit on descriptors, and returns the limit.
pub fn most() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(MOST).min(MOST);
    let had = limit.current.unwrap_or(MOST);
    let raised = wanted > had && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).is_ok();
    if raised { wanted } else { had }
}

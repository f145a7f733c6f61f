//! Names of hosts, resolved as this machine resolves names: by its hosts file, then by its name servers with their
//! search list, one server after the other.
//!
//! Modules of the C library (`nsswitch.conf`) beyond these two are not asked.

mod files;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{Name, RecordType};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use files::{Files, Servers};

/// The files are looked at again after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The addresses of IPv4 wait this long for the addresses of IPv6 (RFC 8305, section 3).
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// The resolver of the process.
#[derive(Debug)]
pub(super) struct Names {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    files: Arc<Files>,
    looked: Option<Instant>,
}

/// Why a name has no addresses.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(super) enum NameError {
    /// There is no such name, or the name has no address.
    #[error("no host has this name")]
    Unknown,
    /// Whether there is such a name is not known.
    #[error("the name does not resolve: {0}")]
    Unresolved(String),
}

/// A name that is being resolved. The addresses of IPv4 and IPv6 may come apart.
#[derive(Debug)]
pub(super) struct Lookup {
    servers: Arc<Servers>,
    /// The full names to try, the next one last.
    candidates: Vec<String>,
    /// The questions of one candidate.
    pending: JoinSet<Result<Vec<IpAddr>, NameError>>,
    found: Vec<IpAddr>,
    has_found: bool,
    error: NameError,
}

impl Names {
    /// The names of this machine's files. A file that is missing or can't be read makes names fail, and nothing else.
    /// `limit` is the time that a connection has to come about.
    pub(super) fn new(hosts: PathBuf, resolv_conf: PathBuf, port: u16, limit: Duration) -> Self {
        let files = Arc::new(Files::new(hosts, resolv_conf, port, limit));
        Self { state: Mutex::new(State { files, looked: None }) }
    }

    /// Begins to resolve a name, which has no dot at its end.
    pub(super) async fn look_up(&self, name: &str) -> Lookup {
        let files = self.files().await;
        let mut lookup = Lookup::of(files.hosts.addresses(name));
        match &files.servers {
            // The hosts file has the last word on its names.
            _ if !lookup.found.is_empty() => {}
            Ok(servers) => {
                lookup.candidates = servers.candidates(name);
                lookup.servers = Arc::clone(servers);
            }
            Err(reason) => lookup.error = NameError::Unresolved(reason.clone()),
        }
        lookup
    }

    /// All addresses of a name.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NameError> {
        let mut lookup = self.look_up(name).await;
        let mut addresses = Vec::new();
        while let Some(found) = lookup.next().await? {
            addresses.extend(found);
        }
        Ok(addresses)
    }

    /// The files as they are, or were a moment ago.
    async fn files(&self) -> Arc<Files> {
        let mut state = self.state.lock().await;
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN) {
            let known = Arc::clone(&state.files);
            match tokio::task::spawn_blocking(move || known.read_again()).await {
                Ok(Some(files)) => state.files = Arc::new(files),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "the files of hosts and name servers were not read"),
            }
            state.looked = Some(Instant::now());
        }
        Arc::clone(&state.files)
    }
}

impl Lookup {
    /// A lookup with these addresses, without a question to a server.
    pub(super) fn of(found: Vec<IpAddr>) -> Self {
        let (servers, candidates, pending) = (Arc::default(), Vec::new(), JoinSet::new());
        Self { servers, candidates, pending, found, has_found: false, error: NameError::Unknown }
    }

    /// The next addresses of the name, IPv6 first. None when there are no more.
    ///
    /// # Errors
    /// The name has no addresses. Then no more come.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<IpAddr>>, NameError> {
        loop {
            if !self.found.is_empty() {
                self.has_found = true;
                return Ok(Some(std::mem::take(&mut self.found)));
            }
            match self.pending.join_next().await {
                Some(answer) => self.note(answer),
                None if self.has_found => return Ok(None),
                None => match self.candidates.pop() {
                    // As in the C library, the search goes on after a "no", and not after silence.
                    Some(name) if self.error == NameError::Unknown => self.ask(&name),
                    Some(_) | None => return Err(self.error.clone()),
                },
            }
            let needs_delay = !self.found.is_empty() && self.found.iter().all(IpAddr::is_ipv4) && !self.has_found;
            if needs_delay && let Ok(Some(answer)) = time::timeout(RESOLUTION_DELAY, self.pending.join_next()).await {
                self.note(answer);
            }
        }
    }

    fn ask(&mut self, name: &str) {
        for kind in [RecordType::AAAA, RecordType::A] {
            let (servers, name) = (Arc::clone(&self.servers), name.to_owned());
            self.pending.spawn(async move { servers.ask(&name, kind).await });
        }
    }

    fn note(&mut self, answer: Result<Result<Vec<IpAddr>, NameError>, tokio::task::JoinError>) {
        match answer {
            Ok(Ok(addresses)) => {
                self.found.extend(addresses);
                self.found.sort_by_key(IpAddr::is_ipv4);
            }
            Ok(Err(NameError::Unknown)) => {}
            Ok(Err(error)) => self.error = error,
            Err(error) => self.error = NameError::Unresolved(error.to_string()),
        }
    }
}

impl Servers {
    /// Asks the servers, one after the other until a server answers.
    async fn ask(&self, name: &str, kind: RecordType) -> Result<Vec<IpAddr>, NameError> {
        let mut error = NameError::Unresolved("no name server is known".to_owned());
        for server in &self.servers {
            match ask(server, name, kind).await {
                Err(other @ NameError::Unresolved(_)) => error = other,
                answer => return answer,
            }
        }
        Err(error)
    }
}

async fn ask(server: &TokioResolver, name: &str, kind: RecordType) -> Result<Vec<IpAddr>, NameError> {
    // In ASCII already. A name may have underscores, which IDNA refuses.
    let name = Name::from_ascii(name).map_err(|error| NameError::Unresolved(error.to_string()))?;
    match server.lookup(name, kind).await {
        Ok(answer) => Ok(answer.answers().iter().filter_map(|record| record.data.ip_addr()).collect()),
        Err(error) if error.is_no_records_found() => Err(NameError::Unknown),
        Err(NetError::Timeout) => Err(NameError::Unresolved("a name server does not answer".to_owned())),
        Err(error) => Err(NameError::Unresolved(error.to_string())),
    }
}

#[cfg(test)]
mod tests;

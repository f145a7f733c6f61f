//! The files by which this machine resolves names.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;

/// The most name servers, as in the C library.
const MAX_SERVERS: usize = 3;
/// The longest time for which an answer is kept, and the longest for which a "no" is kept.
const MAX_AGE: Duration = Duration::from_secs(3600);
const MAX_AGE_OF_NO: Duration = Duration::from_secs(5);
/// The most questions under way at one time with a name server.
const MAX_QUESTIONS: usize = 1000;

/// What the files say, and which states of the files that was.
#[derive(Debug)]
pub(super) struct Files {
    hosts_path: PathBuf,
    servers_path: PathBuf,
    /// The port of the name servers.
    port: u16,
    limit: Duration,
    hosts_stamp: Option<Stamp>,
    servers_stamp: Option<Stamp>,
    pub(super) hosts: Arc<Hosts>,
    /// The servers, or why there are none.
    pub(super) servers: Result<Arc<Servers>, String>,
}

/// A state of a file. A file that is gone has one, too.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stamp {
    File { inode: u64, length: u64, seconds: i64, nanoseconds: i64 },
    Gone(io::ErrorKind),
}

/// The names of the hosts file.
#[derive(Debug, Default)]
pub(super) struct Hosts(HashMap<String, Vec<IpAddr>>);

/// The name servers, and what is searched.
#[derive(Debug, Default)]
pub(super) struct Servers {
    /// A resolver for each server, with a cache of its own. There is no search list in them.
    pub(super) servers: Vec<TokioResolver>,
    search: Vec<String>,
    /// A name with so many dots is tried before the search list.
    dots: usize,
}

impl Files {
    /// The files, not read yet.
    pub(super) fn new(hosts_path: PathBuf, servers_path: PathBuf, port: u16, limit: Duration) -> Self {
        let servers = Err("the name servers are not known yet".to_owned());
        let (hosts_stamp, servers_stamp, hosts) = (None, None, Arc::default());
        Self { hosts_path, servers_path, port, limit, hosts_stamp, servers_stamp, hosts, servers }
    }

    /// Reads what has changed. None where nothing has.
    pub(super) fn read_again(&self) -> Option<Self> {
        let (hosts_stamp, servers_stamp) = (Stamp::of(&self.hosts_path), Stamp::of(&self.servers_path));
        let is_same = |known: &Option<Stamp>, now: &Stamp| known.as_ref() == Some(now);
        let (same_hosts, same_servers) =
            (is_same(&self.hosts_stamp, &hosts_stamp), is_same(&self.servers_stamp, &servers_stamp));
        if same_hosts && same_servers {
            return None;
        }
        Some(Self {
            hosts: if same_hosts { Arc::clone(&self.hosts) } else { Arc::new(Hosts::read(&self.hosts_path)) },
            servers: if same_servers { self.servers.clone() } else { self.read_servers() },
            hosts_stamp: Some(hosts_stamp),
            servers_stamp: Some(servers_stamp),
            hosts_path: self.hosts_path.clone(),
            servers_path: self.servers_path.clone(),
            ..*self
        })
    }

    fn read_servers(&self) -> Result<Arc<Servers>, String> {
        let parsed = fs::read(&self.servers_path)
            .map_err(|error| error.to_string())
            .and_then(|text| parse_resolv_conf(text).map_err(|error| error.to_string()))
            .and_then(|(config, options)| Servers::new(&config, &options, self.port, self.limit));
        let servers = parsed.map_err(|error| format!("{}: {error}", self.servers_path.display()));
        if let Err(reason) = &servers {
            tracing::warn!(reason, "functions reach only what the hosts file names");
        }
        servers.map(Arc::new)
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(metadata) => Self::File {
                inode: metadata.ino(),
                length: Metadata::len(&metadata),
                seconds: metadata.mtime(),
                nanoseconds: metadata.mtime_nsec(),
            },
            Err(error) => Self::Gone(error.kind()),
        }
    }
}

impl Hosts {
    /// The names of a file. A file that can't be read has none.
    fn read(path: &Path) -> Self {
        match fs::read(path) {
            Ok(text) => Self::parse(&String::from_utf8_lossy(&text)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the hosts file can't be read");
                Self::default()
            }
        }
    }

    fn parse(text: &str) -> Self {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words {
                let addresses = names.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(names)
    }

    /// The addresses of a name in lower case, IPv6 first. None where the file does not have the name.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let mut addresses = self.0.get(name).cloned().unwrap_or_default();
        addresses.sort_by_key(IpAddr::is_ipv4);
        addresses
    }
}

impl Servers {
    fn new(config: &ResolverConfig, options: &ResolverOpts, port: u16, limit: Duration) -> Result<Self, String> {
        let mut search: Vec<String> = config.search().iter().map(Name::to_ascii).collect();
        if search.is_empty() {
            search.extend(config.domain().map(Name::to_ascii));
        }
        let mut known = config.name_servers().to_vec();
        known.truncate(MAX_SERVERS);
        // Each server in turn has its part of the time that a connection has.
        let parts = u32::try_from(known.len()).unwrap_or(u32::MAX).saturating_add(1);
        let timeout = options.timeout.min(limit / parts);
        let build = |mut server: NameServerConfig| {
            for connection in &mut server.connections {
                connection.port = port;
            }
            let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            let own = builder.options_mut();
            *own = options.clone();
            own.timeout = timeout;
            // A lost datagram is sent again within the time limit.
            own.attempts = 0;
            own.use_hosts_file = ResolveHosts::Never;
            own.positive_max_ttl = Some(MAX_AGE);
            own.negative_max_ttl = Some(MAX_AGE_OF_NO);
            own.max_active_requests = MAX_QUESTIONS;
            builder.build().map_err(|error| error.to_string())
        };
        let servers = known.into_iter().map(build).collect::<Result<_, _>>()?;
        Ok(Self { servers, search, dots: options.ndots })
    }

    /// The full names for which a name may stand, the first one last.
    pub(super) fn candidates(&self, name: &str) -> Vec<String> {
        let own = format!("{name}.");
        let searched = self.search.iter().map(|suffix| format!("{name}.{}.", suffix.trim_matches('.')));
        let searched: Vec<String> = searched.filter(|name| !name.ends_with("..") && name.len() <= 255).collect();
        let is_first = name.matches('.').count() >= self.dots;
        let (before, after) = if is_first { (Some(own), None) } else { (None, Some(own)) };
        before.into_iter().chain(searched).chain(after).rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_is_read_as_the_c_library_reads_the_file() {
        let hosts = Hosts::parse(
            "# comment\n127.0.0.1\tlocalhost\n10.0.0.5  DB.internal db. # 10.0.0.9\n::1 localhost ip6-localhost\n\
             10.0.0.6 db.internal\nfd00::5 db.internal\n10.0.0.5 db.internal\nnonsense a.example\n1.2.3 b.example\n\
             1.2.3.4",
        );
        let addresses = |name: &str| hosts.addresses(name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(addresses("localhost"), ["::1", "127.0.0.1"]);
        assert_eq!(addresses("db.internal"), ["fd00::5", "10.0.0.5", "10.0.0.6"]);
        assert_eq!(addresses("db"), ["10.0.0.5"]);
        assert_eq!(addresses("a.example"), [""; 0]);
        assert_eq!(addresses("b.example"), [""; 0]);
    }

    #[test]
    fn names_are_searched_as_the_c_library_searches() {
        let servers = |text: &str| {
            let (config, options) = parse_resolv_conf(text).unwrap();
            Servers::new(&config, &options, 53, Duration::from_secs(5)).unwrap()
        };
        let candidates = |text: &str, name: &str| {
            let mut found = servers(text).candidates(name);
            found.reverse();
            found
        };
        let search = "nameserver 127.0.0.1\nsearch one.example two.example.";
        assert_eq!(candidates(search, "db"), ["db.one.example.", "db.two.example.", "db."]);
        assert_eq!(candidates(search, "a.b"), ["a.b.", "a.b.one.example.", "a.b.two.example."]);
        let dots = format!("{search}\noptions ndots:2");
        assert_eq!(candidates(&dots, "a.b"), ["a.b.one.example.", "a.b.two.example.", "a.b."]);
        assert_eq!(candidates("nameserver 127.0.0.1\nsearch .", "db"), ["db."]);
        assert_eq!(candidates("nameserver 127.0.0.1\ndomain d.example", "db"), ["db.d.example.", "db."]);
    }
}

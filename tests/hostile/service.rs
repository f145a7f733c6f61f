//! Looks of these tests only, at a service in a process of its own.

use crate::support::*;

impl Service {
    /// The peak of the service's resident memory so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The service's resident memory now, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The number of the service's open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// Whether the connection from this client's port is still established.
    pub(crate) fn holds(&self, port: u16) -> bool {
        self.established().contains(&port)
    }

    /// Whether the service has a descriptor for the connection from this client's port. The connection may be half
    /// closed.
    pub(crate) fn has_socket(&self, port: u16) -> bool {
        self.sockets(|row| row[9] != "0").contains(&port)
    }

    /// The number of the service's child processes.
    pub(crate) fn children(&self) -> usize {
        self.child_ids().len()
    }

    /// The address at which the service listens.
    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }
}

//! The resources of the service's machine: disks, temporary files, memory for requests, and the certificates that the
//! machine trusts.

pub mod budget;
pub mod clock;
pub mod descriptors;
pub mod disk;
pub mod scratch;
pub mod tls;

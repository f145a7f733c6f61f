//! The resources of the service's machine: disks, temporary files, and memory for requests.

pub mod budget;
pub mod clock;
pub mod descriptors;
pub mod disk;
pub mod scratch;

//! What the service takes of its machine: disks, temporary files, and memory for what clients send.

pub mod budget;
pub mod clock;
pub mod disk;
pub mod scratch;

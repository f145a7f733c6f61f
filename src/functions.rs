//! The functions and versions in memory, and the images that instances are made from.

#[cfg(test)]
pub(crate) mod example;
mod function;
pub mod images;
mod registry;
pub mod trees;
mod version;

pub use function::{Function, FunctionShared, Revision};
pub use registry::Registry;
pub use version::{Absence, Version};

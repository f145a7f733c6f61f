//! Functions and their versions, as the service knows them in memory, and the images that instances are made of.

mod function;
pub mod images;
mod registry;
mod version;

pub use function::{Function, FunctionShared, Revision};
pub use registry::Registry;
pub use version::Version;

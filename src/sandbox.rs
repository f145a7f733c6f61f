//! The containers in which functions run. A container is leased for one invocation at a time, and is checked to be
//! clean before the next invocation.

mod descriptors;
pub mod doors;
pub mod instance;
pub mod isolation;
pub mod output;
pub mod pool;
pub mod preload;
pub mod protocol;
pub mod transport;

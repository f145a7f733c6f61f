//! Where functions run: containers that are verified clean, and leased for one invocation at a time.

pub mod instance;
pub mod isolation;
pub mod output;
pub mod pool;
pub mod protocol;

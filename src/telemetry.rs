//! The log: lines on stderr.

use tracing::Level;

/// Starts it. To be called once.
pub fn start(level: Level) {
    tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false).init();
}

//! The log: lines on stderr.

use tracing::Level;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object each, for machines.
    Json,
}

/// Starts it. To be called once.
pub fn start(level: Level, format: Format) {
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    match format {
        Format::Text => log.init(),
        Format::Json => log.json().flatten_event(true).with_current_span(true).with_span_list(false).init(),
    }
}

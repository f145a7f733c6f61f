//! What goes to stdout and to people.

use std::io::{self, Write};

use serde_json::Value;

/// Whoever reads may have had enough, as `head` has: then there is nothing left to do.
fn print(text: &str) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
        #[expect(clippy::exit, reason = "as a program does that is ended by SIGPIPE")]
        std::process::exit(0);
    }
}

/// A line for people or scripts.
pub(super) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// JSON for scripts, on one line.
pub(super) fn json(value: &Value) {
    print(&format!("{value}\n"));
}

/// What a function has printed, as it is.
pub(super) fn verbatim(text: &str) {
    print(text);
}

/// What a function has printed to stderr, as it is.
pub(super) fn error(text: &str) {
    // Nobody may be there to read it.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Columns that are as wide as they must be.
pub(super) fn table(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        print(&format!("{}\n", cells.join("  ").trim_end()));
    }
}

/// A time as people read it, in UTC.
pub(super) fn time(seconds: Option<i64>) -> String {
    seconds
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "-".to_owned(), |time| time.to_string())
}

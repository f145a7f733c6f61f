//! What goes to stdout and to people.

use std::io::{self, Write};

use serde_json::Value;
use tabwriter::TabWriter;

fn print(text: &str) {
    bytes(text.as_bytes());
}

/// Bytes, as they are. Whoever reads may have had enough, as `head` has: then there is nothing left to do.
pub(super) fn bytes(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    if stdout.write_all(bytes).and_then(|()| stdout.flush()).is_err() {
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

/// Columns that are as wide as they must be, two spaces apart.
pub(super) fn table(rows: &[Vec<String>]) {
    print(&aligned(rows));
}

/// A time as people read it, in UTC.
pub(super) fn time(seconds: Option<i64>) -> String {
    seconds
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "-".to_owned(), |time| time.to_string())
}

fn aligned(rows: &[Vec<String>]) -> String {
    let mut writer = TabWriter::new(Vec::new());
    for row in rows {
        writeln!(writer, "{}", row.join("\t")).expect("memory takes every row");
    }
    let text = writer.into_inner().expect("memory takes every row");
    String::from_utf8(text).expect("cells and spaces are text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_two_spaces_apart_and_lines_end_without_spaces() {
        let rows = [["NAME", "ID", "LAST"], ["a name", "1", "-"], ["b", "12345", "2023-01-16T12:34:56Z"]];
        let rows = rows.map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows), "NAME    ID     LAST\na name  1      -\nb       12345  2023-01-16T12:34:56Z\n");
    }
}

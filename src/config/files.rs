//! Values from files: `NAME_FILE` names a file that has the value of the variable `NAME`, as secrets of Docker Swarm
//! are files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};

use super::ConfigError;

/// The longest value in a file, in bytes.
const MAX_VALUE: u64 = 64 * 1024;

/// The value of the variable `name`: the variable's own, or the content of the file that `NAME_FILE` names, without
/// newlines at the end. An empty file counts as no value.
///
/// # Errors
/// When both variables are set, and when the file can't be read or has no text.
pub(super) fn value_of(vars: &HashMap<String, String>, name: &str) -> Result<Option<String>, ConfigError> {
    let variable = format!("{name}_FILE");
    let Some(path) = vars.get(&variable) else { return Ok(vars.get(name).cloned()) };
    let refuse = |expected: String| ConfigError { variable: variable.clone(), value: path.clone(), expected };
    if vars.contains_key(name) {
        return Err(refuse(format!("no {name} beside it; leave out one of the two")));
    }
    let text = read(path).map_err(|error| refuse(format!("a file with the value of {name}: {error}")))?;
    let value = text.trim_end_matches(['\r', '\n']);
    Ok((!value.is_empty()).then(|| value.to_owned()))
}

fn read(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_VALUE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_VALUE {
        return Err(io::Error::other(format!("it has more than {MAX_VALUE} bytes")));
    }
    Ok(text)
}

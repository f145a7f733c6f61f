//! Two processes with one node id: a copy of a DATA_DIR, as of a cloned virtual machine, has the id of the original.
//!
//! A row with this node's id and a heartbeat is of a process that has just crashed, or of a twin that lives. This
//! process has the lock of DATA_DIR, so every other process of this very folder is dead. A file in the folder names the
//! last run, with the boot of the machine and with the file's own device and inode. A copy of the file has another
//! device or inode, and a copy of the machine has another boot. Where all three agree, the row of that run is of a dead
//! process, and the node joins at once. Otherwise the node watches the row: a dead process sends no heartbeat, and the
//! id is free when the lease has run out.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{self, Instant};

use crate::resources::clock::Moment;
use crate::store::{LEASE, Store, StoreError};

/// The file in DATA_DIR that names the last run, and the file that has the node's id.
const RUN_FILE: &str = "last-run";
const ID_FILE: &str = "platform-id";

/// The pause between two looks at the row of another process, and the longest time for which the row is watched.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
const WATCH_LIMIT: Duration = LEASE.saturating_add(Duration::from_secs(5));

/// A dead process has one heartbeat on its way at the most, beside the first that is seen. The next is of a process
/// that lives.
const LAST_HEARTBEATS: usize = 2;

/// The reason why a node does not join the others.
#[derive(Debug, Error)]
pub enum JoinError {
    /// Another process has this node's id.
    #[error(
        "another process serves from the database of STORE_URL with the id of this node, so {id_file} is a copy: stop \
         that process, or make this node one of its own. For the latter remove {id_file} where it is the copy, not the \
         original, and start again"
    )]
    Twin {
        /// The file with the id.
        id_file: PathBuf,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Joins the nodes of the store, as the process that has the lock of `data_dir`. Returns a moment before the first
/// heartbeat.
pub(super) async fn join(store: &Store, id: &str, url: Option<&str>, data_dir: &Path) -> Result<Moment, JoinError> {
    let (path, run) = (data_dir.join(RUN_FILE), store.run().to_owned());
    let noted = tokio::task::spawn_blocking(move || note(&path, &run)).await.map_err(io::Error::other);
    let ended = noted.and_then(|noted| noted).unwrap_or_else(|error| {
        // As on a full disk. The next start waits longer, no more.
        tracing::warn!(%error, file = %data_dir.join(RUN_FILE).display(), "this run is not noted in DATA_DIR");
        None
    });
    let (deadline, mut heartbeats) = (Instant::now() + WATCH_LIMIT, Vec::new());
    loop {
        let began = Moment::now();
        let Some(heartbeat) = store.join(id, url, ended.as_deref()).await? else { return Ok(began) };
        if heartbeats.is_empty() {
            tracing::info!(
                "a process with the id of this node lived a moment ago: looking whether the process lives on"
            );
        }
        if heartbeats.last() != Some(&heartbeat) {
            heartbeats.push(heartbeat);
        }
        if LAST_HEARTBEATS < heartbeats.len() || deadline <= Instant::now() {
            return Err(JoinError::Twin { id_file: data_dir.join(ID_FILE) });
        }
        time::sleep(LOOK_AGAIN).await;
    }
}

/// Notes this run. Returns the run that was noted before, where that run is surely dead.
fn note(path: &Path, run: &str) -> io::Result<Option<String>> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let place = |file: &File| file.metadata().map(|file| format!("{}:{}", file.dev(), file.ino()));
    let before = match File::open(path) {
        Ok(file) => {
            let (noted, place) = (io::read_to_string(&file)?, place(&file)?);
            let mut words = noted.split_whitespace();
            let run = words.next().map(str::to_owned);
            run.filter(|_| words.next() == Some(&boot) && words.next() == Some(&place))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    // The file is renamed into place: half a file would name no run.
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    let place = place(&file)?;
    writeln!(file, "{run} {boot} {place}")?;
    std::fs::rename(&draft, path)?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_surely_dead_where_its_own_file_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, copy) = (dir.path().join(RUN_FILE), dir.path().join("copy"));
        assert_eq!(note(&path, "one").unwrap(), None);
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(note(&path, "two").unwrap().as_deref(), Some("one"));
        assert_eq!(note(&path, "three").unwrap().as_deref(), Some("two"));
        assert_eq!(note(&copy, "four").unwrap(), None, "the file is a copy");
        let elsewhere = std::fs::read_to_string(&path).unwrap().replace('-', "0");
        std::fs::write(&path, elsewhere).unwrap();
        assert_eq!(note(&path, "five").unwrap(), None, "the machine has started again");
        std::fs::write(&path, "").unwrap();
        assert_eq!(note(&path, "six").unwrap(), None);
    }
}

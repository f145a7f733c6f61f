//! The identity of this platform, which may share its Docker and its temp directory with other platforms.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use uuid::Uuid;

/// A platform: one DATA_DIR with all images and containers of the processes that have served from this directory.
#[derive(Debug)]
pub struct Platform {
    id: Uuid,
    run: Uuid,
    data_dir: PathBuf,
    temp_dir: PathBuf,
    /// Held while the process lives. The kernel releases the lock however the process ends.
    /// Of DATA_DIR and of the folder below TEMP_DIR_BASE.
    _locks: [File; 2],
}

/// Why this process can't be the platform of a DATA_DIR.
#[derive(Debug, Error)]
pub enum PlatformError {
    /// The directory or a file in it can't be used.
    #[error("failed to use {path}; DATA_DIR and TEMP_DIR_BASE must be directories that this user can write to")]
    Io {
        /// The directory or the file.
        path: PathBuf,
        /// The error of the file system.
        #[source]
        source: io::Error,
    },
    /// Another process serves from DATA_DIR.
    #[error("another process{holder} serves from {path}; stop that process or set another DATA_DIR")]
    Locked {
        /// DATA_DIR.
        path: PathBuf,
        /// The other process's id in parentheses, or empty when the id is unknown.
        holder: String,
    },
    /// The file with the platform's id is damaged.
    #[error(
        "{path} does not hold a platform's id; remove the file to start a new platform, \
         which leaves the old platform's images and containers in Docker"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Platform {
    /// Takes possession of a DATA_DIR, and empties this platform's own folder below TEMP_DIR_BASE.
    pub fn open(data_dir: &Path, temp_dir_base: &Path) -> Result<Self, PlatformError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| PlatformError::Io { path, source }
        };
        fs::create_dir_all(data_dir).map_err(at(data_dir))?;
        let lock_path = data_dir.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path).map_err(at(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&lock_path).unwrap_or_default();
                let holder = if holder.is_empty() { holder } else { format!(" (pid {})", holder.trim()) };
                return Err(PlatformError::Locked { path: data_dir.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(PlatformError::Io { path: lock_path, source }),
        }
        fs::write(&lock_path, std::process::id().to_string()).map_err(at(&lock_path))?;
        let id = read_or_make_id(&data_dir.join("platform-id"))?;
        let temp_dir = temp_dir_base.join(format!("youtube-serverless-{id}"));
        match fs::remove_dir_all(&temp_dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&temp_dir)(error)),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(&temp_dir).map_err(at(&temp_dir))?;
        // The files of instances that were slots are here for as long as the instances live. systemd-tmpfiles removes
        // nothing below a folder that is locked (tmpfiles.d(5)).
        let temp_lock = File::open(&temp_dir).map_err(at(&temp_dir))?;
        temp_lock.lock_shared().map_err(at(&temp_dir))?;
        Ok(Self { id, run: Uuid::new_v4(), data_dir: data_dir.to_owned(), temp_dir, _locks: [lock, temp_lock] })
    }

    /// The platform's id, which is the same at every start.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// The id of this run, which is new at every start.
    pub fn run(&self) -> Uuid {
        self.run
    }

    /// The folder of the data that must survive a restart.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The folder of uploads and build contexts. The folder belongs to this platform alone, and is emptied at every
    /// start.
    pub fn temp_dir(&self) -> &Path {
        &self.temp_dir
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.temp_dir) {
            tracing::warn!(path = %self.temp_dir.display(), %error, "failed to remove the temp directory");
        }
    }
}

fn read_or_make_id(path: &Path) -> Result<Uuid, PlatformError> {
    let at = |source| PlatformError::Io { path: path.to_owned(), source };
    match fs::read_to_string(path) {
        Ok(text) => Uuid::try_parse(text.trim()).map_err(|_| PlatformError::Damaged { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = Uuid::new_v4();
            // The file is renamed into place: a crash must not leave half an id, which would orphan the platform's
            // images and containers.
            let draft = path.with_extension("new");
            fs::write(&draft, id.to_string()).map_err(at)?;
            File::open(&draft).and_then(|file| file.sync_all()).map_err(at)?;
            fs::rename(&draft, path).map_err(at)?;
            Ok(id)
        }
        Err(error) => Err(at(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_keeps_its_id_and_its_data_dir_to_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (data, temp) = (dir.path().join("data"), dir.path().join("temp"));
        let first = Platform::open(&data, &temp).unwrap();
        fs::write(first.temp_dir().join("left"), "over").unwrap();
        let error = Platform::open(&data, &temp).expect_err("the directory is taken").to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        let (id, run) = (first.id(), first.run());
        drop(first);
        let second = Platform::open(&data, &temp).unwrap();
        assert_eq!(second.id(), id);
        assert_ne!(second.run(), run);
        assert_eq!(fs::read_dir(second.temp_dir()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_id_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("platform-id"), "half").unwrap();
        let error = Platform::open(dir.path(), dir.path()).expect_err("no id");
        assert!(matches!(error, PlatformError::Damaged { .. }), "{error}");
    }
}

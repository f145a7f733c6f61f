//! Temporary files and folders, in the platform's temp folder. Making and removing them blocks on the disk, so both run
//! on blocking threads: the removal of a folder with thousands of entries takes a second.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio_util::task::TaskTracker;

/// Makes temporary files and folders.
#[derive(Clone, Debug)]
pub struct Scratch {
    folder: PathBuf,
    tasks: TaskTracker,
}

impl Scratch {
    /// Makes files and folders in `folder`, and removes them in tasks on `tasks`.
    pub fn new(folder: PathBuf, tasks: TaskTracker) -> Self {
        Self { folder, tasks }
    }

    /// Makes an empty folder.
    pub async fn folder(&self) -> io::Result<Temporary<TempDir>> {
        let parent = self.folder.clone();
        self.make(move || tempfile::tempdir_in(parent)).await
    }

    /// Makes an empty file without a name.
    pub async fn file(&self) -> io::Result<Temporary<File>> {
        let parent = self.folder.clone();
        self.make(move || tempfile::tempfile_in(parent)).await
    }

    async fn make<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<Temporary<T>> {
        let tasks = self.tasks.clone();
        // When the caller leaves meanwhile, the thread that made the file or folder has to remove the file or folder.
        let made = self.tasks.spawn_blocking(move || make().map(|value| Temporary { value: Some(value), tasks }));
        made.await.map_err(io::Error::other)?
    }
}

/// A temporary file or folder. Dropping the value removes the file or folder, on a blocking thread.
#[must_use]
#[derive(Debug)]
pub struct Temporary<T: Send + 'static> {
    value: Option<T>,
    tasks: TaskTracker,
}

impl<T: Send + 'static> Temporary<T> {
    /// Removes the file or folder, and waits for the end of the removal.
    pub async fn remove(mut self) {
        if let Some(value) = self.value.take() {
            // A panic in the removal has printed a message of its own.
            let _ = self.tasks.spawn_blocking(move || drop(value)).await;
        }
    }
}

impl Temporary<TempDir> {
    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.value.as_ref().expect("a folder is there until it is removed").path()
    }
}

impl Temporary<File> {
    /// Lends the file to `work`, which may block. An error means that this work or an earlier work panicked.
    pub async fn with<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut File) -> R + Send + 'static,
    ) -> io::Result<R> {
        let mut file = self.value.take().ok_or_else(|| io::Error::other("the thread that had the file has died"))?;
        let lent = self.tasks.spawn_blocking(move || {
            let done = work(&mut file);
            (file, done)
        });
        let (file, done) = lent.await.map_err(io::Error::other)?;
        self.value = Some(file);
        Ok(done)
    }

    /// Another handle of the same file.
    pub fn share(&self) -> io::Result<File> {
        self.value.as_ref().ok_or_else(|| io::Error::other("the thread that had the file has died"))?.try_clone()
    }
}

impl<T: Send + 'static> Drop for Temporary<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            self.tasks.spawn_blocking(move || drop(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_goes_on_another_thread_and_the_tracker_waits_for_that() {
        let parent = tempfile::tempdir().unwrap();
        let tasks = TaskTracker::new();
        let scratch = Scratch::new(parent.path().to_owned(), tasks.clone());
        let folder = scratch.folder().await.unwrap();
        for n in 0..2000 {
            std::fs::create_dir(folder.path().join(n.to_string())).unwrap();
        }
        drop(folder);
        // This test has one thread, which has done nothing else yet.
        tasks.close();
        assert!(!tasks.is_empty());
        tasks.wait().await;
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_file_is_lent_and_comes_back() {
        use std::io::{Read, Seek, Write};
        let parent = tempfile::tempdir().unwrap();
        let mut file = Scratch::new(parent.path().to_owned(), TaskTracker::new()).file().await.unwrap();
        file.with(|file| file.write_all(b"text")).await.unwrap().unwrap();
        let mut text = String::new();
        let mut shared = file.share().unwrap();
        shared.rewind().unwrap();
        shared.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
        file.remove().await;
    }
}

//! The files of a slot's container: folders that the container sees from its start, and that are filled once.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use crate::docker::Mount;
use crate::domain::{ImageId, Language};
use crate::functions::trees::{FOLDERS, Tree, TreeError, Trees};
use crate::resources::scratch::{Scratch, Temporary};

/// The folder of a copy that is not complete. The folder is on the same file system as the others.
const DRAFT: &str = "draft";
/// The zip's files in a container.
const APP: &str = "/app";

/// The folders that a slot's container sees, in a folder that is the service's alone (0700).
#[derive(Debug)]
pub(super) struct CodeFolder {
    folder: Temporary<TempDir>,
    language: Language,
}

impl CodeFolder {
    /// Makes empty folders.
    pub(super) async fn make(scratch: &Scratch, language: Language) -> io::Result<Self> {
        let folder = scratch.folder().await?;
        let place = folder.path().to_owned();
        let made = tokio::task::spawn_blocking(move || {
            fs::create_dir(place.join(DRAFT))?;
            FOLDERS.iter().try_for_each(|name| {
                fs::create_dir(place.join(name))?;
                fs::set_permissions(place.join(name), Permissions::from_mode(0o755))
            })
        });
        made.await.map_err(io::Error::other)??;
        Ok(Self { folder, language })
    }

    /// The folders to be mounted into the container.
    pub(super) fn mounts(&self) -> [Mount; 2] {
        let [app, code] = FOLDERS.map(|name| self.folder.path().join(name));
        // The bootstraps know the place of the second folder, and the images of functions have files there as well.
        let place = match self.language {
            Language::Python => "/opt/youtube-serverless/packages",
            Language::Go => "/opt/youtube-serverless/code",
        };
        [(app, APP), (code, place)]
    }

    /// Fills the folders with the copy of a tree. The container sees only whole files.
    pub(super) async fn fill(&self, trees: &Arc<Trees>, image: &ImageId, tree: &Arc<Tree>) -> Result<(), TreeError> {
        let place = self.folder.path().to_owned();
        trees.copy(image, tree, place.join(DRAFT)).await?;
        let package = match self.language {
            Language::Python => tree.arguments().get(1).cloned(),
            Language::Go => None,
        };
        tokio::task::spawn_blocking(move || move_in(&place, package.as_deref())).await.map_err(io::Error::other)??;
        Ok(())
    }

    /// Puts one file among the zip's files.
    pub(super) async fn put(&self, name: &str, content: String) -> io::Result<()> {
        let place = self.folder.path().join(FOLDERS[0]).join(name);
        tokio::fs::write(&place, content).await?;
        tokio::fs::set_permissions(&place, Permissions::from_mode(0o644)).await
    }

    /// Removes the folders.
    pub(super) async fn remove(self) {
        self.folder.remove().await;
    }
}

fn move_in(place: &Path, package: Option<&str>) -> io::Result<()> {
    for name in FOLDERS {
        let (draft, folder) = (place.join(DRAFT).join(name), place.join(name));
        let metadata = fs::metadata(&draft)?;
        for entry in fs::read_dir(&draft)? {
            let entry = entry?;
            fs::rename(entry.path(), folder.join(entry.file_name()))?;
        }
        // The folder looks as in the image.
        let folder = File::open(folder)?;
        folder.set_permissions(metadata.permissions())?;
        folder.set_modified(metadata.modified()?)?;
    }
    package.map_or(Ok(()), |package| symlink(APP, place.join(FOLDERS[1]).join(package)))
}

//! The files of versions on disk, for slots: containers that run already and get a function's files only then.
//!
//! An image stays the truth. A tree is taken out of a version's image, is a cache within SLOT_CACHE_SIZE, and is
//! verified at each use. A tree that a crash leaves half made has a name that counts for nothing.

mod budget;
mod tree;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::docker::platform::Platform;
use crate::docker::{Docker, DockerError, ExtractSpec, label};
use crate::domain::{ImageId, Language};
use crate::functions::Registry;
use crate::resources::clock;
use crate::resources::disk::{DiskSpace, LowDisk};
use crate::resources::scratch::Scratch;

pub use tree::{FOLDERS, Tree, TreeError};
use tree::{MAX_SIZE, Room};

/// The time limit of each docker command that takes a tree out of an image.
const LIMIT: Duration = Duration::from_secs(60);
/// What an archive may have beside the content, in bytes.
const MAX_OVERHEAD: u64 = 4 << 20;

/// The cache of trees, in a folder of its own below DATA_DIR.
#[derive(Debug)]
pub struct Trees {
    docker: Docker,
    platform: Arc<Platform>,
    registry: Arc<Registry>,
    scratch: Scratch,
    room: Arc<DiskSpace>,
    folder: PathBuf,
    budget: u64,
    known: Mutex<HashMap<ImageId, Known>>,
    /// Held while a tree is made: one at a time.
    making: tokio::sync::Mutex<()>,
    /// The container that files are taken out of just now.
    container: Mutex<Option<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What is known of an image's tree.
#[derive(Debug)]
enum Known {
    /// The tree is on disk, and was last used at this time.
    Ready(Arc<Tree>, SystemTime),
    /// The tree is being made, and no function had the image at a look meanwhile.
    Making { is_unneeded: bool },
    /// No tree can be made of the image.
    Unfit {
        /// The runtime image that the tree was to be made for.
        runtime: String,
    },
}

/// Why no tree was made.
#[derive(Debug, thiserror::Error)]
enum MakeError {
    #[error("{0}")]
    Unfit(&'static str),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    LowDisk(#[from] LowDisk),
    #[error("failed to write files")]
    Io(#[from] io::Error),
}

/// The parts that the cache is made of.
pub(crate) struct TreesParts {
    pub(crate) docker: Docker,
    pub(crate) platform: Arc<Platform>,
    /// Knows the images that functions have.
    pub(crate) registry: Arc<Registry>,
    pub(crate) scratch: Scratch,
    pub(crate) room: Arc<DiskSpace>,
    /// SLOT_CACHE_SIZE, in bytes.
    pub(crate) budget: u64,
    pub(crate) tasks: TaskTracker,
    /// Ends the making of trees.
    pub(crate) stop: CancellationToken,
}

impl Trees {
    /// Opens the cache, with the trees of earlier runs.
    pub(crate) async fn open(parts: TreesParts) -> io::Result<Arc<Self>> {
        let TreesParts { docker, platform, registry, scratch, room, budget, tasks, stop } = parts;
        let folder = platform.data_dir().join("trees");
        let place = folder.clone();
        let found = tokio::task::spawn_blocking(move || look(&place)).await.map_err(io::Error::other)??;
        let ready = |(image, tree, used)| (image, Known::Ready(Arc::new(tree), used));
        let known = Mutex::new(found.into_iter().map(ready).collect());
        let this = Arc::new(Self {
            docker,
            platform,
            registry,
            scratch,
            room,
            folder,
            budget,
            known,
            making: tokio::sync::Mutex::default(),
            container: Mutex::default(),
            tasks,
            stop,
        });
        this.remove_later(budget::surplus(&mut this.known.lock(), this.budget));
        Ok(this)
    }

    /// The tree of an image that was made for this runtime image, if the tree is on disk.
    pub fn get(&self, image: &ImageId, runtime: &str) -> Option<Arc<Tree>> {
        match self.known.lock().get(image) {
            Some(Known::Ready(tree, _)) if tree.runtime() == runtime => Some(Arc::clone(tree)),
            Some(_) | None => None,
        }
    }

    /// Makes the tree of an image in the background, unless the tree is there or can't be made. This program must
    /// have made the image, or have started the image with success.
    pub fn want(self: &Arc<Self>, image: &ImageId, language: Language, runtime: &str) {
        if self.budget == 0 || self.stop.is_cancelled() {
            return;
        }
        {
            let mut known = self.known.lock();
            match known.get(image) {
                Some(Known::Ready(tree, _)) if tree.runtime() != runtime => {}
                Some(Known::Unfit { runtime: tried }) if tried != runtime => {}
                Some(Known::Ready(..) | Known::Making { .. } | Known::Unfit { .. }) => return,
                None if !budget::has_room(&known, self.budget, clock::now()) => return,
                None => {}
            }
            if let Some(Known::Ready(old, _)) = known.insert(image.clone(), Known::Making { is_unneeded: false }) {
                self.remove_later(vec![old]);
            }
        }
        let (this, image, runtime) = (Arc::clone(self), image.clone(), runtime.to_owned());
        self.tasks.spawn(async move {
            let made = {
                let _one = tokio::select! {
                    one = this.making.lock() => one,
                    // At a stop many trees may wait for their turns.
                    () = this.stop.cancelled() => return this.note(image, None),
                };
                this.make(&image, language, &runtime).await
            };
            let known = match made {
                Ok(tree) if this.budget < tree.size() => {
                    tracing::info!(
                        image = image.as_str(),
                        "the image's function takes no slot: its files are larger than \
                                                            SLOT_CACHE_SIZE"
                    );
                    this.remove_later(vec![Arc::new(tree)]);
                    Some(Known::Unfit { runtime })
                }
                Ok(tree) => Some(Known::Ready(Arc::new(tree), clock::now())),
                Err(error @ (MakeError::Unfit(_) | MakeError::Tree(TreeError::Special(_) | TreeError::TooLarge))) => {
                    tracing::info!(image = image.as_str(), %error, "the image's function takes no slot");
                    Some(Known::Unfit { runtime })
                }
                Err(_) if this.stop.is_cancelled() => None,
                Err(error) => {
                    let error = format!("{:#}", anyhow::Error::from(error));
                    tracing::warn!(image = image.as_str(), error, "failed to take the files out of an image");
                    None
                }
            };
            this.note(image, known);
        });
    }

    /// Notes how the making of a tree has ended.
    fn note(self: &Arc<Self>, image: ImageId, made: Option<Known>) {
        let before = {
            let mut known = self.known.lock();
            match made {
                Some(made) => known.insert(image, made),
                None => known.remove(&image),
            }
        };
        // The function may have been deleted meanwhile. A version that was not in the registry then may be there now.
        if matches!(before, Some(Known::Making { is_unneeded: true })) {
            self.retain();
        }
        self.remove_later(budget::surplus(&mut self.known.lock(), self.budget));
    }

    /// Whether files are taken out of this container just now. The container never runs.
    pub fn is_reading(&self, container: &str) -> bool {
        self.container.lock().as_deref() == Some(container)
    }

    /// Copies a tree to the folder `into`. A tree that is damaged is removed.
    pub async fn copy(self: &Arc<Self>, image: &ImageId, tree: &Arc<Tree>, into: PathBuf) -> Result<(), TreeError> {
        if let Some(Known::Ready(_, used)) = self.known.lock().get_mut(image) {
            *used = clock::now();
        }
        let source = Arc::clone(tree);
        let copied = self.tasks.spawn_blocking(move || source.copy_to(&into)).await.map_err(io::Error::other)?;
        if let Err(error @ (TreeError::Damaged | TreeError::Io(_))) = &copied {
            tracing::warn!(image = image.as_str(), %error, "a version's files on disk can't be used, and are removed");
            let mut known = self.known.lock();
            if matches!(known.get(image), Some(Known::Ready(current, _)) if Arc::ptr_eq(current, tree)) {
                known.remove(image);
                self.remove_later(vec![Arc::clone(tree)]);
            }
        }
        copied
    }

    /// Removes all trees of images that no function has.
    pub fn retain(&self) {
        let functions = self.registry.list();
        let versions = functions.iter().flat_map(|function| function.versions());
        let images: HashSet<ImageId> = versions.map(|version| version.image().id).collect();
        let mut gone = Vec::new();
        self.known.lock().retain(|image, known| match known {
            _ if images.contains(image) => true,
            Known::Ready(tree, _) => {
                gone.push(Arc::clone(tree));
                false
            }
            Known::Making { is_unneeded } => {
                *is_unneeded = true;
                true
            }
            Known::Unfit { .. } => false,
        });
        self.remove_later(gone);
    }

    async fn make(&self, image: &ImageId, language: Language, runtime: &str) -> Result<Tree, MakeError> {
        self.room.check().await?;
        let (arguments, packages) = self.docker.arguments_and_label(image.as_str(), label::PACKAGES).await?;
        let paths = match language {
            Language::Python => {
                if !packages.is_empty() {
                    return Err(MakeError::Unfit("the function has installed packages"));
                }
                &["/app"][..]
            }
            Language::Go => &["/app", "/function"],
        };
        // The layers may differ where the content is the same: each node makes a runtime image of its own.
        let own = self.docker.label(image.as_str(), label::RUNTIME).await?;
        if own.as_deref() != runtime.rsplit_once(':').map(|(_, hash)| hash) {
            return Err(MakeError::Unfit("the image was made from another runtime image"));
        }
        let mut archives = Vec::new();
        for _ in paths {
            archives.push(self.scratch.file().await?);
        }
        let files = archives.iter().map(|file| file.share()).collect::<io::Result<_>>()?;
        let name = format!("youtube-serverless-tree-{}", Uuid::new_v4());
        let labels = [
            (label::PLATFORM, self.platform.id().to_string()),
            (label::RUN, self.platform.run().to_string()),
            (label::LANGUAGE, language.as_str().to_owned()),
        ];
        let max_size = MAX_SIZE + MAX_OVERHEAD;
        let spec = ExtractSpec { image: image.as_str(), name: &name, labels: &labels, paths, max_size, limit: LIMIT };
        *self.container.lock() = Some(name.clone());
        let extracted = self.docker.extract(&spec, files, &self.stop).await;
        *self.container.lock() = None;
        if !extracted? {
            return Err(TreeError::TooLarge.into());
        }
        let files = archives.iter().map(|file| file.share()).collect::<io::Result<Vec<_>>>()?;
        // No other tree of the image had this folder: an old tree may still be on its way out.
        let place = self.folder.join(format!("{}.{}", image.as_str().replace(':', "-"), Uuid::new_v4()));
        let (draft, runtime) = (self.folder.join(format!(".{}", Uuid::new_v4())), runtime.to_owned());
        let unpacked = self.tasks.spawn_blocking(move || {
            let unpacked = unpack(files, &draft).and_then(|()| Tree::complete(&draft, place, &runtime, arguments));
            if unpacked.is_err() {
                let _ = fs::remove_dir_all(&draft);
            }
            unpacked
        });
        Ok(unpacked.await.map_err(io::Error::other)??)
    }

    /// Removes trees, each when no copy of the tree is under way.
    fn remove_later(&self, trees: Vec<Arc<Tree>>) {
        if trees.is_empty() {
            return;
        }
        self.tasks.spawn_blocking(move || {
            for tree in trees {
                if let Err(error) = tree.remove() {
                    let path = tree.folder().display();
                    tracing::warn!(%path, %error, "failed to remove a version's files, leaving them to the next start");
                }
            }
        });
    }
}

/// The trees in the folder of the cache, with the times of their last use. Removes all else.
fn look(folder: &Path) -> io::Result<Vec<(ImageId, Tree, SystemTime)>> {
    fs::create_dir_all(folder)?;
    let mut found: HashMap<ImageId, (Tree, SystemTime)> = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let image = name.split_once('.').and_then(|(image, _)| ImageId::parse(&image.replacen('-', ":", 1)));
        match image.zip(Tree::load(path.clone())) {
            // A crash may leave two trees of one image.
            Some((image, (tree, used))) => {
                let unwanted = match found.get(&image) {
                    Some((_, other)) if *other >= used => Some((tree, used)),
                    Some(_) | None => found.insert(image, (tree, used)),
                };
                unwanted.iter().for_each(|(tree, _)| discard(tree.folder()));
            }
            None => discard(&path),
        }
    }
    Ok(found.into_iter().map(|(image, (tree, used))| (image, tree, used)).collect())
}

/// Removes a file or folder that does not belong to the cache.
fn discard(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) | Err(_) => fs::remove_file(path),
    };
    if let Err(error) = removed {
        tracing::warn!(path = %path.display(), %error, "this belongs to no version, and can't be removed");
    }
}

fn unpack(archives: Vec<fs::File>, draft: &Path) -> Result<(), TreeError> {
    fs::create_dir(draft)?;
    let mut room = Room::default();
    let [app, code] = FOLDERS;
    fs::create_dir(draft.join(code))?;
    for (mut archive, (name, into)) in
        archives.into_iter().zip([(app, draft.to_owned()), ("function", draft.join(code))])
    {
        archive.rewind()?;
        tree::unpack(archive, name, &into, &mut room)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_tree_is_removed_and_of_two_trees_the_one_used_last_stays() {
        let dir = tempfile::tempdir().unwrap();
        let image = format!("sha256-{}", "0".repeat(64));
        fs::write(dir.path().join("stray"), "file").unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("link")).unwrap();
        fs::create_dir_all(dir.path().join(".draft/app")).unwrap();
        fs::create_dir(dir.path().join(format!("{image}.no-manifest"))).unwrap();
        for (suffix, used) in [("a", 1_000_000_001), ("b", 1_000_000_002), ("c", 1_000_000_000)] {
            let draft = dir.path().join(suffix);
            FOLDERS.iter().for_each(|name| fs::create_dir_all(draft.join(name)).unwrap());
            let place = dir.path().join(format!("{image}.{suffix}"));
            Tree::complete(&draft, place.clone(), "runtime", Vec::new()).unwrap();
            fs::File::open(place).unwrap().set_modified(clock::at(used)).unwrap();
        }
        let found = look(dir.path()).unwrap();
        let [(found, tree, used)] = &found[..] else { panic!("one tree") };
        assert_eq!((found.as_str(), *used), (&*image.replacen('-', ":", 1), clock::at(1_000_000_002)));
        assert!(tree.folder().ends_with(format!("{image}.b")));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

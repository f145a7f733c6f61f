//! The files of versions on disk, for slots: containers that run already and get a function's files only then.
//!
//! An image stays the truth. A tree is taken out of a version's image, is a cache within SLOT_CACHE_SIZE, and is
//! verified at each use. A tree that a crash leaves half made has a name that counts for nothing.

mod tree;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::docker::platform::Platform;
use crate::docker::{Docker, DockerError, ExtractSpec, label};
use crate::domain::{ImageId, Language};
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
    scratch: Scratch,
    folder: PathBuf,
    budget: u64,
    known: Mutex<HashMap<ImageId, Known>>,
    /// Held while a tree is made: one at a time.
    making: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What is known of an image's tree.
#[derive(Debug)]
enum Known {
    /// The tree is on disk, and was last used at this time.
    Ready(Arc<Tree>, Instant),
    /// The tree is being made.
    Making,
    /// No tree can be made of the image.
    Unfit,
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
    #[error("failed to write files")]
    Io(#[from] io::Error),
}

/// The parts that the cache is made of.
pub(crate) struct TreesParts {
    pub(crate) docker: Docker,
    pub(crate) platform: Arc<Platform>,
    pub(crate) scratch: Scratch,
    /// SLOT_CACHE_SIZE, in bytes.
    pub(crate) budget: u64,
    pub(crate) tasks: TaskTracker,
    /// Ends the making of trees.
    pub(crate) stop: CancellationToken,
}

impl Trees {
    /// Opens the cache, with the trees of earlier runs.
    pub(crate) async fn open(parts: TreesParts) -> io::Result<Arc<Self>> {
        let TreesParts { docker, platform, scratch, budget, tasks, stop } = parts;
        let folder = platform.data_dir().join("trees");
        let place = folder.clone();
        let found = tokio::task::spawn_blocking(move || look(&place)).await.map_err(io::Error::other)??;
        let ready = |(image, tree)| (image, Known::Ready(Arc::new(tree), Instant::now()));
        let known = Mutex::new(found.into_iter().map(ready).collect());
        let making = tokio::sync::Mutex::default();
        let this = Arc::new(Self { docker, platform, scratch, folder, budget, known, making, tasks, stop });
        this.remove_later(this.surplus());
        Ok(this)
    }

    /// The tree of an image that was made for this runtime image, if the tree is on disk.
    pub fn get(&self, image: &ImageId, runtime: &str) -> Option<Arc<Tree>> {
        match self.known.lock().get(image) {
            Some(Known::Ready(tree, _)) if tree.runtime() == runtime => Some(Arc::clone(tree)),
            Some(_) | None => None,
        }
    }

    /// Makes the tree of an image in the background, unless the tree is there or can't be made. The image must have
    /// been started with success by this program.
    pub fn want(self: &Arc<Self>, image: &ImageId, language: Language, runtime: &str) {
        if self.budget == 0 || self.stop.is_cancelled() {
            return;
        }
        {
            let mut known = self.known.lock();
            match known.get(image) {
                Some(Known::Ready(tree, _)) if tree.runtime() != runtime => {}
                Some(Known::Ready(..) | Known::Making | Known::Unfit) => return,
                None => {}
            }
            known.insert(image.clone(), Known::Making);
        }
        let (this, image, runtime) = (Arc::clone(self), image.clone(), runtime.to_owned());
        self.tasks.spawn(async move {
            let made = {
                let _one = this.making.lock().await;
                this.make(&image, language, &runtime).await
            };
            let mut known = this.known.lock();
            match made {
                Ok(tree) => drop(known.insert(image, Known::Ready(Arc::new(tree), Instant::now()))),
                Err(error @ (MakeError::Unfit(_) | MakeError::Tree(TreeError::Special(_) | TreeError::TooLarge))) => {
                    tracing::info!(image = image.as_str(), %error, "the image's function takes no slot");
                    known.insert(image, Known::Unfit);
                }
                Err(error) => {
                    if !this.stop.is_cancelled() {
                        tracing::warn!(image = image.as_str(), %error, "failed to take the files out of an image");
                    }
                    known.remove(&image);
                }
            }
            drop(known);
            this.remove_later(this.surplus());
        });
    }

    /// Copies a tree to the folder `into`. A tree that is damaged is removed.
    pub async fn copy(self: &Arc<Self>, image: &ImageId, tree: &Arc<Tree>, into: PathBuf) -> Result<(), TreeError> {
        if let Some(Known::Ready(_, used)) = self.known.lock().get_mut(image) {
            *used = Instant::now();
        }
        let source = Arc::clone(tree);
        let copied = self.tasks.spawn_blocking(move || source.copy_to(&into)).await.map_err(io::Error::other)?;
        if let Err(error) = &copied {
            tracing::warn!(image = image.as_str(), %error, "a version's files on disk can't be used, and are removed");
            self.known.lock().remove(image);
            self.remove_later(vec![tree.folder().to_owned()]);
        }
        copied
    }

    /// Removes all trees but those of these images.
    pub fn retain(&self, images: &HashSet<ImageId>) {
        let mut gone = Vec::new();
        self.known.lock().retain(|image, known| match known {
            _ if images.contains(image) => true,
            Known::Ready(tree, _) => {
                gone.push(tree.folder().to_owned());
                false
            }
            Known::Making => true,
            Known::Unfit => false,
        });
        self.remove_later(gone);
    }

    async fn make(&self, image: &ImageId, language: Language, runtime: &str) -> Result<Tree, MakeError> {
        let (arguments, packages) = self.docker.arguments_and_label(image.as_str(), label::PACKAGES).await?;
        let paths = match language {
            Language::Python => {
                if !packages.is_empty() {
                    return Err(MakeError::Unfit("the function has installed packages"));
                }
                // The layers may differ where the content is the same: each node makes a runtime image of its own.
                let own = self.docker.label(image.as_str(), label::RUNTIME).await?;
                if own.as_deref() != runtime.rsplit_once(':').map(|(_, hash)| hash) {
                    return Err(MakeError::Unfit("the image was made from another runtime image"));
                }
                &["/app"][..]
            }
            Language::Go => &["/app", "/function"],
        };
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
        if !self.docker.extract(&spec, files, &self.stop).await? {
            return Err(TreeError::TooLarge.into());
        }
        let files = archives.iter().map(|file| file.share()).collect::<io::Result<Vec<_>>>()?;
        let place = self.folder.join(place_of(image));
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

    /// Forgets the trees that were not used for the longest time, while all trees are over the budget. Returns the
    /// folders of these trees.
    fn surplus(&self) -> Vec<PathBuf> {
        let mut known = self.known.lock();
        let mut ready: Vec<(Instant, ImageId, u64)> = known
            .iter()
            .filter_map(|(image, known)| match known {
                Known::Ready(tree, used) => Some((*used, image.clone(), tree.size())),
                Known::Making | Known::Unfit => None,
            })
            .collect();
        ready.sort_by_key(|&(used, ..)| used);
        let mut total: u64 = ready.iter().map(|&(.., size)| size).sum();
        let mut gone = Vec::new();
        for (_, image, size) in ready {
            if total <= self.budget {
                break;
            }
            total -= size;
            if let Some(Known::Ready(tree, _)) = known.remove(&image) {
                gone.push(tree.folder().to_owned());
            }
        }
        gone
    }

    fn remove_later(&self, folders: Vec<PathBuf>) {
        if folders.is_empty() {
            return;
        }
        self.tasks.spawn_blocking(move || {
            for folder in folders {
                if let Err(error) = fs::remove_dir_all(&folder) {
                    tracing::warn!(path = %folder.display(), %error, "failed to remove a version's files");
                }
            }
        });
    }
}

/// The name of the folder of an image's tree.
fn place_of(image: &ImageId) -> String {
    image.as_str().replace(':', "-")
}

/// The trees in the folder of the cache. Removes all else.
fn look(folder: &Path) -> io::Result<Vec<(ImageId, Tree)>> {
    fs::create_dir_all(folder)?;
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let image = ImageId::parse(&name.replacen('-', ":", 1));
        match image.zip(Tree::load(path.clone())) {
            Some(tree) => found.push(tree),
            None => fs::remove_dir_all(&path)?,
        }
    }
    Ok(found)
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

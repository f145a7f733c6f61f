//! Makes an image from a zip. Nothing is unpacked before the build's turn.

use std::fs::{self, File};
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::{ImageError, Images};
use crate::build::package::{self, Choice, Package};
use crate::build::{BuildError, Built, CODE_FOLDER, Place, Source, Turn};
use crate::docker::LiveLog;
use crate::domain::{FunctionName, Language, VersionId};

/// The version that an image is made for.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The version's id.
    pub id: VersionId,
    /// The function's name.
    pub name: FunctionName,
    /// The program's language; None to detect the language.
    pub language: Option<Language>,
    /// The file that the interpreter runs; None to choose a file by its name.
    pub entry: Option<String>,
    /// Whether a file of the manifest's name is a file like any other.
    pub keeps_manifest: bool,
    /// When the version was created, in Unix seconds.
    pub created_at: u64,
    /// How many bytes the zip's content had when an image was made from the zip before; None for a new version. The
    /// content may have as many bytes again, whatever the limit is now.
    pub unpacked_size: Option<u64>,
}

impl Images {
    /// Takes a place among the builds. Fails with [`BuildError::QueueFull`] when there is none.
    pub fn enter(&self) -> Result<Place, BuildError> {
        self.builder.enter()
    }

    /// Waits for the turn of the build that has this place, and then checks that the disks have room: nothing is
    /// unpacked before the turn.
    pub async fn turn(&self, place: &Place, stop: &CancellationToken) -> Result<Turn, ImageError> {
        let turn = self.builder.turn(place, stop).await?;
        self.room.check().await?;
        Ok(turn)
    }

    /// Makes an image from a zip, and pushes the image where there is a registry. An error leaves no image but one that
    /// could not be pushed, which goes with its pin. The unpacked files are removed when this function returns.
    pub async fn make(
        &self,
        turn: &Turn,
        draft: &Draft,
        zip: File,
        live: Option<&LiveLog>,
        stop: &CancellationToken,
    ) -> Result<(Package, Built), ImageError> {
        let context = self.scratch.folder().await?;
        let made = self.make_in(context.path(), turn, draft, zip, live, stop).await;
        context.remove().await;
        let (package, mut built) = made?;
        // This push is a part of the build's turn, so that not all builds push at one time.
        built.image.digest = self.push(draft.id, &built.image, draft.unpacked_size.is_none(), stop).await?;
        Ok((package, built))
    }

    async fn make_in(
        &self,
        context: &Path,
        turn: &Turn,
        draft: &Draft,
        mut zip: File,
        live: Option<&LiveLog>,
        stop: &CancellationToken,
    ) -> Result<(Package, Built), ImageError> {
        let code = context.join(CODE_FOLDER);
        let Draft { language, keeps_manifest, ref entry, .. } = *draft;
        let entry = entry.clone();
        let max_size = self.settings.max_unpacked_size.max(draft.unpacked_size.unwrap_or(0));
        let package = tokio::task::spawn_blocking(move || {
            fs::create_dir(&code)?;
            let choice = Choice { language, entry: entry.as_deref(), keeps_manifest };
            Ok::<_, ImageError>(package::open(&mut zip, &code, max_size, choice)?)
        })
        .await??;
        let Draft { id, ref name, created_at, unpacked_size, .. } = *draft;
        let is_new = unpacked_size.is_none();
        let source = Source { id, name, program: &package.program, created_at, is_new, context, live };
        let built = self.builder.build(turn, &source, stop).await?;
        Ok((package, built))
    }
}

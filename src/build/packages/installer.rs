//! Makes the installer image, which installs Python packages: the runtime image with uv.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::time::Duration;

use tokio::time::Instant;

use super::{Job, Packages, Request, UV, hash_of, tree};
use crate::build::runtime_image::RuntimeError;
use crate::build::tree::TreeError;
use crate::build::{BuildError, build_image};
use crate::config::BuildNetwork;
use crate::docker::{BuildSpec, DockerError, label};
use crate::domain::Language;
use crate::resources::clock;
use crate::runtimes;

/// The file of a build context that holds the fetched tree.
const TREE: &str = "tree.tar";
/// The time limit for making the installer image. Downloading uv takes a few seconds.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How old another installer image must be to be removed. Another platform on this Docker may have another base image,
/// and has to make its installer image again once a day at most.
const GRACE: Duration = Duration::from_secs(24 * 3600);

impl Packages {
    /// The name of the installer image, which is made on first need, and the folder in which the interpreter looks for
    /// packages.
    pub(super) async fn installer(&self, job: &Job<'_>) -> Result<(String, String), BuildError> {
        let hash = hash_of(&[job.runtime, runtimes::download_program(Language::Python), UV]);
        let image = format!("{}-runtime/python-installer:{hash}", self.config.image_prefix);
        let _one = job.lock(&self.installer, self.config.timeout).await?;
        if let Some(site) = self.docker.label(&image, label::SITE).await.map_err(BuildError::Docker)? {
            return Ok((image, site));
        }
        if self.config.network == BuildNetwork::None {
            return Err(BuildError::NoNetwork);
        }
        tracing::info!(image, "making the image that installs Python packages");
        let context = self.scratch.folder().await?;
        let job = Job { live: None, deadline: Instant::now() + LIMIT, ..*job };
        let request = Request::Tool { environment: self.config.environment.clone(), uv: UV };
        let program = ["python3", "-I", "-S", "-c", runtimes::download_program(Language::Python)];
        let tree = context.path().join(TREE);
        let take =
            move |from: &mut dyn Read| tree::copy(from, BufWriter::new(File::create(tree)?), "opt/youtube-serverless");
        let fetched =
            self.run(job.runtime, &program, request.input()?, (self.config.network, false), &job, take).await?;
        if !fetched.is_done {
            let (language, base) = (Language::Python, job.runtime.to_owned());
            return Err(BuildError::Runtime(RuntimeError::Step { language, base, log: fetched.log }));
        }
        if let Some(line) = fetched.log.lines().find(|line| line.starts_with("uv is not in the given index")) {
            tracing::warn!("{line}");
        }
        let last = fetched.value?;
        let site = last
            .strip_prefix("site")
            .filter(|site| is_plain_path(site))
            .ok_or_else(|| TreeError::Name(last.clone()))?;
        let created = clock::unix_seconds();
        let labels = [
            (label::LANGUAGE, Language::Python.as_str().to_owned()),
            (label::CREATED, created.to_string()),
            (label::SITE, site.to_owned()),
        ];
        // The label is the first step, so that the leftovers of a crash bear the label as well.
        let text =
            format!("FROM {}\nLABEL {}={}\nADD {TREE} /\n", job.runtime, label::LANGUAGE, Language::Python.as_str());
        tokio::fs::write(context.path().join("Dockerfile"), text).await?;
        let spec = BuildSpec {
            context: context.path(),
            tag: &image,
            labels: &labels,
            limit: job.left(),
            network: BuildNetwork::None,
            limits: None,
            builder: self.config.builder,
            live: None,
        };
        build_image(&self.docker, &spec, LIMIT, job.stop).await?;
        if let Err(error) = self.remove_old_installers(&image).await {
            tracing::warn!(%error, "failed to remove old installer images");
        }
        Ok((image, site.to_owned()))
    }

    /// Removes the installer images of earlier runtime images: an installer image keeps Docker from removing the
    /// runtime image below.
    async fn remove_old_installers(&self, current: &str) -> Result<(), DockerError> {
        let now = clock::unix_time();
        let named = format!("reference={}-runtime/python-installer", self.config.image_prefix);
        for image in self.docker.images(&[&named, &format!("label={}", label::SITE)]).await? {
            let name = format!("{}:{}", image.repository, image.tag);
            let created = self.docker.label(&name, label::CREATED).await?.unwrap_or_default();
            let age = now.saturating_sub(Duration::from_secs(created.parse().unwrap_or(0)));
            if name != current && age > GRACE {
                self.docker.remove_image_only(&name).await?;
            }
        }
        Ok(())
    }
}

/// Whether a path means the same in a Dockerfile and in a shell.
fn is_plain_path(path: &str) -> bool {
    path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}

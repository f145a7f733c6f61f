//! Pushes images to a registry and pulls images from there. The credentials are those of `docker login`.
//!
//! What functions need is reached by the engine only, never by this process or by the client (as `docker manifest
//! inspect` would): the engine knows the registry's certificate, and may be on another machine.

use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Docker, DockerError, QUERY_LIMIT, command, failed, is_disk_full, query, unexpected};
use crate::domain::{ImageDigest, ImageId};

/// How many times a pulled image is given its name. A removal of unnamed images may come between.
const NAMING_TRIES: u32 = 3;

/// Why an image did not get to a registry or from there.
#[derive(Debug, Error)]
pub enum ImageRegistryError {
    /// The registry does not answer, or is in trouble itself.
    #[error("the registry of images does not answer: {0}")]
    Unavailable(String),
    /// The registry does not have the image, or has only a damaged part of the image.
    #[error("the registry does not have the image: {0}")]
    Lost(String),
    /// The registry refuses: the credentials lack, or the registry takes no more.
    #[error("the registry refuses: {0}")]
    Refused(String),
    /// What the registry has is not what was pushed.
    #[error("the registry has another image than the one that was pushed to {0}")]
    OtherImage(String),
    /// Docker itself failed.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

impl Docker {
    /// Pushes an image by its name, and returns the digest by which the registry has the image.
    ///
    /// The digest of `docker push` is what the engine has computed. So the engine then asks the registry for the
    /// manifest by that digest: a pull of an image that is here fetches nothing else, in a tenth of a second.
    pub async fn push(
        &self,
        name: &str,
        image: &ImageId,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<ImageDigest, ImageRegistryError> {
        let deadline = Instant::now() + limit;
        let output = command::run(["push", "--", name], limit, stop).await.map_err(|error| late(error, name))?;
        if !output.status.success() {
            return Err(classify("push", &output.stderr));
        }
        let digest = pushed(&output.stdout).ok_or_else(|| unexpected("push", &output.stdout))?;
        let left = deadline.saturating_duration_since(Instant::now());
        let reference = by_digest(name, &digest);
        self.pull_only(&reference, left, stop).await?;
        let there = self.image(&reference).await?;
        if there.is_none_or(|there| there.id != *image) {
            return Err(ImageRegistryError::OtherImage(name.to_owned()));
        }
        Ok(digest)
    }

    /// Pulls an image by its digest from the repository of `name`, gives the image that name, and returns its id.
    pub async fn pull(
        &self,
        name: &str,
        digest: &ImageDigest,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<ImageId, ImageRegistryError> {
        let deadline = Instant::now() + limit;
        let reference = by_digest(name, digest);
        let mut tries = 0;
        loop {
            tries += 1;
            self.pull_only(&reference, deadline.saturating_duration_since(Instant::now()), stop).await?;
            match query("tag", QUERY_LIMIT, ["tag", &reference, name]).await {
                // Until an image has a name, a removal of dangling images takes the image for a leftover.
                Err(error) if error.is_missing_image() && tries < NAMING_TRIES => {}
                named => {
                    named?;
                    let image = self.image(name).await?;
                    return Ok(image.ok_or_else(|| failed("tag", "the image is not there after its pull"))?.id);
                }
            }
        }
    }

    async fn pull_only(
        &self,
        reference: &str,
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<(), ImageRegistryError> {
        let pulled = command::run(["pull", "--quiet", "--", reference], limit, stop).await;
        let output = pulled.map_err(|error| late(error, reference))?;
        if output.status.success() { Ok(()) } else { Err(classify("pull", &output.stderr)) }
    }
}

/// The reference of an image by its digest, in the repository of a name with a tag.
fn by_digest(name: &str, digest: &ImageDigest) -> String {
    // A colon before the last slash is that of the registry's port.
    let repository = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(name, |(before, _)| before);
    format!("{repository}@{}", digest.as_str())
}

/// A command that took too long waited for the registry: the engine itself has little to do for a push or a pull.
fn late(error: DockerError, reference: &str) -> ImageRegistryError {
    match error {
        DockerError::Timeout { limit } => {
            ImageRegistryError::Unavailable(format!("{reference} was not transferred within {limit:?}"))
        }
        error => error.into(),
    }
}

/// The digest in the output of `docker push`: `TAG: digest: sha256:... size: 123`. Some clients print a note after that
/// line.
fn pushed(said: &str) -> Option<ImageDigest> {
    let digest = |line: &str| ImageDigest::parse(line.split_once(": digest: ")?.1.split(' ').next()?);
    said.lines().rev().find_map(digest)
}

/// The error of a push or a pull, by the words of the engine and of the registry's API.
fn classify(command: &'static str, stderr: &str) -> ImageRegistryError {
    const LOST: [&str; 6] = [
        "manifest unknown",
        "name unknown",
        "unknown blob",
        "blob unknown",
        "repository name not known",
        // A layer in the registry is damaged.
        "verification failed for digest",
    ];
    const AWAY: [&str; 17] = [
        "connection refused",
        "connection reset",
        "broken pipe",
        "no route to host",
        "network is unreachable",
        "no such host",
        "server misbehaving",
        "name resolution",
        "timeout",
        "deadline exceeded",
        "eof",
        "toomanyrequests",
        "http status: 429",
        "http status: 500",
        "http status: 502",
        "http status: 503",
        "http status: 504",
    ];
    // The engine's answer broke off: the engine stops, and says nothing about the registry.
    if stderr.trim().eq_ignore_ascii_case("unexpected eof") {
        return DockerError::Unavailable(stderr.trim().to_owned()).into();
    }
    let error = failed(command, stderr);
    let DockerError::Failed { message, .. } = &error else { return error.into() };
    let said = message.to_ascii_lowercase();
    let says = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
    if is_disk_full(&said) {
        return error.into();
    }
    if says(&LOST) {
        ImageRegistryError::Lost(message.clone())
    } else if says(&AWAY) {
        ImageRegistryError::Unavailable(message.clone())
    } else {
        ImageRegistryError::Refused(message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA256: &str = "sha256:7fe1690e604db027cad2e35f783aff896be9ab3fe75e5e52ea8d7a3a5a48a9ba";

    #[test]
    fn the_digest_is_in_the_output_of_a_push() {
        let said = format!("The push refers to repository [a/b]\ne6f: Pushed\none: digest: {SHA256} size: 524\nnote\n");
        let digest = pushed(&said).expect("a digest");
        assert_eq!(digest.as_str(), SHA256);
        assert_eq!(pushed("The push refers to repository [a/b]\n"), None);
        for (name, repository) in [("host:5000/a/b:tag", "host:5000/a/b"), ("localhost/b:t-2", "localhost/b")] {
            assert_eq!(by_digest(name, &digest), format!("{repository}@{SHA256}"));
        }
    }

    #[test]
    fn a_registry_that_is_away_is_no_registry_that_lost_an_image() {
        let kind = |said: &str| match classify("pull", said) {
            ImageRegistryError::Unavailable(_) => "away",
            ImageRegistryError::Lost(_) => "lost",
            ImageRegistryError::Refused(_) => "refused",
            ImageRegistryError::OtherImage(_) => "other",
            ImageRegistryError::Docker(_) => "docker",
        };
        // These are messages of Docker 20.10 with docker-registry 2.8.
        for (said, expected) in [
            ("manifest for a/b@sha256:1 not found: manifest unknown: manifest unknown", "lost"),
            ("Get \"http://127.0.0.1:5987/v2/\": dial tcp 127.0.0.1:5987: connect: connection refused", "away"),
            ("Get \"https://no.host:5000/v2/\": dial tcp: lookup no.host on 10.0.0.1:53: no such host", "away"),
            ("received unexpected HTTP status: 503 Service Unavailable", "away"),
            ("received unexpected HTTP status: 507 Insufficient Storage", "refused"),
            ("unauthorized: authentication required", "refused"),
            ("error parsing HTTP 404 response body: no error details found in HTTP response body: \"{}\"", "refused"),
            ("Get \"https://h/v2/\": http: server gave HTTP response to HTTPS client", "refused"),
            ("write /var/lib/docker/tmp/x: no space left on device", "docker"),
        ] {
            assert_eq!(kind(&format!("Error response from daemon: {said}")), expected, "{said}");
        }
        assert_eq!(kind("unexpected EOF\n"), "docker");
        assert_eq!(kind("Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?"), "docker");
    }
}

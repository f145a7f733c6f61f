//! An image made of another and an archive, in one pass: faster than a build, which takes an archive apart twice.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Child;
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::download::LOOKS;
use super::{Docker, DockerError, command, failed};

/// What docker says of a failure is shorter, in bytes.
const MAX_SAID: u64 = 64 << 10;

/// A container that is only there to be filled, and never started. Whoever holds it must call [`Layer::remove`] in the end.
#[must_use]
#[derive(Debug)]
pub struct Layer {
    docker: Docker,
    name: String,
    filling: Child,
}

impl Layer {
    /// Makes the container, and returns where the archive goes that fills it. The image will have the labels, too.
    pub async fn create(
        docker: &Docker,
        name: String,
        image: &str,
        labels: &[(&'static str, String)],
        limit: Duration,
        stop: &CancellationToken,
    ) -> Result<(Self, File), DockerError> {
        let mut args: Vec<String> = ["create", "--network=none", "--pull=never"].map(str::to_owned).into();
        args.push(format!("--name={name}"));
        args.extend(labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        // Images that are no more than a base have no program of their own.
        args.extend(["--", image, "true"].map(str::to_owned));
        let created = command::run(args, limit, stop)
            .await
            .and_then(|output| if output.status.success() { Ok(()) } else { Err(failed("create", &output.stderr)) });
        let mut filler = command::docker();
        filler.args(["cp", "-", &format!("{name}:/")]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let filling = created.and_then(|()| {
            let mut filling = filler.spawn().map_err(DockerError::Spawn)?;
            let pipe = filling.stdin.take().expect("stdin is piped").into_owned_fd().map_err(DockerError::Spawn)?;
            Ok((filling, File::from(pipe)))
        });
        match filling {
            Ok((filling, pipe)) => Ok((Self { docker: docker.clone(), name, filling }, pipe)),
            Err(error) => {
                remove(docker, &name).await;
                Err(error)
            }
        }
    }

    /// Waits until all that was written is there, and makes the image.
    pub async fn commit(&mut self, tag: &str, limit: Duration, stop: &CancellationToken) -> Result<(), DockerError> {
        let mut said = String::new();
        let stderr = self.filling.stderr.take().expect("stderr is piped, and taken once");
        let filled = async {
            stderr.take(MAX_SAID).read_to_string(&mut said).await?;
            self.filling.wait().await
        };
        let status = tokio::select! {
            status = filled => status.map_err(DockerError::Spawn)?,
            () = time::sleep(limit) => return Err(DockerError::Timeout { limit }),
            () = stop.cancelled() => return Err(DockerError::Cancelled),
        };
        if !status.success() {
            return Err(failed("cp", &said));
        }
        let output = command::run(["commit", "--", &self.name, tag], limit, stop).await?;
        if output.status.success() { Ok(()) } else { Err(failed("commit", &output.stderr)) }
    }

    /// Removes the container. What can't be removed now is found by its labels.
    pub async fn remove(mut self) {
        command::kill_and_wait(&mut self.filling).await;
        remove(&self.docker, &self.name).await;
    }
}

async fn remove(docker: &Docker, name: &str) {
    for pause in LOOKS {
        time::sleep(pause).await;
        match docker.remove_container(name).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::warn!(container.name = name, %error, "failed to remove a container"),
        }
    }
}

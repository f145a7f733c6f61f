//! Takes files out of an image, as archives.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{Docker, DockerError, QUERY_LIMIT, command, failed, query, unexpected};

/// The most bytes that are read of the message of `docker cp`.
const MAX_SAID: u64 = 64 << 10;

/// What is to be taken out of an image.
#[derive(Debug)]
pub struct ExtractSpec<'a> {
    /// The image's id.
    pub image: &'a str,
    /// The name of the container that is made for this, and removed.
    pub name: &'a str,
    /// The names and values of the container's labels.
    pub labels: &'a [(&'static str, String)],
    /// The folders and files of the image.
    pub paths: &'a [&'a str],
    /// The most bytes of one archive.
    pub max_size: u64,
    /// The time limit of each docker command.
    pub limit: Duration,
}

impl Docker {
    /// Writes each path of an image as a tar archive into the file of the same place in `files`. The image's container
    /// never runs. False when an archive has more than `max_size` bytes.
    pub async fn extract(
        &self,
        spec: &ExtractSpec<'_>,
        files: Vec<File>,
        stop: &CancellationToken,
    ) -> Result<bool, DockerError> {
        if stop.is_cancelled() {
            return Err(DockerError::Cancelled);
        }
        let mut args: Vec<String> = ["create", "--network=none", "--pull=never"].map(str::to_owned).into();
        args.push(format!("--name={}", spec.name));
        args.extend(spec.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        args.extend(["--", spec.image].map(str::to_owned));
        let created = command::run(args, spec.limit, stop)
            .await
            .and_then(|output| if output.status.success() { Ok(()) } else { Err(failed("create", &output.stderr)) });
        let copied = match created {
            Ok(()) => copy_all(spec, files, stop).await,
            Err(error) => Err(error),
        };
        self.remove_late_container(spec.name).await;
        copied
    }

    /// The arguments that an image gives to its program, and the value of a label, which is empty where the image has
    /// no such label.
    pub async fn arguments_and_label(&self, image: &str, label: &str) -> Result<(Vec<String>, String), DockerError> {
        let format = format!("[{{{{json .Config.Cmd}}}},{{{{json (index .Config.Labels {label:?})}}}}]");
        let said = query("image inspect", QUERY_LIMIT, ["image", "inspect", "--format", &format, "--", image]).await?;
        let (arguments, label): (Option<Vec<String>>, String) =
            serde_json::from_str(&said).map_err(|_| unexpected("image inspect", &said))?;
        Ok((arguments.unwrap_or_default(), label))
    }
}

async fn copy_all(spec: &ExtractSpec<'_>, files: Vec<File>, stop: &CancellationToken) -> Result<bool, DockerError> {
    for (path, file) in spec.paths.iter().zip(files) {
        let mut client = command::docker();
        client.args(["cp", &format!("{}:{path}", spec.name), "-"]);
        let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(DockerError::Spawn)?;
        let stdout = client.stdout.take().expect("stdout is piped");
        let stderr = client.stderr.take().expect("stderr is piped");
        let copied = async {
            let mut said = String::new();
            let mut file = tokio::fs::File::from_std(file);
            let mut archive = stdout.take(spec.max_size + 1);
            let (copied, _) = tokio::join!(tokio::io::copy(&mut archive, &mut file), async {
                stderr.take(MAX_SAID).read_to_string(&mut said).await
            });
            file.flush().await?;
            copied.map(|size| (size, said))
        };
        let copied = tokio::select! {
            copied = copied => copied.map_err(DockerError::Spawn),
            () = time::sleep(spec.limit) => Err(DockerError::Timeout { limit: spec.limit }),
            () = stop.cancelled() => Err(DockerError::Cancelled),
        };
        let (size, said) = match copied {
            Ok((size, said)) if size <= spec.max_size => (size, said),
            // The client of a larger archive would wait for its reader.
            other => {
                command::kill_and_wait(&mut client).await;
                return other.map(|_| false);
            }
        };
        match time::timeout(spec.limit, client.wait()).await {
            Ok(Ok(status)) if status.success() && size > 0 => {}
            Ok(Ok(_)) => return Err(failed("cp", &said)),
            Ok(Err(error)) => return Err(DockerError::Spawn(error)),
            Err(_) => {
                command::kill_and_wait(&mut client).await;
                return Err(DockerError::Timeout { limit: spec.limit });
            }
        }
    }
    Ok(true)
}

//! `docker build`, with the classic builder as well as with BuildKit.

use std::path::Path;
use std::time::Duration;

use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::log::{LiveLog, end, exit_status, is_failed_step, own_lines, tail};
use super::{Docker, DockerError, InspectedImage, command, failed};
use crate::config::{BuildNetwork, ImageBuilder};

/// An image to be built.
#[derive(Debug)]
pub struct BuildSpec<'a> {
    /// The folder that is sent to the daemon. The folder holds the `Dockerfile`.
    pub context: &'a Path,
    /// The image's name.
    pub tag: &'a str,
    /// The names and values of the image's labels.
    pub labels: &'a [(&'static str, String)],
    /// The build's deadline.
    pub limit: Duration,
    /// The network that the steps can reach.
    pub network: BuildNetwork,
    /// The limits of each step: memory in bytes and processors. None means no limit. BuildKit does not take these
    /// limits.
    pub limits: Option<(u64, f64)>,
    /// The part of Docker that builds the image.
    pub builder: ImageBuilder,
    /// Gets the lines that the steps print during the build.
    pub live: Option<&'a LiveLog>,
}

/// The period of the processor limit in microseconds: a step gets its share of each period.
const CPU_PERIOD: f64 = 100_000.0;

/// Why there is no image.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A step of the Dockerfile failed, so the fault lies in the input of the build.
    #[error("the build failed")]
    Step {
        /// The end of the output of the steps.
        log: String,
        /// The step's exit status, when the builder reports the status.
        exit_status: Option<i32>,
        /// Whether a process of the step was killed, as the kernel does when memory is short.
        killed: bool,
    },
    /// Docker itself failed.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

impl Docker {
    /// Builds an image, and returns the image with the end of the output of the steps. The build ends early when `stop`
    /// is cancelled.
    pub async fn build(
        &self,
        spec: &BuildSpec<'_>,
        stop: &CancellationToken,
    ) -> Result<(InspectedImage, String), BuildError> {
        let mut args: Vec<String> = ["build", "--force-rm"].map(str::to_owned).into();
        args.push(format!("--tag={}", spec.tag));
        if spec.network == BuildNetwork::None {
            args.push("--network=none".to_owned());
        }
        if let (Some((memory, cpus)), ImageBuilder::Classic) = (spec.limits, spec.builder) {
            args.extend([format!("--memory={memory}"), format!("--memory-swap={memory}")]);
            args.extend([format!("--cpu-period={CPU_PERIOD}"), format!("--cpu-quota={:.0}", cpus * CPU_PERIOD)]);
        }
        args.extend(spec.labels.iter().map(|(name, value)| format!("--label={name}={value}")));
        let mut command = command::docker();
        let with_buildkit = match spec.builder {
            ImageBuilder::Classic => "0",
            ImageBuilder::BuildKit => "1",
        };
        command.env("DOCKER_BUILDKIT", with_buildkit);
        command.args(args).arg("--file").arg(spec.context.join("Dockerfile")).arg("--").arg(spec.context);
        let output = {
            let hear = |is_stderr: bool, bytes: &[u8]| spec.live.map_or((), |live| live.hear(is_stderr, bytes));
            command::run_to_end(command, spec.limit, stop, Some(&hear)).await?
        };
        // Parsing this text blocks the thread's other tasks, so only the end is parsed.
        let said = format!("{}{}", end(&output.stdout), end(&output.stderr));
        let said = end(&said);
        let log = tail(&own_lines(said)).to_owned();
        if !output.status.success() {
            return Err(if is_failed_step(said) {
                let exit_status = exit_status(said);
                // Go prints this signal when its compiler was killed. Status 137 means that the step itself was killed.
                let killed = log.contains("signal: killed") || exit_status == Some(137);
                BuildError::Step { log, exit_status, killed }
            } else {
                failed("build", &output.stderr).into()
            });
        }
        let image = self.image(spec.tag).await?;
        let image = image.ok_or_else(|| failed("build", "the image is not there after its build"))?;
        Ok((image, log))
    }
}

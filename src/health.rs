//! Whether Docker answers, asked in the background so that nobody waits who only wants to know.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::docker::Docker;

const PERIOD: Duration = Duration::from_secs(2);

/// The last answer.
#[derive(Clone, Debug)]
pub struct Health(watch::Receiver<Option<Arc<str>>>);

/// Keeps asking. Must be run.
#[derive(Debug)]
pub struct Monitor {
    docker: Docker,
    trouble: watch::Sender<Option<Arc<str>>>,
}

/// A pair of both; until the first answer there is trouble.
pub fn channel(docker: Docker) -> (Monitor, Health) {
    let (sender, receiver) = watch::channel(Some("Docker was not asked yet".into()));
    (Monitor { docker, trouble: sender }, Health(receiver))
}

impl Health {
    /// Why functions can't be executed now; None when they can.
    pub fn trouble(&self) -> Option<String> {
        self.0.borrow().as_deref().map(str::to_owned)
    }

    /// Returns once Docker was asked and did not answer.
    pub async fn in_trouble(mut self) {
        // The first change is the first answer.
        let _ = self.0.changed().await;
        let _ = self.0.wait_for(Option::is_some).await;
    }

    /// Returns once Docker answers.
    pub async fn wait(&mut self) {
        // An error means that the monitor has stopped, and then so does everything.
        let _ = self.0.wait_for(Option::is_none).await;
    }
}

impl Monitor {
    /// Asks until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let trouble = self.docker.version().await.err().map(|error| error.to_string().into());
            let changed = |now: &Option<Arc<str>>| now.is_some() != trouble.is_some();
            if changed(&self.trouble.borrow()) {
                match &trouble {
                    None => tracing::info!("docker answers"),
                    Some(reason) => tracing::error!(%reason, "docker does not answer"),
                }
            }
            self.trouble.send_replace(trouble);
            tokio::select! {
                () = time::sleep(PERIOD) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

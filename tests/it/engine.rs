//! Actions of these tests only, on a test's own engine.

use std::path::PathBuf;

use crate::support::*;

impl Engine {
    /// The folder where the engine keeps the descriptions of containers.
    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.dir.path().join("data/containers")
    }

    /// Kills the daemon, as a crash would.
    pub(crate) async fn kill(&mut self) {
        self.signal("KILL");
        let mut process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
        // The daemon's containerd ends with the daemon. A containerd that no process reaps would look alive to the next
        // dockerd.
        let _ = std::fs::remove_file(self.dir.path().join("exec/containerd/containerd.pid"));
    }
}

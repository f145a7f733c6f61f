//! What Docker has of platforms that end with functions.

use std::path::Path;
use std::process::Command;

use crate::support::{Service, labelled};

impl Service {
    /// Stops the service for good, and removes what Docker has of its functions.
    pub(crate) async fn abandon(self) {
        let dir = self.dir.clone();
        self.stop().await;
        remove_leftovers(&dir);
    }
}

/// Removes the containers and images of the platform in this folder, which no service serves any more.
pub(crate) fn remove_leftovers(dir: &Path) {
    for (remove, what) in [(["rm", "--force"], &["ps", "--all"][..]), (["rmi", "--force"], &["images"])] {
        for id in labelled(dir, what) {
            // The removal of one image may remove another.
            let _ = Command::new("docker").args(remove).arg(id).output();
        }
    }
}

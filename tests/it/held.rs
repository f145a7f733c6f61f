//! Builds that last as long as a test wants: a `docker` script waits, and then runs the real docker.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};

use crate::support::{Service, eventually, python};

/// Holds the builds of functions whose names begin with `held`. All other builds go on.
pub(crate) struct HeldBuilds {
    bin: PathBuf,
}

impl HeldBuilds {
    /// Holds these builds from now on. The script is in a new folder `bin` below `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        let bin = dir.join("bin");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("hold"), "").unwrap();
        let real = Command::new("sh").args(["-c", "command -v docker"]).output().unwrap();
        let (real, place) = (String::from_utf8(real.stdout).unwrap(), bin.display());
        let script = format!(
            // The last argument is the build's context, whose Dockerfile has the function's name in a label.
            "#!/bin/sh\nfor context; do :; done\n\
             if [ \"$1\" = build ] && grep -qs 'function.name=\"held' \"$context/Dockerfile\"; then\n\
             : > {place}/begun; while [ -e {place}/hold ]; do sleep 0.05; done; fi\nexec {} \"$@\"\n",
            real.trim()
        );
        std::fs::write(bin.join("docker"), script).unwrap();
        std::fs::set_permissions(bin.join("docker"), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { bin }
    }

    /// The PATH of a service whose builds are held.
    pub(crate) fn path(&self) -> String {
        format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap())
    }

    /// A submit of a function whose build is held.
    pub(crate) fn submission(service: &Service, program: &str) -> RequestBuilder {
        let code = Part::bytes(python(program)).file_name("function.zip");
        let form = Form::new().text("name", "held").part("code", code);
        service.client.post(format!("{}/api/submit", service.url)).multipart(form)
    }

    /// Waits until a build is held.
    pub(crate) async fn begun(&self) {
        eventually("a build is held", async || self.bin.join("begun").exists().then_some(())).await;
    }

    /// Lets the held builds go on.
    pub(crate) fn release(&self) {
        std::fs::remove_file(self.bin.join("hold")).unwrap();
    }
}

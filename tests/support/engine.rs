//! A Docker engine for one test, which may stop, hang and restart the engine. Needs root.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::eventually;

/// A Docker engine. A drop kills the engine and the containers that run on the engine.
pub(crate) struct Engine {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) process: Option<Child>,
}

impl Engine {
    /// Starts an engine that has the images for Python.
    pub(crate) async fn start() -> Self {
        Self::start_with_runtime(None).await
    }

    /// Starts an engine that has the images for Python and an OCI runtime named `leaky`, which is this Python script.
    pub(crate) async fn start_with_runtime(leaky: Option<&str>) -> Self {
        let mut engine = Self { dir: tempfile::tempdir().unwrap(), process: None };
        let runtime = engine.dir.path().join("leaky");
        std::fs::write(&runtime, leaky.unwrap_or_default()).unwrap();
        std::fs::set_permissions(&runtime, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        engine.run().await;
        let base = std::env::var("PYTHON_IMAGE").expect("`make test` sets PYTHON_IMAGE");
        let runtimes =
            super::docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "youtube-serverless-runtime/python"]);
        let mut save =
            Command::new("docker").args(["save", &base]).args(runtimes).stdout(Stdio::piped()).spawn().unwrap();
        let mut load = Command::new("docker");
        load.args(["--host", &engine.host(), "load", "--quiet"])
            .stdin(save.stdout.take().unwrap())
            .stdout(Stdio::null());
        let loaded = load.status().unwrap();
        assert!(loaded.success() && save.wait().unwrap().success());
        engine
    }

    /// The engine's address for DOCKER_HOST.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// Starts the daemon, and waits until the daemon answers.
    pub(crate) async fn run(&mut self) {
        let at = |name: &str| self.dir.path().join(name);
        let path = |flag: &str, path: PathBuf| format!("--{flag}={}", path.display());
        let log = std::fs::File::options().create(true).append(true).open(at("log")).unwrap();
        // The daemon runs in a network namespace of its own: a daemon without a bridge would remove the machine's
        // bridge.
        let mut daemon = Command::new("unshare");
        daemon.args(["--net", "--", "dockerd"]).args([
            path("data-root", at("data")),
            path("exec-root", at("exec")),
            path("pidfile", at("pid")),
        ]);
        daemon.args([&format!("--host={}", self.host()), "--bridge=none", "--iptables=false", "--ip-masq=false"]);
        daemon.arg(format!("--add-runtime=leaky={}", at("leaky").display()));
        self.process = Some(daemon.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        eventually("the engine answers", async || self.docker(&["version"])).await;
    }

    /// Runs a docker command on the engine. None when the command fails.
    pub(crate) fn docker(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["--host", &self.host()]).args(args).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Sends the daemon a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("the daemon runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Stops the daemon as the system would, with all containers.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        let mut process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
    }

    /// Stops the daemon, and removes the engine's files.
    pub(crate) async fn remove(mut self) {
        if self.process.is_some() {
            self.stop().await;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A stopped daemon must continue before a SIGTERM can end the daemon.
            let _ = Command::new("kill").args(["-CONT", &process.id().to_string()]).status();
            let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
            let _ = process.wait();
        }
        // A killed daemon leaves processes and mounts behind. Only those of this engine may be removed.
        let dir = self.dir.path().to_str().unwrap();
        let _ = Command::new("pkill").args(["-KILL", "-f", dir]).status();
        for mount in std::fs::read_to_string("/proc/mounts").unwrap_or_default().lines().rev() {
            if let Some(place) = mount.split(' ').nth(1).filter(|place| place.starts_with(dir)) {
                let _ = Command::new("umount").args(["--lazy", place]).status();
            }
        }
    }
}

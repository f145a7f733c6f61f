//! A Docker engine of a test's own, which it may stop, hang and restart. Needs root.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::eventually;

/// Killed when dropped, with the containers that run on it.
pub(crate) struct Engine {
    dir: tempfile::TempDir,
    process: Option<Child>,
}

impl Engine {
    /// Starts one that has the images for Python.
    pub(crate) async fn start() -> Self {
        Self::start_with_runtime(None).await
    }

    /// The same with an OCI runtime named `leaky`, which is this script in Python.
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

    /// For DOCKER_HOST.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("docker.sock").display())
    }

    /// Where it keeps the descriptions of containers.
    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.dir.path().join("data/containers")
    }

    /// Starts the daemon, and waits until it answers.
    pub(crate) async fn run(&mut self) {
        let at = |name: &str| self.dir.path().join(name);
        let path = |flag: &str, path: PathBuf| format!("--{flag}={}", path.display());
        let log = std::fs::File::options().create(true).append(true).open(at("log")).unwrap();
        // In a network of its own: without a bridge of its own it would remove the machine's.
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

    /// Runs a docker command on it. None when it fails.
    pub(crate) fn docker(&self, args: &[&str]) -> Option<String> {
        let output = Command::new("docker").args(["--host", &self.host()]).args(args).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    /// Sends the daemon a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Stops the daemon as the system would, and with it all containers.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        let mut process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
    }

    /// Ends the daemon at once, as a crash of it would.
    pub(crate) async fn kill(&mut self) {
        self.signal("KILL");
        let mut process = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
        // Its containerd ends with it; where nobody reaps that, the next dockerd would take it for alive.
        let _ = std::fs::remove_file(self.dir.path().join("exec/containerd/containerd.pid"));
    }

    /// Stops it for good; nothing of it is left.
    pub(crate) async fn remove(mut self) {
        if self.process.is_some() {
            self.stop().await;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A hung one goes on to end.
            let _ = Command::new("kill").args(["-CONT", &process.id().to_string()]).status();
            let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
            let _ = process.wait();
        }
        // What a daemon that was killed has left, of this engine only.
        let dir = self.dir.path().to_str().unwrap();
        let _ = Command::new("pkill").args(["-KILL", "-f", dir]).status();
        for mount in std::fs::read_to_string("/proc/mounts").unwrap_or_default().lines().rev() {
            if let Some(place) = mount.split(' ').nth(1).filter(|place| place.starts_with(dir)) {
                let _ = Command::new("umount").args(["--lazy", place]).status();
            }
        }
    }
}

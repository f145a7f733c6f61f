//! A registry of images for one test, which may stop and empty the registry. Engines trust the registry without TLS, as
//! the registry is on a loopback address.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::{docker, eventually};

/// The bcrypt hash of `secret`.
const SECRET: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

/// A registry. A drop ends the process, and removes the images that engines have by the registry's name.
pub(crate) struct Registry {
    dir: tempfile::TempDir,
    port: u16,
    process: Option<Child>,
}

impl Registry {
    /// Starts an empty registry that everybody may use.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts an empty registry that only the user `user` with the password `secret` may use.
    pub(crate) async fn start_private() -> Self {
        Self::start_with("auth: {htpasswd: {realm: test, path: htpasswd}}\n").await
    }

    async fn start_with(auth: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = dir.path().join("data");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{delete: {{enabled: true}}, filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: 127.0.0.1:{port}}}\n{auth}",
            data.display()
        );
        std::fs::write(dir.path().join("config.yml"), config).unwrap();
        std::fs::write(dir.path().join("htpasswd"), format!("user:{SECRET}\n")).unwrap();
        let mut registry = Self { dir, port, process: None };
        registry.run().await;
        registry
    }

    /// Starts the process, and waits until the registry answers.
    pub(crate) async fn run(&mut self) {
        let mut command = Command::new("docker-registry");
        command.args(["serve", "config.yml"]).current_dir(self.dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("scripts/test-tools installs docker-registry"));
        let url = format!("http://{}/v2/", self.host());
        eventually("the registry answers", async || reqwest::get(&url).await.ok().map(drop)).await;
    }

    pub(crate) fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Removes all images of a registry that is stopped.
    pub(crate) fn wipe(&self) {
        assert!(self.process.is_none());
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    /// The host and the port.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A value for DOCKER_IMAGE_PREFIX.
    pub(crate) fn prefix(&self) -> String {
        format!("{}/test/functions", self.host())
    }

    /// Whether the registry has a function's image by this digest.
    pub(crate) async fn has(&self, function: &str, digest: &str) -> bool {
        let url = format!("http://{}/v2/test/functions/{function}/manifests/{digest}", self.host());
        let accept = "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";
        let request = reqwest::Client::new().get(url).header("accept", accept);
        request.send().await.unwrap().status() == 200
    }

    /// The tags of a function's images. Asks as the user of a private registry.
    pub(crate) async fn tags(&self, function: &str) -> Vec<String> {
        let url = format!("http://{}/v2/test/functions/{function}/tags/list", self.host());
        let request = reqwest::Client::new().get(url).basic_auth("user", Some("secret"));
        let list: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        list["tags"].as_array().into_iter().flatten().map(|tag| tag.as_str().unwrap().to_owned()).collect()
    }

    /// A folder for DOCKER_CONFIG with the password, as `docker login` leaves the folder.
    pub(crate) fn log_in(&self, dir: &Path) {
        // The text is `user:secret` in Base64.
        let login = serde_json::json!({"auths": {self.host(): {"auth": "dXNlcjpzZWNyZXQ="}}});
        std::fs::write(dir.join("config.json"), login.to_string()).unwrap();
    }

    /// The names of the images that the engine has by the registry's name.
    pub(crate) fn local(&self) -> Vec<String> {
        let filter = format!("reference={}/*", self.prefix());
        docker(&["images", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"])
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        let names = ["", "-runtime"].map(|kind| format!("reference={}{kind}/*", self.prefix()));
        for filter in names {
            let images = ["images", "--filter", &filter, "--format", "{{.Repository}}:{{.Tag}}"];
            let listed = Command::new("docker").args(images).output().unwrap().stdout;
            for name in String::from_utf8_lossy(&listed).lines() {
                let _ = Command::new("docker").args(["image", "rm", "--force", name]).output();
            }
        }
    }
}

//! Runtime images: an old runtime image goes when no image is built on the runtime image.

use std::time::SystemTime;

use crate::support::{Service, docker, eventually};

/// Images under a prefix of this test's own. A drop removes the images.
struct Images(String);

impl Images {
    /// Makes an image that looks like a runtime image of this time. Returns the image's id.
    fn add(&self, tag: &str, created: u64) -> String {
        let base = std::env::var("PYTHON_IMAGE").expect("`make test` sets PYTHON_IMAGE");
        let change =
            format!("LABEL youtube-serverless.language=python youtube-serverless.created={created} test={tag}");
        self.make(&base, &change, &format!("{}-runtime/python:{tag}", self.0))
    }

    fn make(&self, from: &str, line: &str, name: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("Dockerfile"), format!("FROM {from}\n{line}\n")).unwrap();
        docker(&["build", "--quiet", "--tag", name, dir.path().to_str().unwrap()]).pop().unwrap()
    }

    fn names(&self) -> Vec<String> {
        docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &format!("reference={}*/*", self.0)])
    }

    fn has(&self, tag: &str) -> bool {
        self.names().contains(&format!("{}-runtime/python:{tag}", self.0))
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        for name in self.names() {
            let _ = std::process::Command::new("docker").args(["image", "rm", &name]).output();
        }
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn old_runtime_images_go_when_nothing_is_built_on_them() {
    let dir = tempfile::tempdir().unwrap();
    let images = Images(format!("test-{}", uuid::Uuid::new_v4().simple()));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    images.add("young", now - 3600);
    images.add("old", now - 2 * 86_400);
    let used = images.add("used", now - 2 * 86_400);
    images.add("running", now - 2 * 86_400);
    images.make(&used, "LABEL test=child", &format!("{}/child:1", images.0));
    let container = docker(&["create", &format!("{}-runtime/python:running", images.0), "true"]).pop().unwrap();

    let settings = [("DOCKER_IMAGE_PREFIX", images.0.as_str())];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    eventually("the old image is gone", async || (!images.has("old")).then_some(())).await;
    let current = images.names().into_iter().filter(|name| name.contains("-runtime/")).count();
    assert!(images.has("young") && images.has("used") && images.has("running") && current >= 4, "{:?}", images.names());
    service.stop().await;

    docker(&["rm", &container]);
    docker(&["image", "rm", &format!("{}/child:1", images.0)]);
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    eventually("the other images are gone", async || (!images.has("used") && !images.has("running")).then_some(()))
        .await;
    assert!(images.has("young"), "{:?}", images.names());
    service.delete_all(dir.path()).await;
}

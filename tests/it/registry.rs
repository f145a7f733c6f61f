//! Images in a registry: pushed by a submit, pulled when they are gone, and built again when the registry has lost an
//! image.

use std::path::Path;

use reqwest::multipart::{Form, Part};
use serde_json::json;
use youtube_serverless::domain::{Image, VersionId};
use youtube_serverless::store::Store;

use crate::image_registry::Registry;
use crate::stored::FILE;
use crate::support::{Service, answer, docker, eventually, python};

const PULLED: &str = "the image was gone, and was pulled";
const BUILT: &str = "building the image again";

/// A registry and a service whose instances end at once, so that no container holds an image.
struct Node {
    registry: Registry,
    dir: tempfile::TempDir,
    service: Service,
}

impl Node {
    async fn start() -> Self {
        let (registry, dir) = (Registry::start().await, tempfile::tempdir().unwrap());
        let service = start(&registry, dir.path()).await;
        Self { registry, dir, service }
    }

    /// The image of a function's version, as the store has the image.
    async fn image(&self, function: &str, number: u32) -> Image {
        let store = Store::sqlite(&self.dir.path().join("data")).await.unwrap();
        let id = VersionId { function: function.parse().unwrap(), number };
        let versions = store.versions(id.function).await.unwrap();
        store.close().await;
        versions.into_iter().find(|version| version.number == number).unwrap().image
    }

    async fn update(&self, function: &str, program: &str) {
        let form = Form::new().part("code", Part::bytes(python(program)).file_name("function.zip"));
        let url = format!("{}/api/functions/{function}", self.service.url);
        answer(self.service.client.put(url).multipart(form)).await.assert_status(200);
    }

    /// Removes an image from the engine once no container uses the image.
    async fn lose(&self, image: &Image) {
        idle(image).await;
        docker(&["image", "rm", "--force", image.id.as_str()]);
    }

    /// How many lines of the log have this text.
    fn said(&self, text: &str) -> usize {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap().matches(text).count()
    }

    async fn end(self) {
        self.service.delete_all(self.dir.path()).await;
        assert_eq!(self.registry.local(), [""; 0], "images are left");
    }
}

async fn start(registry: &Registry, dir: &Path) -> Service {
    let prefix = registry.prefix();
    let settings = [
        ("DOCKER_IMAGE_PREFIX", prefix.as_str()),
        ("LOG_LEVEL", "info"),
        ("INSTANCE_IDLE_TIMEOUT", "200ms"),
        // One test copies the database.
        FILE,
    ];
    Service::start_logged(dir, &settings, &dir.join("log")).await.healthy().await
}

async fn idle(image: &Image) {
    let filter = format!("ancestor={}", image.id.as_str());
    eventually("no container uses the image", async || {
        docker(&["ps", "--all", "--quiet", "--filter", &filter]).is_empty().then_some(())
    })
    .await;
}

fn digest(image: &Image) -> &str {
    image.digest.as_ref().expect("a digest").as_str()
}

async fn runs(service: &Service, function: &str, output: &str) {
    assert_eq!(service.execute(function).await.assert_outcome(200, "ok").output(), output);
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_submit_pushes_and_a_missing_image_is_pulled() {
    let node = Node::start().await;
    let function = node.service.deploy(python("print('one')")).await;
    let before = node.image(&function, 1).await;
    assert!(node.registry.has(&function, digest(&before)).await);

    node.lose(&before).await;
    runs(&node.service, &function, "one\n").await;
    assert_eq!(node.image(&function, 1).await, before);
    assert_eq!((node.said(PULLED), node.said(BUILT)), (1, 0));
    node.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_the_registry_has_lost_is_built_and_pushed_again() {
    let mut node = Node::start().await;
    let function = node.service.deploy(python("print('one')")).await;
    let before = node.image(&function, 1).await;
    node.lose(&before).await;
    node.registry.stop();
    node.registry.wipe();
    node.registry.run().await;
    assert!(!node.registry.has(&function, digest(&before)).await);

    runs(&node.service, &function, "one\n").await;
    assert_eq!((node.said(PULLED), node.said(BUILT)), (0, 1));
    let after = node.image(&function, 1).await;
    assert!(node.registry.has(&function, digest(&after)).await);
    node.lose(&after).await;
    runs(&node.service, &function, "one\n").await;
    assert_eq!((node.said(PULLED), node.said(BUILT)), (1, 1));
    node.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nothing_is_built_for_a_registry_that_is_away() {
    let mut node = Node::start().await;
    let missing = node.service.deploy(python("print('missing')")).await;
    let here = node.service.deploy(python("print('here')")).await;
    node.lose(&node.image(&missing, 1).await).await;
    node.registry.stop();

    node.service.submit(python("print('new')")).await.assert_problem(503, "registry_unavailable", "registry");
    assert_eq!(node.service.get("/api/functions").await.body.as_array().unwrap().len(), 2);
    eventually("the image is gone", async || (node.registry.local().len() == 1).then_some(())).await;
    runs(&node.service, &here, "here\n").await;
    node.service.execute(&missing).await.assert_problem(503, "registry_unavailable", "registry");
    let accepted = node.service.defer(&missing, json!({})).await.assert_status(202);

    node.registry.run().await;
    runs(&node.service, &missing, "missing\n").await;
    let ended = node.service.ended(accepted.body["invocationId"].as_str().unwrap()).await;
    assert_eq!(ended["outcome"], "ok");
    assert_eq!((node.said(PULLED), node.said(BUILT)), (1, 0));
    node.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_rollback_pulls_a_version_that_only_the_registry_has() {
    let node = Node::start().await;
    let function = node.service.deploy(python("print('1')")).await;
    let path = format!("{}/api/functions/{function}", node.service.url);
    for program in ["print('2')", "print('3')"] {
        node.update(&function, program).await;
    }
    eventually("the oldest image is gone", async || (node.registry.local().len() == 2).then_some(())).await;
    let rollback = node.service.client.post(format!("{path}/rollback?version=1"));
    answer(rollback).await.assert_status(200);
    runs(&node.service, &function, "1\n").await;
    assert_eq!((node.said(PULLED), node.said(BUILT)), (1, 0));
    node.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_registry_that_refuses_fails_the_submit_and_a_login_helps() {
    let (registry, dir) = (Registry::start_private().await, tempfile::tempdir().unwrap());
    let (prefix, config) = (registry.prefix(), dir.path().join("docker"));
    std::fs::create_dir(&config).unwrap();
    let settings = [("DOCKER_IMAGE_PREFIX", prefix.as_str()), ("DOCKER_CONFIG", config.to_str().unwrap())];
    let log = dir.path().join("log");
    let service = Service::start_logged(dir.path(), &settings, &log).await.healthy().await;
    service.submit(python("print('one')")).await.assert_problem(500, "internal", "log");
    assert_eq!(service.get("/api/functions").await.body, json!([]));
    eventually("the image is gone", async || registry.local().is_empty().then_some(())).await;
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("the registry refuses: "), "{said}");

    registry.log_in(&config);
    let function = service.deploy(python("print('one')")).await;
    runs(&service, &function, "one\n").await;
    assert_eq!(registry.tags(&function).await.len(), 1);
    service.delete(&function).await.assert_status(200);
    eventually("the image is deleted in the registry", async || {
        registry.tags(&function).await.is_empty().then_some(())
    })
    .await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_images_of_a_deleted_function_and_no_others_go_from_the_registry() {
    let node = Node::start().await;
    let (one, other) =
        (node.service.deploy(python("print('one')")).await, node.service.deploy(python("print(2)")).await);
    node.update(&one, "print('two')").await;
    assert_eq!((node.registry.tags(&one).await.len(), node.registry.tags(&other).await.len()), (2, 1));
    node.service.delete(&one).await.assert_status(200);
    eventually("the images are deleted in the registry", async || {
        node.registry.tags(&one).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(node.registry.tags(&other).await.len(), 1);
    assert!(node.registry.has(&other, digest(&node.image(&other, 1).await)).await);
    node.end().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn nodes_on_one_engine_leave_each_others_images_alone() {
    let node = Node::start().await;
    let function = node.service.deploy(python("print('one')")).await;
    let Node { registry, dir, service } = node;
    service.stop().await;
    let other = tempfile::tempdir().unwrap();
    std::fs::create_dir(other.path().join("data")).unwrap();
    std::fs::copy(dir.path().join("data/store.db"), other.path().join("data/store.db")).unwrap();

    // The other node has the image by a name of its own, and the label of the first node is on the image.
    let service = start(&registry, other.path()).await;
    runs(&service, &function, "one\n").await;
    let log = || std::fs::read_to_string(other.path().join("log")).unwrap();
    assert!(log().contains(PULLED) && !log().contains(BUILT), "{}", log());
    assert_eq!(registry.local().len(), 2);
    service.stop().await;
    let service = start(&registry, other.path()).await;
    runs(&service, &function, "one\n").await;
    assert!(!log().contains(PULLED) && !log().contains("images are gone"), "{}", log());
    service.delete(&function).await.assert_status(200);
    eventually("one name is gone", async || (registry.local().len() == 1).then_some(())).await;
    service.stop().await;

    let node = Node { service: start(&registry, dir.path()).await, registry, dir };
    runs(&node.service, &function, "one\n").await;
    assert_eq!((node.said(PULLED), node.said(BUILT), node.said("images are gone")), (0, 0, 0));
    node.end().await;
}

//! Builds wait for their turn with only their zip, in bounded number and time. Builds hold up only other builds.

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use reqwest::multipart::{Form, Part};

use crate::held::HeldBuilds;
use crate::support::{Answer, Service, answer, docker, eventually, labelled, python};

/// Submits a function of this name.
async fn submit(service: &Service, name: &str, program: &str) -> Answer {
    let form = Form::new().text("name", name.to_owned()).part("code", Part::bytes(python(program)).file_name("a.zip"));
    answer(reqwest::Client::new().post(format!("{}/api/submit", service.url)).multipart(form)).await
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_waits_for_its_turn_is_not_unpacked_and_too_many_are_turned_away() {
    let dir = tempfile::tempdir().unwrap();
    let held = HeldBuilds::new(dir.path());
    let path = held.path();
    let settings = [
        ("PATH", path.as_str()),
        ("MAX_CONCURRENT_BUILDS", "1"),
        ("BUILD_QUEUE_LIMIT", "2"),
        ("INSTANCE_IDLE_TIMEOUT", "50ms"),
    ];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let function = service.deploy(python("print('here again')")).await;
    service.execute(&function).await.assert_outcome(200, "ok");
    eventually("no container uses the image", async || labelled(dir.path(), &["ps", "--all"]).is_empty().then_some(()))
        .await;
    for image in labelled(dir.path(), &["images"]) {
        docker(&["image", "rm", "--force", &image]);
    }
    // The runtime images may be built first.
    eventually("no temp file is left", async || (service.temp_files() == 0).then_some(())).await;

    let first = submit(&service, "held", "print('first')");
    let watched = async {
        held.begun().await;
        let mut others: FuturesUnordered<_> =
            ["a", "b", "c"].into_iter().map(|name| submit(&service, name, "print('x')")).collect();
        // One submit builds, two wait, and the last is refused at once.
        let refused = others.next().await.unwrap();
        refused.assert_problem(429, "overloaded", "2 builds wait already (BUILD_QUEUE_LIMIT)");
        let update = service.try_update(&function, python("print('updated')")).await.unwrap();
        let update = update.assert_problem(429, "overloaded", "BUILD_QUEUE_LIMIT");
        assert!(update.headers.contains_key("retry-after"));
        service.execute(&function).await.assert_problem(429, "overloaded", "BUILD_QUEUE_LIMIT");
        // The refused execution had a folder for its instance.
        eventually("one zip is unpacked", async || (service.temp_files() == 1).then_some(())).await;
        for _ in 0..10 {
            assert_eq!(service.temp_files(), 1, "only the zip of the running build is unpacked");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        held.release();
        while let Some(built) = others.next().await {
            built.assert_status(200);
        }
    };
    let (first, ()) = tokio::join!(first, watched);
    first.assert_status(200);
    assert_eq!(service.execute(&function).await.assert_outcome(200, "ok").output(), "here again\n");
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_build_waits_for_its_turn_for_as_long_as_a_build_may_take() {
    let dir = tempfile::tempdir().unwrap();
    let held = HeldBuilds::new(dir.path());
    let path = held.path();
    let settings = [("PATH", path.as_str()), ("MAX_CONCURRENT_BUILDS", "1"), ("DOCKER_BUILD_TIMEOUT", "15s")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let waiting = async {
        held.begun().await;
        // This submit comes later than the first, so that the first ends by its own limit before.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let second = submit(&service, "held", "print('second')");
        let third = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            submit(&service, "third", "print('third')").await
        };
        tokio::join!(second, third)
    };
    let (first, (second, third)) = tokio::join!(submit(&service, "held", "print('first')"), waiting);
    first.assert_problem(504, "build_timeout", "DOCKER_BUILD_TIMEOUT");
    second.assert_problem(504, "build_timeout", "DOCKER_BUILD_TIMEOUT");
    third.assert_problem(429, "overloaded", "turn did not come within 15s (DOCKER_BUILD_TIMEOUT)");
    held.release();
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_long_build_holds_up_no_removal_and_a_removal_no_build() {
    let dir = tempfile::tempdir().unwrap();
    let held = HeldBuilds::new(dir.path());
    let path = held.path();
    let service = Service::start(dir.path(), &[("PATH", path.as_str())]).await.healthy().await;
    let gone = service.deploy(python("print('gone')")).await;
    let image = |id: &str| docker(&["images", "--quiet", &format!("youtube-serverless/{id}")]);
    assert_eq!(image(&gone).len(), 1);
    let long = submit(&service, "held", "print('long')");
    let watched = async {
        held.begun().await;
        service.delete(&gone).await.assert_status(200);
        // The build is held for as long as the test likes.
        eventually("the function's image is gone", async || image(&gone).is_empty().then_some(())).await;
        for n in 0..3 {
            let program = format!("print({n})");
            submit(&service, "quick", &program).await.assert_status(200);
        }
        held.release();
    };
    let (long, ()) = tokio::join!(long, watched);
    long.assert_status(200);
    // The layers that the removal had to leave are gone, too.
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_removal_breaks_no_build_on_the_same_steps() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let lives = async || {
        for _ in 0..3 {
            let submitted = submit(&service, "same", "print('the same code')").await.assert_status(200);
            service.delete(submitted.body["functionId"].as_str().unwrap()).await.assert_status(200);
        }
    };
    tokio::join!(lives(), lives(), lives());
    service.delete_all(dir.path()).await;
}

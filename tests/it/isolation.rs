//! The service finds and shows each part of the isolation that Docker does not give. With REQUIRE_ISOLATION the service
//! does not start then.

use crate::service::outcome;
use crate::support::{Engine, Service, TestApp, eventually};

/// An OCI runtime that drops limits, as an engine on a kernel without them does.
const LEAKY: &str = r#"#!/usr/bin/env python3
import json, os, sys
if "--bundle" in sys.argv:
    path = os.path.join(sys.argv[sys.argv.index("--bundle") + 1], "config.json")
    spec = json.load(open(path))
    spec["linux"]["resources"].pop("pids", None)
    spec["linux"]["resources"]["memory"].pop("swap", None)
    spec["linux"].pop("seccomp", None)
    spec["process"]["noNewPrivileges"] = False
    spec["root"]["readonly"] = False
    json.dump(spec, open(path, "w"))
os.execvp("runc", ["runc"] + sys.argv[1:])
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn an_engine_that_gives_all_is_taken() {
    TestApp::run(&[("REQUIRE_ISOLATION", "true")], async |app| {
        // The look at the isolation precedes the first answer.
        assert!(app.get("/health").await.assert_status(200).body.get("isolation").is_none());
        app.assert_no_containers();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_an_engine_leaves_out_is_shown_and_refused_where_that_is_wanted() {
    let engine = Engine::start_with_runtime(Some(LEAKY)).await;
    let host = engine.host();
    let dir = tempfile::tempdir().unwrap();
    // This engine has no base image for Go, so there is no image of Go to look at first.
    let settings = [("DOCKER_HOST", host.as_str()), ("DOCKER_RUNTIME", "leaky"), ("GO_IMAGE", "no-such-image")];
    let service = Service::start(dir.path(), &settings).await.healthy().await;
    let missing = eventually("the isolation was looked at", async || {
        let health = service.get("/health").await.assert_status(200).body;
        health["isolation"]
            .as_array()
            .filter(|missing| missing.iter().any(|line| line.as_str().unwrap().starts_with("golang")))
            .cloned()
    })
    .await;
    let missing: Vec<&str> = missing.iter().map(|line| line.as_str().unwrap()).collect();
    for expected in ["seccomp", "NoNewPrivs", "DOCKER_PIDS_LIMIT", "root file system", "golang: not checked"] {
        assert!(missing.iter().any(|line| line.contains(expected)), "{expected}: {missing:#?}");
    }
    assert!(!missing.iter().any(|line| line.contains("Cap") || line.contains("DOCKER_MEMORY_LIMIT")), "{missing:#?}");
    service.stop().await;

    let refused =
        outcome(dir.path(), &[], &[&settings[..], &[("REQUIRE_ISOLATION", "true"), ("SERVER_PORT", "0")]].concat());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("REQUIRE_ISOLATION is true") && said.contains("seccomp"), "{said}");
    assert_eq!(engine.docker(&["ps", "--all", "--quiet"]).unwrap(), "");
    engine.remove().await;
    let refused =
        outcome(dir.path(), &[], &[&settings[..], &[("REQUIRE_ISOLATION", "true"), ("SERVER_PORT", "0")]].concat());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Docker does not answer"), "{refused:?}");
}

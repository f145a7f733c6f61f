//! The console as a person uses the console, in a real browser. The screenshots are in target/screenshots.

use serde_json::json;

use crate::browser::Browser;
use crate::support::{Service, python};

const PROGRAM: &str = "import os\nprint('Hello,', os.environ.get('NAME', 'World'))\nprint('<img src=x onerror=\"window.broken = 1\">')\nimport sys\nprint('careful', file=sys.stderr)\nsys.exit(int(os.environ.get('CODE', 0)))\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_person_deploys_runs_looks_and_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let (good, bad) = (dir.path().join("greeter.zip"), dir.path().join("bad.zip"));
    std::fs::write(&good, python(PROGRAM)).unwrap();
    std::fs::write(&bad, b"no zip").unwrap();
    let browser = Browser::open(1280, 900, false).await;
    browser.goto(&service.url).await;
    browser.says("health", "healthy").await;
    browser.says("welcome", "no functions yet").await;
    browser.shoot("1-empty").await;
    browser.click("nav-functions").await;
    browser.says("empty", "no functions yet").await;

    // The console shows a bad zip's problem in the words of the API.
    browser.type_into("zip", bad.to_str().unwrap()).await;
    browser.click("deploy").await;
    browser.says("problem-text", "the file is not a zip archive").await;
    browser.shoot("2-problem").await;
    browser.click("problem-close").await;

    // A good zip is deployed by the keyboard.
    browser.type_into("zip", good.to_str().unwrap()).await;
    browser.type_into("name", "from a browser\u{e007}").await;
    browser.says("detail-title", "from a browser").await;
    browser.says("functions", "python · last run – ").await;
    assert_eq!(browser.script("return document.activeElement.id").await, "detail-title");

    browser.type_into("input", r#"{"name": "John"}"#).await;
    browser.click("execute").await;
    browser.says("outcome", "ok").await;
    assert_eq!(browser.text("output").await, "Hello, John\n<img src=x onerror=\"window.broken = 1\">");
    assert_eq!(browser.text("stderr").await, "careful");
    browser.says("receipt", " ms").await;
    browser.type_into("input", r#"{"code": 3}"#).await;
    browser.click("execute").await;
    browser.says("receipt", "exit status 3").await;
    browser.says("history", "exit").await;
    assert_eq!(browser.script("return document.querySelectorAll('#history tr').length").await, 2);
    let colours = "return [...document.querySelectorAll('#chart rect')].map((bar) => getComputedStyle(bar).fill)";
    let colours = browser.script(colours).await;
    assert!(colours.as_array().unwrap().len() == 2 && colours[0] != colours[1], "{colours}");
    browser.says("functions", "1 warm").await;
    browser.shoot("3-executed").await;
    // The history opens the result of an earlier invocation.
    browser.script("document.querySelectorAll('#history button')[1].click()").await;
    browser.says("output", "Hello, John").await;
    browser.type_into("input", "no json").await;
    browser.click("execute").await;
    browser.says("problem-text", "not JSON").await;
    browser.click("problem-close").await;

    // The page loads nothing from elsewhere. No script in a function's output runs, and no inline script.
    assert!(browser.script("return window.broken").await.is_null());
    let inline = "const s = document.createElement('script'); s.textContent = 'window.inline = 1'; document.body.append(s); return window.inline";
    assert!(browser.script(inline).await.is_null());
    let elsewhere = "return performance.getEntriesByType('resource').map((one) => one.name).filter((name) => !name.startsWith(location.origin))";
    assert_eq!(browser.script(elsewhere).await, json!([]));

    // A function is deleted only after a confirmation.
    browser.click("delete").await;
    browser.says("confirm-text", "can't be undone").await;
    browser.shoot("4-confirm").await;
    browser.press("\u{e00c}").await;
    assert_eq!(service.get("/api/functions").await.body.as_array().unwrap().len(), 1);
    browser.click("delete").await;
    browser.script("document.querySelector('#confirm .danger').focus()").await;
    browser.press("\u{e007}").await;
    browser.says("empty", "no functions yet").await;
    assert_eq!(service.get("/api/functions").await.body, json!([]));
    browser.close().await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn all_of_it_goes_by_the_keyboard() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let (first, second) = (dir.path().join("typed.zip"), dir.path().join("second.zip"));
    std::fs::write(&first, python(PROGRAM)).unwrap();
    std::fs::write(&second, python("print('second')\n")).unwrap();
    let browser = Browser::open(1280, 900, false).await;
    browser.goto(&service.url).await;
    browser.tab_to("nav-functions").await;
    browser.press("\u{e007}").await;
    browser.says("empty", "no functions yet").await;
    browser.tab_to("zip").await;
    browser.type_here(first.to_str().unwrap()).await;
    browser.tab_to("deploy").await;
    browser.press("\u{e007}").await;
    browser.says("detail-title", "typed").await;
    browser.tab_to("execute").await;
    browser.press(" ").await;
    browser.says("outcome", "ok").await;
    browser.says("history", "ok").await;
    // The keyboard reaches the history, and opens an invocation's result.
    let history = "return document.activeElement.closest('#history') !== null";
    for _ in 0..60 {
        browser.press("\u{e004}").await;
        if browser.script(history).await == true {
            break;
        }
    }
    assert_eq!(browser.script(history).await, true);
    browser.script("document.querySelector('#result').hidden = true").await;
    browser.press("\u{e007}").await;
    browser.says("output", "Hello, World").await;
    browser.tab_to("tab-code").await;
    browser.press("\u{e007}").await;
    browser.says("versions", "1, which runs").await;
    browser.tab_to("update-zip").await;
    browser.type_here(second.to_str().unwrap()).await;
    browser.tab_to("update-deploy").await;
    browser.press("\u{e007}").await;
    browser.says("update-status", "runs version 2").await;
    browser.tab_to("delete").await;
    browser.press("\u{e007}").await;
    browser.says("confirm-text", "can't be undone").await;
    // The dialog begins at the button that does no harm.
    assert_eq!(browser.script("return document.activeElement.value").await, "cancel");
    browser.press("\u{e004}").await;
    browser.press("\u{e007}").await;
    browser.says("empty", "no functions yet").await;
    browser.close().await;
    service.delete_all(dir.path()).await;
}

const SLOW: &str = "import time\nprint('begun', flush=True)\ntime.sleep(600)\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn a_person_sees_it_write_stops_it_and_changes_versions() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("DOCKER_RUN_TIMEOUT", "15m")]).await.healthy().await;
    let (slow, quick) = (dir.path().join("slow.zip"), dir.path().join("quick.zip"));
    std::fs::write(&slow, python(SLOW)).unwrap();
    std::fs::write(&quick, python("print('quick')\n")).unwrap();
    let browser = Browser::open(1280, 1200, false).await;
    browser.goto(&format!("{}/#/functions", service.url)).await;
    browser.type_into("zip", slow.to_str().unwrap()).await;
    browser.click("deploy").await;
    browser.says("detail-title", "slow").await;
    browser.says("no-history", "has not run yet").await;
    browser.click("execute").await;
    browser.says("output", "begun").await;
    browser.says("outcome", "running").await;
    browser.shoot("7-running").await;
    browser.click("stop").await;
    browser.says("outcome", "cancelled").await;
    // The output until then is kept.
    browser.says("receipt", "it was cancelled").await;
    assert_eq!(browser.text("output").await, "begun");
    // A running invocation does not hold the page up: the page can show another function, and then this function again.
    browser.click("execute").await;
    // The page shows the output of the invocation before until the new invocation is accepted.
    browser.says("outcome", "running").await;
    browser.says("output", "begun").await;
    browser.click("nav-overview").await;
    browser.says("tiles", "Running now").await;
    browser.script("history.back()").await;
    browser.says("history", "running").await;
    browser.script("document.querySelector('#history button').click()").await;
    browser.says("outcome", "running").await;
    browser.says("output", "begun").await;
    browser.click("stop").await;
    browser.says("outcome", "cancelled").await;
    browser.says("history", "cancelled").await;

    browser.click("tab-code").await;
    browser.says("versions", "1, which runs").await;
    browser.type_into("update-zip", quick.to_str().unwrap()).await;
    browser.click("update-deploy").await;
    browser.says("update-status", "runs version 2").await;
    browser.says("versions", "2, which runs").await;
    browser.click("execute").await;
    browser.says("output", "quick").await;
    browser.says("receipt", "version 2").await;
    browser.shoot("8-versions").await;
    browser.press_button("Run version 1 again").await;
    browser.says("update-status", "runs version 1").await;
    browser.says("versions", "1, which runs").await;
    browser.says("detail-facts", "version 1").await;
    browser.close().await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn it_asks_for_the_token_and_fits_a_phone_in_the_dark() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("API_TOKEN", "s3cret")]).await;
    let browser = Browser::open(390, 844, true).await;
    browser.goto(&service.url).await;
    browser.says("sign-in-text", "API_TOKEN").await;
    browser.shoot("5-sign-in-on-a-phone").await;
    browser.type_into("token", "wrong\u{e007}").await;
    // After a wrong token the page asks again.
    browser.says("sign-in-text", "API_TOKEN").await;
    browser.type_into("token", "s3cret\u{e007}").await;
    browser.says("welcome", "no functions yet").await;
    browser.shoot("6-dark-on-a-phone").await;
    let fits =
        browser.script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth").await;
    assert_eq!(fits, true);
    let background = browser.script("return getComputedStyle(document.body).backgroundColor").await;
    assert_eq!(background, "rgb(20, 23, 26)");
    // Every control has a name, for people who can't see the control.
    let nameless = "return [...document.querySelectorAll('input, select, textarea, button')].filter((one) => !one.labels?.length && !one.textContent.trim()).map((one) => one.id)";
    assert_eq!(browser.script(nameless).await, json!([]));
    browser.close().await;
    service.stop().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_page_is_for_all_and_strict() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("API_TOKEN", "s3cret")]).await;
    let script = "text/javascript";
    for (path, kind) in [
        ("/", "text/html"),
        ("/console/console.css", "text/css"),
        ("/console/console.js", script),
        ("/console/editor.js", script),
        ("/console/starters.json", "application/json"),
    ] {
        let response = reqwest::get(format!("{}{path}", service.url)).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        // A browser that has the file gets no second copy.
        let tag = response.headers()["etag"].clone();
        let again = reqwest::Client::new().get(format!("{}{path}", service.url)).header("if-none-match", tag);
        assert_eq!(again.send().await.unwrap().status(), 304, "{path}");
    }
    service.stop().await;
}

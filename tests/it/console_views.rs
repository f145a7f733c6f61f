//! Each view of the console as people see the view: wide and narrow, light and dark, empty and full, and by axe-core.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpSocket;

use crate::browser::Browser;
use crate::stored::FILE;
use crate::support::{Service, eventually, python};

/// The version of axe-core, which the test gets from npm.
const AXE: &str = "4.14.1";

/// The text of axe-core.
fn axe() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join(format!("target/axe-{AXE}"));
    let output = Command::new(root.join("scripts/install-tool"))
        .arg("npm")
        .arg(&folder)
        .arg(format!("axe-core@{AXE}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(folder.join("node_modules/axe-core/axe.min.js")).unwrap()
}

/// What axe-core finds in the page that is serious or critical.
async fn serious_findings(browser: &Browser, axe: &str) -> Vec<String> {
    browser.script(axe).await;
    browser
        .script(
            "window.found = null; axe.run().then((all) => { window.found = all.violations \
             .filter((one) => ['serious', 'critical'].includes(one.impact)) \
             .map((one) => one.id + ': ' + one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')) })",
        )
        .await;
    let found = eventually("axe-core is done", async || {
        let found = browser.script("return window.found").await;
        found.as_array().cloned()
    });
    found.await.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

const VIEWS: [(&str, &str); 4] =
    [("overview", "#/"), ("functions", "#/functions"), ("new", "#/new"), ("runs", "#/runs")];
const TABS: [&str; 4] = ["history", "code", "settings", "triggers"];

/// Looks at a view in a new page.
async fn look(browser: &Browser, service: &Service, (name, place): (&str, &str), mark: &str, axe: &str) {
    browser.goto("about:blank").await;
    browser.goto(&format!("{}/{place}", service.url)).await;
    browser.says("health", "healthy").await;
    // What the view reads comes after the health.
    if name == "code" {
        browser.says("versions", "which runs").await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    check(browser, name, mark, axe).await;
}

/// Looks at what the browser shows: nothing is too wide, and axe-core finds nothing serious.
async fn check(browser: &Browser, name: &str, mark: &str, axe: &str) {
    browser.shoot(&format!("{name}-{mark}")).await;
    let width = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]";
    let width = browser.script(width).await;
    assert!(width[0].as_u64() <= width[1].as_u64(), "{name} {mark} is {} wide", width[0]);
    let found = serious_findings(browser, axe).await;
    assert!(found.is_empty(), "{name} {mark}: {found:#?}");
}

/// Browsers as wide as a screen and as a phone, light and dark, each with a mark for the names of pictures.
async fn browsers() -> Vec<(Browser, String)> {
    let mut opened = Vec::new();
    for (width, dark) in [(1280, false), (1280, true), (390, false), (390, true)] {
        let mark = format!("{width}-{}", if dark { "dark" } else { "light" });
        opened.push((Browser::open(width, 900, dark).await, mark));
    }
    opened
}

#[tokio::test]
#[ignore = "needs docker"]
async fn views_fit_and_can_be_used_by_all() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let axe = axe();
    let browsers = browsers().await;
    for (browser, mark) in &browsers {
        for view in VIEWS {
            look(browser, &service, view, &format!("empty-{mark}"), &axe).await;
        }
    }
    let long = "a-name-that-is-as-long-as-a-name-may-be-which-is-sixty-three-ch";
    let mut ids = Vec::new();
    for (name, code) in [("one", "print('one')"), (long, "print('x' * 3000)"), ("bad", "raise SystemExit(3)")] {
        let part = reqwest::multipart::Part::bytes(python(code)).file_name("f.zip");
        let form = reqwest::multipart::Form::new().part("code", part).text("name", name);
        let sent = service.client.post(format!("{}/api/submit", service.url)).multipart(form);
        let id = crate::support::answer(sent).await.assert_status(200).body["functionId"].as_str().unwrap().to_owned();
        service.execute(&id).await;
        ids.push(id);
    }
    for (browser, mark) in &browsers {
        for view in VIEWS {
            look(browser, &service, view, &format!("three-{mark}"), &axe).await;
        }
        for tab in TABS {
            let place = format!("#/functions/{}/{tab}", ids[1]);
            look(browser, &service, (tab, &place), &format!("three-{mark}"), &axe).await;
        }
    }
    let (browser, _) = &browsers[0];
    browser.goto(&format!("{}/#/", service.url)).await;
    browser.says("failures", "bad: exit").await;
    browser.shoot("overview").await;
    // Each view says that the service is gone, and goes on when the service is back.
    let port = service.url.rsplit(':').next().unwrap().parse().unwrap();
    service.stop().await;
    // Nobody else gets the port meanwhile.
    let kept = TcpSocket::new_v4().unwrap();
    kept.set_reuseaddr(true).unwrap();
    kept.bind(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    let tab = format!("#/functions/{}/settings", ids[1]);
    let views = VIEWS.into_iter().chain([("settings", tab.as_str())]);
    for (browser, mark) in &browsers {
        for (name, place) in views.clone() {
            browser.script(&format!("location.hash = '{place}'")).await;
            browser.says("health", "does not answer").await;
            if ["runs", "settings"].contains(&name) {
                browser.says("problem-text", "the service did not answer").await;
            }
            check(browser, name, &format!("gone-{mark}"), &axe).await;
        }
    }
    drop(kept);
    let service = Service::start_on(port, dir.path(), &[], Stdio::inherit()).await.healthy().await;
    for (browser, _) in &browsers {
        browser.says("health", "healthy").await;
        browser.script("location.hash = '#/runs'").await;
        browser.says("runs-history", "bad").await;
    }
    for (browser, _) in browsers {
        browser.close().await;
    }
    service.delete_all(dir.path()).await;
}

/// Makes 299 functions of one, and 10,000 invocations of its last.
const COPY: &str = r#"
import sqlite3, sys, uuid
db = sqlite3.connect(sys.argv[1])
def copy(table, of, **changes):
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[1] != "number" or table == "versions"]
    values = ", ".join(f":{name}" if name in changes else name for name in columns)
    db.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {of} LIMIT 1", changes)
(one,) = db.execute("SELECT id FROM functions").fetchone()
(last,) = db.execute("SELECT max(number) FROM invocations").fetchone()
ids = [one]
for n in range(1, 300):
    id = str(uuid.uuid4())
    ids.append(id)
    copy("functions", f"id = '{one}'", id=id, name=f"copy-{n}")
    for table in ("versions", "zips", "version_logs"):
        copy(table, f"function_id = '{one}'", function_id=id)
for n in range(10000):
    copy("invocations", f"number = {last}", id=str(uuid.uuid4()), function_id=ids[n % 300])
db.commit()
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn three_hundred_functions_and_ten_thousand_runs_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[FILE]).await.healthy().await;
    let id = service.deploy(python("print('one of many')")).await;
    service.execute(&id).await.assert_outcome(200, "ok");
    service.stop().await;
    let file = dir.path().join("data/store.db");
    let copied = Command::new("python3").args(["-c", COPY]).arg(file).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let service = Service::start(dir.path(), &[FILE]).await.healthy().await;
    let count = service.get("/api/functions").await.body.as_array().unwrap().len();
    assert_eq!(count, 300);
    let browser = Browser::open(1280, 900, false).await;
    for (place, selector, rows) in
        [("#/functions", "#functions a", 300), ("#/runs", "#runs-history tr", 50), ("#/", "#tiles div", 8)]
    {
        browser.goto("about:blank").await;
        let began = Instant::now();
        browser.goto(&format!("{}/{place}", service.url)).await;
        let shown = format!("return document.querySelectorAll('{selector}').length");
        eventually(place, async || (browser.script(&shown).await == rows).then_some(())).await;
        // The time is for people who read the test's output: a busy machine must not fail the test.
        println!("{place} with 300 functions and 10,000 runs: {} ms", began.elapsed().as_millis());
    }
    browser.goto(&format!("{}/#/functions", service.url)).await;
    browser.type_into("search", "copy-17").await;
    let found = "return document.querySelectorAll('#functions a').length";
    eventually("the search finds eleven", async || (browser.script(found).await == 11).then_some(())).await;
    browser.close().await;
    let axe = axe();
    for (browser, mark) in browsers().await {
        for view in VIEWS {
            look(&browser, &service, view, &format!("300-{mark}"), &axe).await;
        }
        browser.close().await;
    }
    let last: Value = service.get("/api/invocations?limit=500").await.assert_status(200).body;
    assert_eq!(last["invocations"].as_array().unwrap().len(), 500);
    assert_eq!(last["nextCursor"].is_string(), json!(true));
    service.abandon().await;
}

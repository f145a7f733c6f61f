//! What runs a function by itself, in the console: HTTP, schedules, notifications and tokens.

use serde_json::json;

use crate::browser::Browser;
use crate::support::{answer, eventually};
use crate::tokens::{API_TOKEN, Holder, start};

#[tokio::test]
#[ignore = "needs docker"]
async fn a_person_sets_what_runs_a_function() {
    let dir = tempfile::tempdir().unwrap();
    let allowed = [("EGRESS_ALLOW", "hooks.example:443"), ("FUNCTIONS_PORT", "0"), ("HTTP_FUNCTIONS", "public")];
    let service = start(dir.path(), &allowed).await.healthy().await;
    let admin = Holder::admin(&service);
    let id = admin.deploy("night", "print('ran')").await;
    admin.make(json!({"name": "ci", "scopes": ["deploy"]})).await;
    let browser = Browser::open(1280, 1400, false).await;
    browser.goto(&service.url).await;
    browser.type_into("token", &format!("{API_TOKEN}\u{e007}")).await;
    browser.says("functions", "night").await;
    browser.says("tokens", "ci · deploy").await;
    browser.script("document.querySelector('#functions button').click()").await;
    browser.says("http-path", "/f/night").await;
    let settings = async || admin.get(&format!("/api/functions/{id}/settings")).await.assert_status(200).body;

    browser.says("detail-title", "night").await;
    browser.script("document.getElementById('http-mode').value = 'public'").await;
    browser.click("http-save").await;
    browser.says("http-status", "saved").await;
    assert_eq!(settings().await["http"], "public");

    browser.type_into("schedule-name", "nightly").await;
    browser.type_into("schedule-cron", "0 3 * *").await;
    browser.click("schedule-save").await;
    browser.says("problem-text", "has 4 fields").await;
    browser.click("problem-close").await;
    browser.type_into("schedule-cron", " *").await;
    browser.type_into("schedule-zone", "Europe/Berlin").await;
    browser.click("schedule-save").await;
    browser.says("schedule-status", "the next run is at").await;
    browser.says("schedules", "nightly · 0 3 * * * · Europe/Berlin · next ").await;
    let press = async |text: &str| {
        let all = "[...document.querySelectorAll('#detail button')]";
        let find = format!("{all}.find((one) => one.textContent === '{text}')");
        let is_there = format!("return !!{find}");
        eventually(text, async || browser.script(&is_there).await.as_bool().filter(|&found| found)).await;
        browser.script(&format!("{find}.click()")).await;
    };
    press("Pause nightly").await;
    browser.says("schedules", "pauses").await;
    press("Run nightly now").await;
    eventually("the run is in the history", async || {
        let all = admin.get(&format!("/api/functions/{id}/invocations")).await.body;
        all["invocations"][0]["trigger"].as_str().filter(|&trigger| trigger == "schedule:nightly").map(drop)
    })
    .await;
    browser.shoot("triggers").await;
    press("Remove nightly").await;
    let schedules = format!("/api/functions/{id}/schedules");
    eventually("the schedule is gone", async || (admin.get(&schedules).await.body == json!([])).then_some(())).await;

    browser.type_into("notify-url", "https://other.example/").await;
    browser.click("notify-save").await;
    browser.says("problem-text", "EGRESS_ALLOW").await;
    browser.click("problem-close").await;
    browser.script("document.getElementById('notify-url').value = 'https://hooks.example/failed'").await;
    browser.click("notify-save").await;
    browser.says("notify-status", "not shown again: whsec_").await;
    assert_eq!(settings().await["notify"], json!({"url": "https://hooks.example/failed", "on": ["failure"]}));

    browser.script("document.querySelector('#tokens button').click()").await;
    let tokens = async || answer(admin.request(reqwest::Method::GET, "/api/tokens")).await.body;
    eventually("the token is gone", async || (tokens().await == json!([])).then_some(())).await;
    browser.close().await;
    service.stop().await;
}

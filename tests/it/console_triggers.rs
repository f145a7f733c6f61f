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
    browser.says("tiles", "Functions").await;
    browser.click("nav-tokens").await;
    browser.says("tokens", "ci · deploy").await;
    browser.press_button("Delete token ci").await;
    browser.says("confirm-text", "refused from then on").await;
    browser.click("confirm-yes").await;
    let tokens = async || answer(admin.request(reqwest::Method::GET, "/api/tokens")).await.body;
    eventually("the token is gone", async || (tokens().await == json!([])).then_some(())).await;
    browser.type_into("token-name", "reader").await;
    browser.click("token-read").await;
    browser.type_into("token-functions", "night").await;
    browser.click("token-create").await;
    browser.says("token-status", "not shown again: ").await;
    browser.says("tokens", "reader · read · for night").await;
    assert_eq!(tokens().await[0]["functions"], json!([id]));
    browser.goto(&format!("{}/#/functions/{id}/triggers", service.url)).await;
    browser.says("http-path", "/f/night").await;
    let settings = async || admin.get(&format!("/api/functions/{id}/settings")).await.assert_status(200).body;

    browser.says("detail-title", "night").await;
    browser.is_read("part-triggers").await;
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
    browser.press_button("Pause nightly").await;
    browser.says("schedules", "pauses").await;
    browser.press_button("Run nightly now").await;
    eventually("the run is in the history", async || {
        let all = admin.get(&format!("/api/functions/{id}/invocations")).await.body;
        all["invocations"][0]["trigger"].as_str().filter(|&trigger| trigger == "schedule:nightly").map(drop)
    })
    .await;
    browser.shoot("triggers").await;
    browser.press_button("Remove nightly").await;
    let schedules = format!("/api/functions/{id}/schedules");
    let none = async || (admin.get(&schedules).await.body == json!([])).then_some(());
    eventually("the first schedule is gone", none).await;
    // A pause leaves the rest as a client has written the rest, numbers included that JavaScript does not have.
    let input = json!({"n": 12_345_678_901_234_567_890_u64, "x": 1.0});
    let body = json!({"cron": "0 4 * * *", "input": input});
    answer(admin.request(reqwest::Method::PUT, &format!("{schedules}/exact")).json(&body)).await.assert_status(200);
    browser.goto("about:blank").await;
    browser.goto(&format!("{}/#/functions/{id}/triggers", service.url)).await;
    browser.says("schedules", "exact").await;
    browser.press_button("Pause exact").await;
    browser.says("schedules", "pauses").await;
    let paused = admin.get(&schedules).await.body;
    assert_eq!((&paused[0]["enabled"], &paused[0]["input"]), (&json!(false), &input));
    browser.press_button("Remove exact").await;
    eventually("the second schedule is gone", none).await;

    browser.type_into("notify-url", "https://other.example/").await;
    browser.click("notify-save").await;
    browser.says("problem-text", "EGRESS_ALLOW").await;
    browser.click("problem-close").await;
    browser.script("document.getElementById('notify-url').value = 'https://hooks.example/failed'").await;
    browser.click("notify-save").await;
    browser.says("notify-status", "not shown again: whsec_").await;
    assert_eq!(settings().await["notify"], json!({"url": "https://hooks.example/failed", "on": ["failure"]}));

    browser.close().await;
    service.abandon().await;
}

//! A hostile page of a function, opened from the console's own tab, gets neither the token nor an answer of the API.

use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::cgi::PUBLIC;
use crate::support::{TestApp, answer, eventually, python};

/// Tries all ways to the console's token and to the API, and shows what came of them.
const PAGE: &str = r#"
import os
print("Content-Type: text/html\n")
print("""<!doctype html><title>page</title><p id="result">waiting</p><iframe id="frame"></iframe><script>
const api = %r, found = {};
const tried = async (name, way) => {
  try { found[name] = String(await way()); } catch (error) { found[name] = "refused"; }
};
(async () => {
  await tried("session storage", () => JSON.stringify(sessionStorage) + JSON.stringify(localStorage));
  await tried("opener", () => opener ? JSON.stringify(opener.sessionStorage) : "refused");
  await tried("cookies", () => document.cookie);
  for (const [name, options] of Object.entries({
    plain: {}, credentials: {credentials: "include"}, "no-cors": {mode: "no-cors", credentials: "include"},
    form: {method: "POST", mode: "no-cors", headers: {"content-type": "text/plain"}, body: '{"functionId": "x"}'},
  })) {
    await tried(name, async () => (await fetch(api + "/api/functions", options)).text());
  }
  await tried("frame", async () => {
    const frame = document.getElementById("frame");
    frame.src = api + "/";
    await new Promise((done) => { frame.onload = done; setTimeout(done, 30000); });
    return JSON.stringify(frame.contentWindow.sessionStorage);
  });
  await tried("worker", async () => {
    await navigator.serviceWorker.register(location.pathname + "?script", {scope: "/"});
    return "registered";
  });
  document.getElementById("result").textContent = JSON.stringify(found);
})();
</script>""" % os.environ["QUERY_STRING"])
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn a_hostile_page_gets_no_token_and_no_answer() {
    for token in [Some("s3cret"), None] {
        let own: Vec<_> = token.map(|token| ("API_TOKEN", token)).into_iter().collect();
        TestApp::run(&[&PUBLIC[..], &own].concat(), async |app| {
            let code = Part::bytes(python(PAGE)).file_name("f.zip");
            let form = Form::new().part("code", code).text("name", "evil").text("http", "public");
            let submit = app.request(Method::POST, "/api/submit").bearer_auth(token.unwrap_or_default());
            let id =
                answer(submit.multipart(form)).await.assert_status(200).body["functionId"].as_str().unwrap().to_owned();
            let browser = Browser::open(1000, 800, false).await;
            browser.goto(&format!("{}/#/functions", app.url)).await;
            if let Some(token) = token {
                browser.type_into("token", &format!("{token}\u{e007}")).await;
            }
            browser.says("functions", "evil").await;
            // Both hosts of the machine: by the same name, and by another.
            for host in [app.functions_url.clone(), app.functions_url.replace("127.0.0.1", "localhost")] {
                let page = format!("{host}/f/evil?{}", app.url);
                browser.script(&format!("window.open({page:?}, 'page')")).await;
                browser.goto(&page).await;
                let shown = async || Some(browser.text("result").await).filter(|text| text != "waiting");
                let found: Value = serde_json::from_str(&eventually("the page has tried", shown).await).unwrap();
                for (way, got) in found.as_object().unwrap() {
                    let got = got.as_str().unwrap();
                    let is_nothing = ["refused", "", "{}{}"].contains(&got);
                    assert!(is_nothing, "{way} gave {got:?}");
                }
                assert_eq!(found["worker"], json!("refused"));
                browser.goto(&app.url).await;
            }
            browser.close().await;
            let delete = app.request(Method::DELETE, &format!("/api/functions/{id}"));
            answer(delete.bearer_auth(token.unwrap_or_default())).await.assert_status(200);
            app.stop();
        })
        .await;
    }
}

//! A function.toml, and deployments by a function's name.

use futures_util::future::join_all;
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, answer, python, zip};
use crate::tokens::{Holder, start};

const LIST: &str = "import glob, os\nprint(sorted(glob.glob('*.*')), os.environ.get('GREETING'))\n";

fn form(zip: Vec<u8>, fields: &[(&'static str, &str)]) -> Form {
    let form = Form::new().part("code", Part::bytes(zip).file_name("function.zip"));
    fields.iter().fold(form, |form, &(name, value)| form.text(name, value.to_owned()))
}

/// Puts a zip with this function.toml in the place of the function of this name, or of this id.
async fn put(app: &TestApp, function: &str, manifest: &str, fields: &[(&'static str, &str)]) -> Answer {
    let zip = zip(&[("main.py", LIST), ("function.toml", manifest)]);
    answer(app.request(Method::PUT, &format!("/api/functions/{function}")).multipart(form(zip, fields))).await
}

fn id(answer: &Answer) -> String {
    answer.body["functionId"].as_str().unwrap().to_owned()
}

async fn settings(app: &TestApp, id: &str) -> Value {
    app.get(&format!("/api/functions/{id}/settings")).await.assert_status(200).body
}

async fn schedules(app: &TestApp, id: &str) -> Vec<(String, String)> {
    let listed = app.get(&format!("/api/functions/{id}/schedules")).await.assert_status(200).body;
    let text = |schedule: &Value, key: &str| schedule[key].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(|schedule| (text(schedule, "name"), text(schedule, "cron"))).collect()
}

async fn patch(app: &TestApp, id: &str, change: Value) -> Answer {
    answer(app.request(Method::PATCH, &format!("/api/functions/{id}")).json(&change)).await.assert_status(200)
}

async fn roll_back(app: &TestApp, id: &str) -> Answer {
    app.post_json(&format!("/api/functions/{id}/rollback"), "").await.assert_status(200)
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_same_request_makes_and_updates_a_function() {
    TestApp::run(&[], async |app| {
        let manifest = "memory = \"64MB\"\n[environment]\nGREETING = \"of the file\"\n";
        let made = put(app, "my%20job", manifest, &[]).await.assert_status(201);
        assert_eq!(
            (&made.body["version"], made.body["message"].as_str()),
            (&json!(1), Some("Function 'my job' deployed successfully"))
        );
        let again = put(app, "my%20job", manifest, &[]).await.assert_status(200);
        assert_eq!((id(&again), &again.body["version"]), (id(&made), &json!(2)));
        let ran = app.get(&format!("/api/execute?functionId={}", id(&made))).await.assert_outcome(200, "ok");
        // The file is for the platform, and does not come into the image.
        assert_eq!(ran.output(), "['main.py'] of the file\n");
        let shown = settings(app, &id(&made)).await;
        assert_eq!(
            (&shown["memory"], &shown["environment"]),
            (&json!(64_000_000), &json!({"GREETING": "of the file"}))
        );

        // A submit makes another function of the name, which is then no function's alone.
        let zip = zip(&[("main.py", LIST), ("function.toml", "name = \"my job\"")]);
        let other = app.submit_form(form(zip, &[])).await.assert_status(200);
        assert_ne!(id(&other), id(&made));
        put(app, "my%20job", "", &[]).await.assert_problem(409, "ambiguous_name", "several functions");
        put(app, "a%2Fb", "", &[]).await.assert_problem(400, "invalid_request", "`name` holds '/'");
        put(app, "one", "", &[("name", "two")]).await.assert_problem(400, "invalid_request", "in the path");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn of_requests_at_one_time_one_makes_the_function() {
    TestApp::run(&[], async |app| {
        let puts = join_all((0..4).map(|_| put(app, "one", "", &[]))).await;
        let made = puts.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(made, 1, "{puts:?}");
        for answer in puts.into_iter().filter(|answer| answer.status != 201 && answer.status != 200) {
            answer.assert_problem(409, "in_progress", "send the request again");
        }
        assert_eq!(app.get("/api/functions").await.body.as_array().unwrap().len(), 1);
        // A request with a key has one answer, though the function is there by the second time.
        let keyed = async || {
            let request = app.request(Method::PUT, "/api/functions/two").header("idempotency-key", "k");
            answer(request.multipart(form(python(LIST), &[]))).await.assert_status(201)
        };
        assert_eq!(keyed().await.body, keyed().await.body);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn values_belong_to_the_version_and_a_clients_stand_above() {
    TestApp::run(&[("FUNCTIONS_PORT", "0"), ("HTTP_FUNCTIONS", "public")], async |app| {
        let first = "timeout = \"5s\"\nhttp = \"public\"\n[environment]\nGREETING = \"one\"\n[schedules.night]\n\
                     cron = \"0 3 * * *\"\n[schedules.noon]\ncron = \"0 12 * * *\"\n";
        let id = id(&put(app, "job", first, &[]).await.assert_status(201));
        let shown = settings(app, &id).await;
        assert_eq!((&shown["timeout"], &shown["http"]), (&json!("5s"), &json!("public")));
        assert_eq!(app.call(Method::GET, "/f/job").send().await.unwrap().status(), 200);
        let two =
            [("night", "0 3 * * *"), ("noon", "0 12 * * *")].map(|(name, cron)| (name.to_owned(), cron.to_owned()));
        assert_eq!(schedules(app, &id).await, two);
        // A client's schedule is the client's own, also under a declared name.
        let own = app.request(Method::PUT, &format!("/api/functions/{id}/schedules/night"));
        answer(own.json(&json!({"cron": "0 4 * * *"}))).await.assert_status(200);
        patch(app, &id, json!({"environment": {"GREETING": "of a client"}})).await;

        let second = "[environment]\nGREETING = \"two\"\nOTHER = \"two\"\n[schedules.night]\ncron = \"0 5 * * *\"\n";
        let warned = put(app, &id, second, &[]).await.assert_status(200);
        let warning = warned.body["warnings"][0].as_str().unwrap();
        assert!(warning.starts_with("`environment.GREETING` of this version does not count"), "{warning}");
        let shown = settings(app, &id).await;
        assert_eq!((&shown["timeout"], &shown["http"]), (&Value::Null, &json!("off")));
        assert_eq!(shown["environment"], json!({"GREETING": "of a client", "OTHER": "two"}));
        assert_eq!(app.call(Method::GET, "/f/job").send().await.unwrap().status(), 404);
        assert_eq!(schedules(app, &id).await, [("night".to_owned(), "0 4 * * *".to_owned())]);

        // The version's values come back with the version, and null lets the file count again.
        roll_back(app, &id).await;
        assert_eq!(settings(app, &id).await["environment"], json!({"GREETING": "of a client"}));
        assert_eq!(settings(app, &id).await["timeout"], json!("5s"));
        assert_eq!(schedules(app, &id).await.len(), 2);
        let answer = patch(app, &id, json!({"environment": {"GREETING": null}})).await;
        assert_eq!(answer.body["settings"]["environment"], json!({"GREETING": "one"}));

        // A form field counts for the version of its submit.
        put(app, &id, second, &[("environment", r#"{"GREETING": "form"}"#), ("memory", "64MB")])
            .await
            .assert_status(200);
        let shown = settings(app, &id).await;
        assert_eq!((&shown["environment"]["GREETING"], &shown["memory"]), (&json!("form"), &json!(64_000_000)));
        put(app, &id, second, &[]).await.assert_status(200);
        let shown = settings(app, &id).await;
        assert_eq!((&shown["environment"]["GREETING"], &shown["memory"]), (&json!("two"), &Value::Null));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn names_entries_and_languages_are_the_files() {
    TestApp::run(&[], async |app| {
        let files = [("a.py", "print('a')"), ("b.py", "print('b')"), ("main.go", "package main\nfunc main() {}\n")];
        let with = |manifest| zip(&[&files[..], &[("function.toml", manifest)]].concat());
        let manifest = "name = \"named\"\nlanguage = \"python\"\nentry = \"b.py\"\n";
        let made = app.submit_form(form(with(manifest), &[])).await.assert_status(200);
        assert_eq!(made.body["message"], "Function 'named' deployed successfully");
        let id = id(&made);
        let ran = app.get(&format!("/api/execute?functionId={id}")).await.assert_outcome(200, "ok");
        assert_eq!(ran.output(), "b\n");
        let name = async || app.get(&format!("/api/functions/{id}")).await.body["name"].as_str().unwrap().to_owned();
        let update = async |manifest| {
            let request = app.request(Method::PUT, &format!("/api/functions/{id}"));
            answer(request.multipart(form(with(manifest), &[]))).await.assert_status(200)
        };
        update("name = \"renamed\"\nlanguage = \"python\"\nentry = \"a.py\"\n").await;
        assert_eq!(name().await, "renamed");
        roll_back(app, &id).await;
        assert_eq!(name().await, "named");
        // A name that a client has given stays.
        patch(app, &id, json!({"name": "mine"})).await;
        update("name = \"other\"\nlanguage = \"golang\"\n").await;
        assert_eq!(name().await, "mine");
        for (manifest, code, status, said) in [
            ("entry = \"c.py\"\nlanguage = \"python\"", "language_not_detected", 422, "no Python file of that name"),
            ("entry = \"a.py\"\nlanguage = \"golang\"", "language_not_detected", 422, "has no entry"),
            ("\nmemry = 1", "invalid_request", 400, "function.toml, line 2: unknown field `memry`"),
            ("[secrets]\nA = \"b\"", "invalid_request", 400, "line 1: secrets do not stand in a file"),
            ("memory = \"900GB\"", "invalid_settings", 400, "MAX_FUNCTION_MEMORY"),
            ("http = \"public\"", "http_functions_off", 400, "FUNCTIONS_PORT"),
            ("network = { allow = [\"a.example:443\"] }", "network_not_allowed", 400, "EGRESS_ALLOW"),
        ] {
            app.submit_form(form(with(manifest), &[])).await.assert_problem(status, code, said);
        }
        let large = "# ".to_owned() + &"x".repeat(70_000);
        app.submit_form(form(with(&large), &[])).await.assert_problem(413, "too_large", "function.toml is larger");
        // Another language has another file of the same meaning.
        let zip = zip(&[("main.go", "package main\nfunc main() { println(1) }\n"), ("function.toml", "keepWarm = 1")]);
        let made = app.submit_form(form(zip, &[])).await.assert_status(200);
        let id = made.body["functionId"].as_str().unwrap();
        assert_eq!(settings(app, id).await["keepWarm"], 1);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_file_grants_nothing_that_the_token_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await;
    let admin = Holder::admin(&service);
    let (mine, hidden) = (admin.deploy("mine", LIST).await, admin.deploy("hidden", LIST).await);
    let holder = admin.make(json!({"name": "ci", "scopes": ["deploy"], "functions": [mine]})).await;
    let put = async |holder: &Holder, name: &str| {
        let zip = zip(&[("main.py", LIST), ("function.toml", "timeout = \"3s\"")]);
        answer(holder.request(Method::PUT, &format!("/api/functions/{name}")).multipart(form(zip, &[]))).await
    };
    let updated = put(&holder, "mine").await.assert_status(200);
    assert_eq!((updated.body["functionId"].as_str(), &updated.body["version"]), (Some(mine.as_str()), &json!(2)));
    // A function that the token does not see is no function, and the token makes none.
    put(&holder, "hidden").await.assert_problem(403, "forbidden", "");
    put(&holder, "new").await.assert_problem(403, "forbidden", "");
    put(&holder, &hidden).await.assert_problem(404, "function_not_found", "");
    let reader = admin.make(json!({"name": "reader", "scopes": ["read"]})).await;
    put(&reader, "mine").await.assert_problem(403, "forbidden", "`deploy`");
    assert_eq!(admin.get("/api/functions").await.body.as_array().unwrap().len(), 2);
    service.abandon().await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn what_a_version_declares_outlasts_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path(), &[]).await;
    let admin = Holder::admin(&service);
    let put = async |admin: &Holder, manifest: &str| {
        let zip = zip(&[("main.py", LIST), ("function.toml", manifest)]);
        answer(admin.request(Method::PUT, "/api/functions/job").multipart(form(zip, &[]))).await
    };
    let id = id(&put(&admin, "timeout = \"5s\"\n[environment]\nA = \"file\"").await.assert_status(201));
    let settings = format!("/api/functions/{id}/settings");
    let change = json!({"environment": {"A": "client"}, "cpus": 0.5});
    answer(admin.request(Method::PATCH, &format!("/api/functions/{id}")).json(&change)).await.assert_status(200);
    service.stop().await;
    let service = start(dir.path(), &[]).await;
    let admin = Holder::admin(&service);
    let shown = admin.get(&settings).await.assert_status(200).body;
    assert_eq!((&shown["timeout"], &shown["environment"]["A"]), (&json!("5s"), &json!("client")));
    put(&admin, "timeout = \"7s\"\ncpus = 0.2").await.assert_status(200);
    let shown = admin.get(&settings).await.assert_status(200).body;
    assert_eq!((&shown["timeout"], &shown["cpus"]), (&json!("7s"), &json!(0.5)));
    assert_eq!(shown["environment"], json!({"A": "client"}));
    service.abandon().await;
}

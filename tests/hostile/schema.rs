//! The API against its own description: Schemathesis makes thousands of requests from the description.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::alone;
use crate::support::{Service, python};

/// The names of a generated client's methods.
const OPERATIONS: [&str; 36] = [
    "cancelInvocation",
    "configureFunction",
    "createToken",
    "deleteFunction",
    "deleteSchedule",
    "deleteToken",
    "executeAgain",
    "executeByQuery",
    "executeFunction",
    "followInvocation",
    "getDescription",
    "getFunction",
    "getFunctionSettings",
    "getInvocation",
    "getLiveness",
    "getMetrics",
    "getOverview",
    "getReadiness",
    "getSchedule",
    "getVersion",
    "getVersionCode",
    "invokeFunction",
    "listAllInvocations",
    "listFunctions",
    "listInstances",
    "listInvocations",
    "listNodes",
    "listNotifications",
    "listSchedules",
    "listTokens",
    "listVersions",
    "putSchedule",
    "rollBackFunction",
    "runSchedule",
    "submitFunction",
    "updateFunction",
];

#[tokio::test]
#[ignore = "needs docker"]
async fn every_answer_is_one_that_the_description_has() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let id = service.deploy(python("print('served')")).await;
    let executed = service.execute(&id).await.assert_outcome(200, "ok");
    let invocation = executed.body["invocationId"].as_str().unwrap();
    let config = format!(
        "# An instance with a hundredth of a processor takes seconds to start.\n\
         request-timeout = 60\n\n\
         # The function is there, so that Schemathesis sees more than refusals.\n\
         [[operations]]\ninclude-path = \"/api/execute\"\nparameters = {{ functionId = \"{id}\" }}\n\
         # Keys that make the same variable are refused. A schema can't say so.\n\
         checks.positive_data_acceptance.enabled = false\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}\"\ninclude-method = \"GET\"\nparameters = {{ id = \"{id}\" }}\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{name-or-id}}/invoke\"\nparameters = {{ \"name-or-id\" = \"{id}\" }}\n\
         checks.positive_data_acceptance.enabled = false\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}/invocations\"\nparameters = {{ id = \"{id}\" }}\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}/versions\"\nparameters = {{ id = \"{id}\" }}\n\n\
         [[operations]]\ninclude-path-regex = \"^/api/functions/[^/]*/versions/\"\nparameters = {{ id = \"{id}\", number = 1 }}\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}/settings\"\nparameters = {{ id = \"{id}\" }}\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}/notifications\"\nparameters = {{ id = \"{id}\" }}\n\n\
         # A schema can't say which versions there are, that a file is no zip, or that a variable and a secret have the
         # same name.\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}/rollback\"\nparameters = {{ id = \"{id}\" }}\n\
         checks.positive_data_acceptance.enabled = false\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}\"\ninclude-method = \"PUT\"\nparameters = {{ id = \"{id}\" }}\n\
         checks.positive_data_acceptance.enabled = false\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}\"\ninclude-method = \"PATCH\"\nparameters = {{ id = \"{id}\" }}\n\
         checks.positive_data_acceptance.enabled = false\n\n\
         # A text is rarely a time of crontab(5), or a time zone.\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}/schedules/{{name}}\"\nparameters = {{ id = \"{id}\" }}\n\
         checks.positive_data_acceptance.enabled = false\n\n\
         [[operations]]\ninclude-path = \"/api/functions/{{id}}/schedules\"\nparameters = {{ id = \"{id}\" }}\n\n\
         [[operations]]\ninclude-path = \"/api/invocations/{{id}}/again\"\nparameters = {{ id = \"{invocation}\" }}\n\n\
         [[operations]]\ninclude-path = \"/api/invocations/{{id}}/events\"\nparameters = {{ id = \"{invocation}\" }}\n\n\
         [[operations]]\ninclude-path = \"/api/invocations/{{id}}\"\ninclude-method = \"GET\"\nparameters = {{ id = \"{invocation}\" }}\n\n\
         # Without API_TOKEN there are no tokens.\n\
         [[operations]]\ninclude-path-regex = \"^/api/tokens\"\nchecks.positive_data_acceptance.enabled = false\n\n\
         # A file that is no zip is refused. The description can only ask for a file.\n\
         [[operations]]\ninclude-path = \"/api/submit\"\nchecks.positive_data_acceptance.enabled = false\n"
    );
    let config_path = dir.path().join("schemathesis.toml");
    std::fs::write(&config_path, config).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/schemathesis");
    let url = format!("{}/api/openapi.json", service.url);
    let run = move || Command::new(script).args([config_path.as_os_str(), url.as_ref()]).output().unwrap();
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // Schemathesis saw every operation, and made a good many requests.
    let generated = said.split(" generated,").next().unwrap().split_whitespace().last().unwrap();
    assert!(generated.parse::<u32>().unwrap() > 300, "{said}");
    let document = service.get("/api/openapi.json").await.assert_status(200).body;
    let operations: usize =
        document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
    assert!(said.contains(&format!("{operations} selected / {operations} total")), "{said}");
    service.well().await;
    service.delete_all(dir.path()).await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_client_made_of_the_description_compiles_and_calls() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    let document = service.get("/api/openapi.json").await.assert_status(200).body;
    let path = dir.path().join("openapi.json");
    std::fs::write(&path, serde_json::to_string_pretty(&document).unwrap()).unwrap();
    let zip = base64(&python("import os\nprint('Hello,', os.environ.get('NAME', 'World'))"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut client = Command::new(root.join("scripts/typed-client"));
    client.arg(path).arg(root.join("tests/hostile/schema/client.ts")).arg(dir.path().join("client"));
    client.args([&service.url, &zip]);
    let output = tokio::task::spawn_blocking(move || client.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.ends_with("all calls were answered as described\n"), "{said}");
    service.delete_all(dir.path()).await;
}

/// The encoding of RFC 4648, for values on a command line.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().enumerate().fold(0, |bits, (place, &byte)| bits | u32::from(byte) << (16 - 8 * place));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_description_says_what_the_contract_says() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[("API_TOKEN", "s3cret")]).await;
    service.get("/api/openapi.json").await.assert_problem(401, "unauthorized", "");
    service.stop().await;
    let service = Service::start(dir.path(), &[]).await;
    let document = service.get("/api/openapi.json").await.assert_status(200).body;
    let properties = |schema: &str| -> Vec<String> {
        let schema = &document["components"]["schemas"][schema]["properties"];
        let mut names: Vec<String> =
            schema.as_object().unwrap_or_else(|| panic!("{document}")).keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(
        properties("Function"),
        ["createdAt", "functionId", "imageId", "language", "lastExecuted", "name", "version"]
    );
    assert_eq!(properties("Submitted"), ["functionId", "imageId", "message", "notifySecret", "warnings"]);
    assert_eq!(properties("Problem"), ["buildLog", "code", "detail", "requestId", "status", "title"]);
    let executed = properties("Executed");
    for field in
        ["output", "statusCode", "executedAt", "invocationId", "outcome", "exitCode", "stderr", "truncated", "start"]
    {
        assert!(executed.iter().any(|name| name == field), "{field}: {executed:?}");
    }
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values());
    let mut ids: Vec<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, OPERATIONS);
    for (path, methods) in [
        ("/api/submit", &["post"][..]),
        ("/api/execute", &["get", "post"]),
        ("/api/functions", &["get"]),
        ("/api/functions/{id}", &["delete", "get", "patch", "put"]),
        ("/health", &["get"]),
    ] {
        let found: Vec<&String> =
            document["paths"][path].as_object().map(serde_json::Map::keys).into_iter().flatten().collect();
        assert_eq!(found, methods, "{path}");
    }
    assert_eq!(document["paths"]["/health"]["get"]["security"], Value::from(vec![serde_json::json!({})]));
    service.stop().await;
}

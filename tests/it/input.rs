//! How input reaches a function, and which input is refused.

use serde_json::{Value, json};

use crate::support::{TestApp, docker, go, python};

const SHOW: &str = "import json, os, sys\nprint(json.dumps([{k: v for k, v in os.environ.items() if k.startswith(('IN_', 'FUNCTION_', 'INVOCATION_'))}, sys.stdin.read()]))\n";

#[tokio::test]
#[ignore = "needs docker"]
async fn input_arrives_as_environment_and_on_stdin() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python(SHOW)).await;
        let input =
            r#"{"in-a.b": "x y", "in_n": 1.50, "in_t": true, "in_z": null, "in_o": {"k": [1, 2]}, "in_u": "é\n"}"#;
        let body = format!(r#"{{"functionId": "{}", "input": {input}}}"#, function.id);
        let answer = app.post_json("/api/execute", body).await.assert_outcome(200, "ok");
        let shown: Value = serde_json::from_str(answer.output()).unwrap();
        let expected = json!({
            "IN_A_B": "x y", "IN_N": "1.50", "IN_T": "true", "IN_Z": "", "IN_O": "{\"k\":[1,2]}", "IN_U": "é\n",
            "FUNCTION_ID": function.id, "FUNCTION_NAME": "function", "INVOCATION_ID": answer.body["invocationId"],
        });
        assert_eq!(shown[0], expected);
        assert_eq!(shown[1], r#"{"in-a.b":"x y","in_n":1.50,"in_t":true,"in_z":null,"in_o":{"k":[1,2]},"in_u":"é\n"}"#);
        let nothing: Value =
            serde_json::from_str(app.execute(&function).await.assert_outcome(200, "ok").output()).unwrap();
        assert_eq!(nothing[1], "{}");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn large_input_arrives_whole() {
    TestApp::run(&[], async |app| {
        let input: Value = (0..15).map(|n| (format!("v{n}"), Value::from("x".repeat(64 << 10)))).collect::<serde_json::Map<_, _>>().into();
        let size = input.to_string().len();
        let program = "import os, sys\nprint(len(sys.stdin.read()), sum(len(v) for k, v in os.environ.items() if k.startswith('V')))\n";
        let function = app.deploy(python(program)).await;
        let answer = app.execute_with(&function, input.clone()).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), format!("{size} {}\n", 15 << 16));
        let program = "import (\n\t\"fmt\"\n\t\"io\"\n\t\"os\"\n)\n\nfunc main() {\n\tdata, _ := io.ReadAll(os.Stdin)\n\tfmt.Println(len(data), len(os.Getenv(\"V14\")))\n}\n";
        let function = app.deploy(go(program)).await;
        let answer = app.execute_with(&function, input).await.assert_outcome(200, "ok");
        assert_eq!(answer.output(), format!("{size} {}\n", 1 << 16));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn bad_input_is_refused_by_key() {
    TestApp::run(&[], async |app| {
        let function = app.deploy(python("")).await;
        let refused = async |input: Value, detail: &str| {
            app.execute_with(&function, input).await.assert_problem(400, "invalid_input", detail);
        };
        refused(json!({"1a": "x"}), "\"1a\"").await;
        refused(json!({"a b": "x"}), "\"a b\"").await;
        refused(json!({"a.b": 1, "a-b": 2}), "A_B").await;
        refused(json!({"ld_preload": "x"}), "LD_PRELOAD").await;
        refused(json!({"a": "x\0y"}), "NUL").await;
        let large = json!({"big": "x".repeat((64 << 10) + 1)});
        app.execute_with(&function, large).await.assert_problem(413, "too_large", "\"big\"");
        app.execute_with(&function, json!([1])).await.assert_problem(400, "invalid_request", "an object");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn input_stands_on_no_command_line() {
    for transport in ["auto", "pipes"] {
        TestApp::run(&[("INSTANCE_TRANSPORT", transport)], async |app| {
            let function = app.deploy(python("import time\ntime.sleep(3)\nprint('done')\n")).await;
            let looked = async {
                let name = app.begun(&function).await;
                let inspected = docker(&["inspect", &name]).join("\n");
                assert!(inspected.contains("youtube-serverless.function.id") && !inspected.contains("v3ry-s3cret"));
                let processes = std::fs::read_dir("/proc").unwrap().flatten();
                let lines: Vec<String> = processes
                    .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
                    .map(|line| String::from_utf8_lossy(&line).into_owned())
                    .collect();
                let is_seen = lines.iter().any(|line| line.contains(&name)) || transport == "auto";
                assert!(is_seen, "the docker client is not seen");
                assert!(!lines.iter().any(|line| line.contains("v3ry-s3cret")));
            };
            let (answer, ()) = tokio::join!(app.execute_with(&function, json!({"key": "v3ry-s3cret"})), looked);
            answer.assert_outcome(200, "ok");
        })
        .await;
    }
}

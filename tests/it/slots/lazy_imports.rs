//! A module that a program imports in a function, when a slot's stash has another copy of the module, is the module of
//! any other instance: the same classes on both sides of C, the same registries.

use serde_json::json;

use super::start_of;
use crate::support::{TestApp, python};

const PROGRAM: &str = include_str!("lazy_imports.py");
const STASH: &str = include_str!("../../../src/runtimes/python/stash.py");

/// What the program imports at its top level beside: nothing, and modules that a slot restores.
const TOPS: [&str; 3] = [
    "",
    "import json, collections, re, logging, threading, datetime\n",
    "import email.message, enum, random, asyncio.events, functools\n",
];

/// The modules of the stash, and the program's own functions.
fn subjects() -> Vec<String> {
    let (_, list) = STASH.split_once("\nCOMMON = (").unwrap();
    let (list, _) = list.split_once("\n)").unwrap();
    let modules = list.split('"').skip(1).step_by(2);
    let functions = PROGRAM.lines().filter_map(|line| line.strip_prefix("def ")?.split_once("()"));
    let subjects: Vec<String> = modules.chain(functions.map(|(name, _)| name)).map(str::to_owned).collect();
    assert!(subjects.len() > 60 && subjects.iter().any(|name| name == "of_json_mixed"), "{subjects:?}");
    subjects
}

/// The text without addresses of objects.
fn without_addresses(text: &str) -> String {
    let mut parts = text.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| all + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_module_imported_in_a_function_is_that_of_any_instance() {
    let mut seen = Vec::new();
    for slots in ["0", "1"] {
        let settings = [("DOCKER_CONTAINER_LIMIT", "8"), ("SLOTS_PYTHON", slots), ("INSTANCE_IDLE_TIMEOUT", "5s")];
        TestApp::run(&settings, async |app| {
            let mut functions = Vec::new();
            for top in TOPS {
                let program = PROGRAM.replacen("import os\nimport sys\n", &format!("import os\nimport sys\n{top}"), 1);
                functions.push(app.deploy(python(&program)).await);
            }
            if slots == "1" {
                app.fit(functions.len(), 1).await;
            }
            let mut texts = Vec::new();
            for (function, top) in functions.iter().zip(TOPS) {
                for (index, name) in subjects().into_iter().enumerate() {
                    let answer = app.execute_with(function, json!({"MODULE": name})).await.assert_outcome(200, "ok");
                    if index == 0 && slots == "1" {
                        assert_eq!(start_of(&answer), "slot");
                    }
                    assert!(slots == "0" || start_of(&answer) != "cold", "{name}");
                    texts.push((top, name, without_addresses(answer.output())));
                }
                if slots == "1" {
                    app.slots_are_ready(1).await;
                }
            }
            seen.push(texts);
        })
        .await;
    }
    let [cold, slot] = &seen[..] else { panic!("two runs") };
    for (cold, slot) in cold.iter().zip(slot) {
        assert_eq!(cold, slot);
    }
}

//! Hostile and clumsy uploads.

use reqwest::multipart::{Form, Part};

use crate::support::{TestApp, eventually, python, zip};

fn file(zip: Vec<u8>, name: &str) -> Form {
    Form::new().part("code", Part::bytes(zip).file_name(name.to_owned()))
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_name_is_the_given_one_or_the_files() {
    TestApp::run(&[], async |app| {
        app.submit_form(file(python(""), "My Function (2).zip").text("language", "python")).await.assert_status(200);
        app.submit_form(file(python("1"), "../../.zip")).await.assert_status(200);
        app.submit_form(Form::new().text("name", "first").part("code", Part::bytes(python("2"))))
            .await
            .assert_status(200);
        let names = app.get("/api/functions").await.body;
        let names: Vec<&str> =
            names.as_array().unwrap().iter().map(|function| function["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["My Function 2", "function", "first"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn clumsy_forms_are_refused() {
    TestApp::run(&[], async |app| {
        let refused = async |form: Form, detail: &str| {
            app.submit_form(form).await.assert_problem(400, "invalid_request", detail);
        };
        refused(Form::new().text("name", "x"), "no file field `code`").await;
        refused(file(python(""), "a.zip").text("name", ""), "`name` has 0 characters").await;
        refused(file(python(""), "a.zip").text("name", "a/b"), "`name` holds '/'").await;
        refused(file(python(""), "a.zip").text("language", "ruby"), "\"ruby\"").await;
        refused(file(python(""), "a.zip").text("nmae", "x"), "\"nmae\"").await;
        refused(file(python(""), "a.zip").part("code", Part::bytes(python(""))), "`code` twice").await;
        refused(file(python(""), "a.zip").text("name", "x".repeat(2000)), "1024").await;
        let cut =
            app.request(reqwest::Method::POST, "/api/submit").header("content-type", "multipart/form-data; boundary=x");
        crate::support::answer(cut.body("--x\r\ncontent-disp")).await.assert_problem(
            400,
            "invalid_request",
            "multipart",
        );
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_file_size_limit_is_exact() {
    let whole = python(&"#".repeat(100));
    let limit = whole.len().to_string();
    TestApp::run(&[("MAX_FILE_SIZE", &limit)], async |app| {
        app.submit(whole.clone()).await.assert_status(200);
        let over = [whole.as_slice(), b"x"].concat();
        app.submit(over).await.assert_problem(413, "too_large", &format!("{limit} bytes (MAX_FILE_SIZE)"));
        app.submit(vec![0; 1 << 20]).await.assert_problem(413, "too_large", "MAX_FILE_SIZE");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn bad_archives_are_refused_with_their_reason() {
    TestApp::run(&[("MAX_UNPACKED_SIZE", "1000")], async |app| {
        let refused = async |zip: Vec<u8>, detail: &str| {
            app.submit(zip).await.assert_problem(400, "invalid_archive", detail);
        };
        refused(b"no zip at all".to_vec(), "not a zip archive").await;
        refused(zip(&[("../main.py", "")]), "holds `..`").await;
        refused(zip(&[("/main.py", "")]), "absolute").await;
        refused(zip(&[("main.py", ""), ("MAIN.py", "")]), "MAIN.py").await;
        app.submit(zip(&[("main.py", &"#".repeat(1001))])).await.assert_problem(
            413,
            "too_large",
            "1000 bytes (MAX_UNPACKED_SIZE)",
        );
        let nothing = app.submit(zip(&[("readme.txt", "")])).await;
        nothing.assert_problem(422, "language_not_detected", "readme.txt");
        let both = zip(&[("main.py", ""), ("main.go", "package main\nfunc main() {}\n")]);
        app.submit(both.clone()).await.assert_problem(422, "language_not_detected", "`language`");
        app.submit_form(file(both, "a.zip").text("language", "python")).await.assert_status(200);
    })
    .await;
}

/// A generator of numbers that are the same at every run (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn two_hundred_pieces_of_garbage_leave_nothing() {
    TestApp::run(&[], async |app| {
        let mut numbers = Numbers(0x5eed);
        // The zip has no program, so that even a mutation that does no harm is refused.
        let whole = zip(&[("data/a.bin", &"ab".repeat(500)), ("b.txt", "text"), ("c/d/e.txt", "")]);
        for round in 0..200 {
            let upload = match round % 3 {
                0 => (0..numbers.next() % 5000).map(|_| numbers.next() as u8).collect(),
                1 => whole[..numbers.next() % whole.len()].to_vec(),
                _ => {
                    let mut mutated = whole.clone();
                    for _ in 0..=numbers.next() % 8 {
                        let at = numbers.next() % mutated.len();
                        mutated[at] = numbers.next() as u8;
                    }
                    mutated
                }
            };
            let answer = app.submit(upload).await;
            assert!((400..500).contains(&answer.status), "round {round}: {answer:?}");
        }
        assert_eq!(app.get("/api/functions").await.body, serde_json::json!([]));
        assert_eq!(app.images(), [""; 0]);
        eventually("no container is left", async || app.containers().is_empty().then_some(())).await;
        let temp = std::fs::read_dir(app.dir.path().join("temp")).unwrap().next().unwrap().unwrap().path();
        // The look at the transport has a folder at the start.
        let is_empty = async || (std::fs::read_dir(&temp).unwrap().count() == 0).then_some(());
        eventually("no temp file is left", is_empty).await;
    })
    .await;
}

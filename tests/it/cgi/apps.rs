//! Web applications as people write them, unchanged.

use reqwest::Method;
use serde_json::{Value, json};

use crate::cgi::PUBLIC;
use crate::support::{TestApp, python, zip};

const FLASK: &str = r#"
from wsgiref.handlers import CGIHandler

from flask import Flask, jsonify, make_response, redirect, request, url_for

app = Flask(__name__)

@app.get("/")
def home():
    return "<h1>Hello</h1>"

@app.post("/form")
def form():
    return jsonify(name=request.form["name"], file=len(request.files["file"].read()))

@app.post("/json")
def echo():
    return jsonify(request.get_json())

@app.get("/cookies")
def cookies():
    response = make_response(dict(request.cookies))
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response

@app.get("/old")
def old():
    return redirect(url_for("home"))

@app.get("/broken")
def broken():
    raise RuntimeError("a secret of the owner")

CGIHandler().run(app)
"#;

const GO: &str = r#"package main

import (
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, "home")
	})
	mux.HandleFunc("/items/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, "{\"path\": %q, \"method\": %q}", r.URL.Path, r.Method)
	})
	if err := cgi.Serve(http.StripPrefix(os.Getenv("SCRIPT_NAME"), mux)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"#;

const WSGI: &str = r#"
from wsgiref.handlers import CGIHandler
from wsgiref.validate import validator

def application(environ, start_response):
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    text = ("%s %s %d" % (environ["REQUEST_METHOD"], environ["PATH_INFO"], len(body))).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]

CGIHandler().run(validator(application))
"#;

const BOTTLE: &str = r#"
from bottle import Bottle, request, run, static_file

app = Bottle()

@app.get("/hello/<name>")
def hello(name):
    return "Hello %s" % name

@app.get("/file")
def file():
    return static_file("data.txt", root="/app")

run(app, server="cgi")
"#;

#[tokio::test]
#[ignore = "needs docker"]
async fn flask_answers_forms_json_cookies_and_errors() {
    TestApp::run(&PUBLIC, async |app| {
        app.deploy_site("shop", zip(&[("main.py", FLASK), ("requirements.txt", "flask\n")])).await;
        assert_eq!(app.fetch("/f/shop/").await.text().await.unwrap(), "<h1>Hello</h1>");
        assert_eq!(app.fetch("/f/shop").await.text().await.unwrap(), "<h1>Hello</h1>", "without a slash");
        let part = reqwest::multipart::Part::bytes(vec![7; 300_000]).file_name("a.bin");
        let form = reqwest::multipart::Form::new().text("name", "Zoë").part("file", part);
        let said: Value =
            app.call(Method::POST, "/f/shop/form").multipart(form).send().await.unwrap().json().await.unwrap();
        assert_eq!(said, json!({"name": "Zoë", "file": 300_000}));
        let sent = json!({"a": [1, "é"]});
        let request = app.call(Method::POST, "/f/shop/json").header("content-type", "application/json");
        let said: Value = request.body(sent.to_string()).send().await.unwrap().json().await.unwrap();
        assert_eq!(said, sent);
        let response = app.call(Method::GET, "/f/shop/cookies").header("cookie", "x=1; y=2").send().await.unwrap();
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(response.json::<Value>().await.unwrap(), json!({"x": "1", "y": "2"}));
        let redirected = app.fetch("/f/shop/old").await;
        assert_eq!((redirected.url().path(), redirected.status().as_u16()), ("/f/shop/", 200));
        let missing = app.fetch("/f/shop/none").await;
        assert_eq!(missing.status(), 404);
        assert!(missing.text().await.unwrap().contains("The requested URL was not found"));
        let broken = app.fetch("/f/shop/broken").await;
        assert_eq!(broken.status(), 500);
        assert!(!broken.text().await.unwrap().contains("secret"));
        let options = app.call(Method::OPTIONS, "/f/shop/json").send().await.unwrap();
        assert!(options.headers()["allow"].to_str().unwrap().contains("POST"));
        let head = app.call(Method::HEAD, "/f/shop/").send().await.unwrap();
        assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &"14".parse().unwrap()));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn bottle_serves_files_with_ranges_and_conditions() {
    TestApp::run(&PUBLIC, async |app| {
        let files = [("main.py", BOTTLE), ("requirements.txt", "bottle\n"), ("data.txt", "0123456789")];
        app.deploy_site("bottle", zip(&files)).await;
        assert_eq!(app.fetch("/f/bottle/hello/Jo%20Ann").await.text().await.unwrap(), "Hello Jo Ann");
        let whole = app.fetch("/f/bottle/file").await;
        let (tag, modified) = (whole.headers().get("etag").cloned(), whole.headers()["last-modified"].clone());
        assert_eq!(whole.text().await.unwrap(), "0123456789");
        let range = app.call(Method::GET, "/f/bottle/file").header("range", "bytes=2-4").send().await.unwrap();
        assert_eq!(
            (range.status().as_u16(), range.headers()["content-range"].to_str().unwrap()),
            (206, "bytes 2-4/10")
        );
        assert_eq!(range.text().await.unwrap(), "234");
        let mut conditional = app.call(Method::GET, "/f/bottle/file").header("if-modified-since", modified);
        if let Some(tag) = tag {
            conditional = conditional.header("if-none-match", tag);
        }
        let conditional = conditional.send().await.unwrap();
        assert_eq!((conditional.status().as_u16(), conditional.text().await.unwrap().as_str()), (304, ""));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_plain_application_keeps_to_wsgi() {
    TestApp::run(&PUBLIC, async |app| {
        let function = app.deploy_site("wsgi", python(WSGI)).await;
        for (method, path, body, said) in [
            (Method::GET, "/f/wsgi/a%20b", "", "GET /a b 0"),
            (Method::POST, "/f/wsgi/x?y=1", "hello", "POST /x 5"),
            (Method::DELETE, "/f/wsgi", "", "DELETE  0"),
        ] {
            let response = app.call(method, path).body(body).send().await.unwrap();
            assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, said));
        }
        assert_eq!(app.last_invocation(&function, 3).await["stderr"], "", "the validator has nothing to say");
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn a_mux_of_go_answers() {
    TestApp::run(&PUBLIC, async |app| {
        app.deploy_site("api", zip(&[("main.go", GO)])).await;
        assert_eq!(app.fetch("/f/api/").await.text().await.unwrap(), "home\n");
        let item = app.call(Method::PUT, "/f/api/items/7").body("x").send().await.unwrap();
        assert_eq!(item.headers()["content-type"], "application/json");
        assert_eq!(item.json::<Value>().await.unwrap(), json!({"path": "/items/7", "method": "PUT"}));
        let missing = app.fetch("/f/api/none").await;
        assert_eq!((missing.status().as_u16(), missing.text().await.unwrap().as_str()), (404, "404 page not found\n"));
    })
    .await;
}

#[tokio::test]
#[ignore = "needs docker"]
async fn the_examples_of_the_documentation_answer() {
    let document = include_str!("../../../docs/functions.md");
    let section = document.split("## HTTP\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = |language: &str| {
        let fence = format!("```{language}\n");
        section.split(&fence).skip(1).map(|part| part.split("```").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let go = format!(
        "package main\n\nimport (\n\"fmt\"\n\"log\"\n\"net/http\"\n\"net/http/cgi\"\n\"os\"\n)\n\nfunc main() {{\n{}\n}}\n",
        blocks("go")[0]
    );
    let [flask, bottle, wsgi] = <[String; 3]>::try_from(blocks("python")).unwrap();
    TestApp::run(&PUBLIC, async |app| {
        app.deploy_site("flask", zip(&[("main.py", &flask), ("requirements.txt", "flask\n")])).await;
        app.deploy_site("bottle", zip(&[("main.py", &bottle), ("requirements.txt", "bottle\n")])).await;
        app.deploy_site("wsgi", python(&wsgi)).await;
        app.deploy_site("go", zip(&[("main.go", &go)])).await;
        for (path, said) in
            [("flask/", "Hello"), ("bottle/hello/Jo", "Hello Jo"), ("wsgi/a/b", "/a/b"), ("go/", "Hello\n")]
        {
            assert_eq!(app.fetch(&format!("/f/{path}")).await.text().await.unwrap(), said, "{path}");
        }
    })
    .await;
}

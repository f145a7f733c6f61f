//! Programs as people write them: what each imports is what each costs. Measured on the platform, by the host's own
//! interpreter, and in one interpreter that all requests share, as platforms without isolation between requests have.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::report::{Report, percentile};
use crate::service::{Function, Service};
use crate::{CLIENTS, load, timed_by_hand};

const REQUESTS: usize = 300;
const HANDFUL: &str = "import argparse, asyncio, collections, concurrent.futures, csv, datetime, decimal\n\
                       import email.message, hashlib, json, logging, pathlib, re, sqlite3, subprocess\n\
                       import urllib.request, uuid\n";
const FLASK: &str = "import os\nfrom wsgiref.util import setup_testing_defaults\nfrom flask import Flask\n\
                     app = Flask(__name__)\n@app.get('/')\ndef hello():\n\
                     \x20   return f\"Hello, {os.environ['NAME']}!\\n\"\n\
                     environ = {}\nsetup_testing_defaults(environ)\n\
                     print(b''.join(app(environ, lambda *_: None)).decode(), end='')\n";
const GREETING: &str = "import os\nprint(f\"Hello, {os.environ['NAME']}!\")\n";
const GO: &str = "package main\n\nimport (\n\t\"fmt\"\n\t\"net/http\"\n\t\"os\"\n)\n\n\
                  func main() {\n\t_ = http.DefaultClient\n\tfmt.Printf(\"Hello, %s!\\n\", os.Getenv(\"NAME\"))\n}\n";
/// One interpreter runs the program for each line of its stdin.
const SHARED: &str = "import os, sys\nos.environ['NAME'] = 'John'\n\
                      code = compile(open('main.py').read(), 'main.py', 'exec')\n\
                      for _ in sys.stdin:\n\
                      \x20   exec(code, {'__name__': '__main__'})\n\
                      \x20   sys.stdout.flush()\n";

/// A program and the packages that the program imports.
struct Program {
    name: &'static str,
    file: &'static str,
    code: String,
    packages: Option<&'static str>,
}

fn programs() -> Vec<Program> {
    let python = |name, imports: &str, packages| {
        let code = format!("{imports}{GREETING}");
        Program { name, file: "main.py", code, packages }
    };
    vec![
        python("hello", "", None),
        python("json", "import json\n", None),
        python("a handful of the standard library", HANDFUL, None),
        python("requests", "import requests\n", Some("requests")),
        python("numpy", "import numpy\n", Some("numpy")),
        python("flask", "import flask\n", Some("flask")),
        Program {
            name: "flask, one request through WSGI",
            file: "main.py",
            code: FLASK.to_owned(),
            packages: Some("flask"),
        },
        python("pandas", "import pandas\n", Some("pandas")),
        Program { name: "Go with net/http", file: "main.go", code: GO.to_owned(), packages: None },
    ]
}

/// Measures each program, with one client and with several.
pub(crate) async fn measure(report: &mut Report, dir: &Path) -> Result<()> {
    let service = Service::start(dir, &[]).await?;
    let mut hello = None;
    for program in programs() {
        let mut files = vec![(program.file, program.code.as_str())];
        files.extend(program.packages.map(|packages| ("requirements.txt", packages)));
        let (function, _) = service.submit_files(&files).await?;
        let mut times = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            times.push(service.execute(&function).await?);
        }
        let (p50, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
        let mut rates = Vec::new();
        for clients in CLIENTS {
            rates.push(format!("{:.0}", load(&service, &function, clients).await?.0));
        }
        let is_python = program.file == "main.py";
        let host = if is_python { on_the_host(&program, dir)? } else { None };
        let shared = is_python.then(|| shared(&function)).transpose()?;
        let hello = *hello.get_or_insert(p50);
        let ms = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| format!("{:.2}", ms_of(time)));
        report.add_program(format!(
            "| {} | {:.2} | {:.2} | {:.2} | {} | {} | {} |",
            program.name,
            ms_of(p50),
            ms_of(p50) / ms_of(hello),
            ms_of(p99),
            rates.join(" / "),
            ms(host),
            ms(shared),
        ));
        service.delete(&function).await?;
    }
    service.stop()
}

fn ms_of(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The program by the host's own interpreter with the same packages. None where the packages can't be installed for the
/// host's interpreter.
fn on_the_host(program: &Program, dir: &Path) -> Result<Option<Duration>> {
    let (site, main) = (dir.join("site"), dir.join("main.py"));
    std::fs::write(&main, &program.code)?;
    if let Some(packages) = program.packages {
        let install = ["-m", "pip", "install", "--quiet", "--only-binary=:all:", "--target"];
        let mut pip = Command::new("python3");
        pip.args(install).arg(&site).arg(packages).stderr(Stdio::null()).stdout(Stdio::null());
        if !pip.status()?.success() {
            return Ok(None);
        }
    }
    let mut times = Vec::new();
    for _ in 0..12 {
        let mut python = Command::new("python3");
        python.arg(&main).env("NAME", "John").env("PYTHONPATH", &site);
        times.push(timed_by_hand(python)?);
    }
    Ok(Some(percentile(&mut times, 50)))
}

/// The program in one interpreter that all requests share, in a container with the platform's limits.
fn shared(function: &Function) -> Result<Duration> {
    let limits = "run --rm -i --network=none --read-only --memory=128000000 --cpus=1 --tmpfs=/tmp --entrypoint=python3";
    let mut docker = Command::new("docker");
    docker.args(limits.split_whitespace()).args([&function.image, "-c", SHARED]);
    let mut child = docker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("a stdin")?;
    let mut lines = BufReader::new(child.stdout.take().context("a stdout")?).lines();
    let mut times = Vec::new();
    for _ in 0..REQUESTS {
        let started = Instant::now();
        stdin.write_all(b"\n")?;
        ensure!(lines.next().context("a line")?? == "Hello, John!", "the shared interpreter says something else");
        times.push(started.elapsed());
    }
    drop(stdin);
    ensure!(child.wait()?.success(), "the shared interpreter failed");
    Ok(percentile(&mut times, 50))
}

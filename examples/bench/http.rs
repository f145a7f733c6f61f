//! A Flask page over HTTP, against hello's execution in the same run, and against Flask in a process that stays, as
//! others run functions; and what strangers that send and read slowly cost executions.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::report::{Report, median};
use crate::service::{Function, Service};

const FUNCTIONS_PORT: &str = "8086";
const FLASK_PORT: &str = "8085";
const ROUNDS: usize = 10;
const REQUESTS: usize = 50;
const STRANGERS: usize = 50;

const FLASK: &str = r#"
from wsgiref.handlers import CGIHandler
from flask import Flask
app = Flask(__name__)
app.route("/")(lambda: "Hello, John!\n")
CGIHandler().run(app)
"#;
const WSGI: &str = r#"
from wsgiref.handlers import CGIHandler
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello, John!\n"]
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
	hello := func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "Hello, John!") }
	if err := cgi.Serve(http.HandlerFunc(hello)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"#;
const LARGE: &str = "import sys\nsys.stdout.write('Content-Type: text/plain\\n\\n' + 'x' * 10_000_000)\n";
/// Flask in a process that stays, behind the container's own port in the way of others.
const PEER: &str = r#"
from flask import Flask
app = Flask(__name__)
app.route("/")(lambda: "Hello, John!\n")
app.run(port=8085)
"#;

/// Flask by hand, which a drop ends.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures pages, and strangers.
pub(crate) async fn measure(report: &mut Report, dir: &Path) -> Result<()> {
    let settings = [("FUNCTIONS_PORT", FUNCTIONS_PORT), ("HTTP_FUNCTIONS", "public"), ("SERVER_READ_TIMEOUT", "60s")];
    let dir = dir.join("http");
    std::fs::create_dir_all(&dir)?;
    let service = Service::start(&dir, &settings).await?;
    let hello = service.submit("python").await?.0;
    let public = |name: &str| [("name", name.to_owned()), ("http", "public".to_owned())];
    let requirements = ("requirements.txt", "flask\n");
    let mut functions = vec![
        service.deploy(&[("main.py", FLASK), requirements], &public("flask")).await?,
        service.deploy(&[("main.py", WSGI)], &public("wsgi")).await?,
        service.deploy(&[("main.go", GO)], &public("go")).await?,
    ];
    let (peer, client) = (peer(&dir)?, reqwest::Client::new());
    let pages = ["flask", "wsgi", "go"].map(|name| (FUNCTIONS_PORT, format!("/f/{name}/"), name));
    let ways = [&pages[..], &[(FLASK_PORT, "/".to_owned(), "Flask in a process that stays")]].concat();
    let (mut executions, mut times) = (Vec::new(), vec![Vec::new(); ways.len()]);
    for round in 0..=ROUNDS {
        for _ in 0..REQUESTS {
            let took = service.execute(&hello).await?;
            executions.extend((round > 0).then_some(took));
        }
        for ((port, path, _), times) in ways.iter().zip(&mut times) {
            for _ in 0..REQUESTS {
                let took = fetch(&client, port, path).await?;
                times.extend((round > 0).then_some(took));
            }
        }
    }
    drop(peer);
    let execution = median(&mut executions);
    for ((_, _, name), times) in ways.iter().zip(&mut times) {
        let page = median(times);
        let ratio = page.as_secs_f64() / execution.as_secs_f64();
        report.note(format!("{name}: a page p50 {page:.2?}, {ratio:.2} of hello's execution ({execution:.2?})"));
    }
    functions.push(service.deploy(&[("main.py", LARGE)], &public("large")).await?);
    strangers(report, &service, &hello, execution).await?;
    functions.push(hello);
    for function in &functions {
        service.delete(function).await?;
    }
    service.stop()
}

/// The time of a page.
async fn fetch(client: &reqwest::Client, port: &str, path: &str) -> Result<Duration> {
    let started = Instant::now();
    let answer = client.get(format!("http://127.0.0.1:{port}{path}")).send().await?.error_for_status()?;
    let text = answer.text().await?;
    let elapsed = started.elapsed();
    ensure!(text == "Hello, John!\n", "an unexpected page: {text}");
    Ok(elapsed)
}

fn peer(dir: &Path) -> Result<Peer> {
    let (venv, file) = (dir.join("venv"), dir.join("peer.py"));
    std::fs::write(&file, PEER)?;
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status()?;
    ensure!(made.success(), "python3 -m venv failed; Debian's package is python3-venv");
    let installed = Command::new(venv.join("bin/pip")).args(["install", "--quiet", "flask"]).status()?;
    ensure!(installed.success(), "pip install flask failed");
    let log = std::fs::File::create(dir.join("peer.log"))?;
    let child = Command::new(venv.join("bin/python3")).arg(&file).stdout(log.try_clone()?).stderr(log).spawn()?;
    let peer = Peer(child);
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", FLASK_PORT.parse::<u16>()?)).is_ok() {
            return Ok(peer);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(anyhow::anyhow!("Flask did not start")).context(std::fs::read_to_string(dir.join("peer.log"))?)
}

/// Executions while half of the strangers send slowly, and the others read slowly.
async fn strangers(report: &mut Report, service: &Service, hello: &Function, alone: Duration) -> Result<()> {
    let address = format!("127.0.0.1:{FUNCTIONS_PORT}");
    let mut open = Vec::new();
    for _ in 0..STRANGERS {
        let mut uploader = TcpStream::connect(&address)?;
        uploader.write_all(b"POST /f/wsgi/ HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")?;
        uploader.write_all(&[b'x'; 100_000])?;
        let mut reader = TcpStream::connect(&address)?;
        reader.write_all(b"GET /f/large/ HTTP/1.1\r\nhost: x\r\n\r\n")?;
        open.push((uploader, reader));
    }
    let mut times = Vec::new();
    for _ in 0..10 * REQUESTS {
        // A byte each, now and then.
        let turn = times.len() % open.len();
        let (uploader, reader) = &mut open[turn];
        uploader.write_all(b"x")?;
        reader.set_read_timeout(Some(Duration::from_millis(1)))?;
        let _ = reader.read(&mut [0; 1]);
        times.push(service.execute(hello).await?);
    }
    let busy = median(&mut times);
    report.note(format!(
        "{STRANGERS} clients that send slowly and {STRANGERS} that read slowly: executions p50 {busy:.2?}, {:.2} of \
         {alone:.2?} without",
        busy.as_secs_f64() / alone.as_secs_f64()
    ));
    Ok(())
}

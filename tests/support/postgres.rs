//! The PostgreSQL of a test program: started at first need, ended with the program. Each test has a database of its
//! own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A server. The server ends when its stdin does, which is at the end of this process at the latest. A drop ends the
/// server.
pub(crate) struct Server {
    url: String,
    /// Holds the server's stdin.
    process: Child,
}

/// The URL of the database of this name, which is made where there is none.
pub(crate) fn database(name: &str) -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let Server { url, .. } = SERVER.get_or_init(start);
    let folder = url.split_once("host=").unwrap().1;
    let made = Command::new("createdb").args(["--host", folder, "--username", "youtube", name]).output().unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() || error.contains("already exists"), "{error}");
    url.replace("/postgres?", &format!("/{name}?"))
}

fn start() -> Server {
    Server::run(&mut script())
}

/// The script that runs a server.
pub(crate) fn script() -> Command {
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres"))
}

impl Server {
    /// Runs this script, which may have more options.
    pub(crate) fn run(script: &mut Command) -> Self {
        let mut process = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "no PostgreSQL: {url:?}");
        Self { url: url.trim().to_owned(), process }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The wait closes the server's stdin first.
        let _ = self.process.wait();
    }
}

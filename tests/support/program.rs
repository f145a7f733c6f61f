//! Servers of this machine for one test: programs of others, each a child process.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;

use super::{eventually, postgres};

/// A program that serves. A drop kills the program.
pub(crate) struct Program(pub(crate) Child);

impl Program {
    /// Starts a program that says nothing, and waits until the program takes connections at an address.
    pub(crate) async fn listen(command: &mut Command, host: &str, port: u16) -> Self {
        let silent = command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = silent.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}: see scripts/test-tools"));
        let program = Self(process);
        eventually("a program takes connections", async || TcpStream::connect((host, port)).await.ok()).await;
        program
    }
}

/// Starts a PostgreSQL with its data in a folder, which listens on port 5432 of an address. Only connections from
/// loopback are let in.
pub(crate) fn postgres_at(address: &str, folder: &Path, options: &[String]) -> postgres::Server {
    let mut script = postgres::script();
    script.env("POSTGRES_DIR", folder).arg("-c").arg(format!("listen_addresses={address}"));
    postgres::Server::run(script.args(options.iter().flat_map(|option| ["-c", option.as_str()])))
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

//! Servers of this machine for one test: programs of others, each a child process.

use std::process::{Child, Command, Stdio};

use tokio::net::TcpStream;

use super::eventually;

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

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

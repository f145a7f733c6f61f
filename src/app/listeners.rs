//! The sockets that the service listens on.

use std::io;
use std::net::IpAddr;

use anyhow::Context;
use tokio::net::TcpListener;

use crate::config::Config;

/// The sockets that the service listens on.
#[derive(Debug)]
pub struct Listeners {
    /// For the API and the console.
    pub api: TcpListener,
    /// For functions that answer requests over HTTP. None without FUNCTIONS_PORT.
    pub functions: Option<TcpListener>,
}

impl Listeners {
    /// Listens where the configuration says.
    ///
    /// # Errors
    /// An address is not this machine's, or its port is not free.
    pub async fn bind(config: &Config) -> anyhow::Result<Self> {
        let api = listen(config.http.host, config.http.port, "SERVER_HOST and SERVER_PORT").await?;
        Ok(Self { api, functions: Self::bind_functions(config).await? })
    }

    /// Listens for functions, where FUNCTIONS_PORT says so.
    pub async fn bind_functions(config: &Config) -> anyhow::Result<Option<TcpListener>> {
        let Some(port) = config.http_functions.port else { return Ok(None) };
        listen(config.http_functions.host, port, "FUNCTIONS_HOST and FUNCTIONS_PORT").await.map(Some)
    }

    /// The ports, which no function reaches.
    pub(super) fn ports(&self) -> io::Result<Vec<u16>> {
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        std::iter::once(&self.api).chain(&self.functions).map(port).collect()
    }
}

async fn listen(host: IpAddr, port: u16, variables: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind((host, port)).await;
    bound.with_context(|| format!("failed to listen on {host}:{port}; set {variables} to what is free"))
}

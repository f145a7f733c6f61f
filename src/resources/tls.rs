//! TLS to servers, by the certificates that this machine trusts: those of the system, or of SSL_CERT_FILE and
//! SSL_CERT_DIR.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Makes TLS connections to servers whose certificates this machine trusts. All clones are the same.
#[derive(Clone)]
pub struct Tls(TlsConnector);

/// This machine has no usable certificates.
#[derive(Debug, Error)]
#[error("the certificates of this machine can't be used: {0}")]
pub struct NoRoots(String);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// Reads the certificates, once: what the machine trusts later takes a new start.
    pub async fn new() -> Result<Self, NoRoots> {
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let loaded = loaded.map_err(|error| NoRoots(error.to_string()))?;
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(loaded.certs);
        if usable == 0 {
            let why = loaded.errors.first().map_or("there is none".to_owned(), ToString::to_string);
            return Err(NoRoots(why));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3");
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Begins TLS on a connection with the server of this name.
    pub async fn connect(&self, name: ServerName<'static>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.0.connect(name, stream).await
    }
}

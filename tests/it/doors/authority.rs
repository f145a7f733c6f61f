//! The certificates of this machine's servers. An authority of its own signs each; programs trust no other.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An authority with a server's certificate. `certificate` and `key` are files.
pub(crate) struct Authority {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The authority's own certificate, for the zip of a function.
    pub(crate) root: String,
}

impl Authority {
    /// Makes an authority and a certificate for names such as `DNS:web.example` and `IP:10.0.0.1`, with commas between.
    pub(crate) fn new(dir: &Path, names: &str) -> Self {
        let at = |name: &str| dir.join(name);
        let (root, root_key) = (at("root.pem"), at("root.key"));
        let of_root = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"];
        request(&root, &root_key, "/CN=authority of a test", &of_root, None);
        let (certificate, key) = (at("server.pem"), at("server.key"));
        let names = format!("subjectAltName={names}");
        let of_server = [names.as_str(), "basicConstraints=critical,CA:FALSE", "extendedKeyUsage=serverAuth"];
        request(&certificate, &key, "/CN=server of a test", &of_server, Some((&root, &root_key)));
        Self { certificate, key, root: std::fs::read_to_string(root).unwrap() }
    }
}

/// Makes a certificate with its key, signed by an issuer or by itself.
fn request(certificate: &Path, key: &Path, subject: &str, extensions: &[&str], issuer: Option<(&Path, &Path)>) {
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
    openssl.args(["-subj", subject, "-addext", "subjectKeyIdentifier=hash"]);
    for extension in extensions {
        openssl.args(["-addext", extension]);
    }
    if let Some((certificate, key)) = issuer {
        openssl.args(["-addext", "authorityKeyIdentifier=keyid"]);
        openssl.arg("-CA").arg(certificate).arg("-CAkey").arg(key);
    }
    let made = openssl.arg("-keyout").arg(key).arg("-out").arg(certificate).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

//! Deletes the images of a repository in a registry. Docker has no command for this, so this process asks the registry
//! itself, by the API of the OCI distribution specification, <https://github.com/opencontainers/distribution-spec>.
//!
//! A registry may not delete, may know this machine under other certificates than the engine, or may be reached by the
//! engine only. So a deletion is a favour: what is not deleted is told, and nothing depends on the deletion.

mod login;

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::{Docker, DockerError, QUERY_LIMIT, query};
use login::{Challenge, Login};

/// The time limit of one question to the registry.
const LIMIT: Duration = Duration::from_secs(10);
/// The most images of a repository that are deleted.
const MAX_IMAGES: usize = 1000;
/// The longest answer of a registry, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// The kinds of manifests that a registry may have.
const MANIFESTS: &str =
    "application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json";

/// Why images stay in a registry.
#[derive(Debug, Error)]
pub enum RepositoryError {
    /// The registry does not answer, or not over TLS that is trusted here.
    #[error("the registry does not answer: {0}")]
    Unreachable(#[from] ureq::Error),
    /// The registry deletes nothing, as is the default of the official image.
    #[error("the registry deletes no images; with the official image REGISTRY_STORAGE_DELETE_ENABLED=true is needed")]
    Unsupported,
    /// The registry refuses what `docker login` has left.
    #[error("the registry refuses the credentials of `docker login` for deletions")]
    Refused,
    /// The registry says something else.
    #[error("the registry answers with the status {0}")]
    Status(u16),
    /// Docker does not say how the registry is reached, or this process is about to end.
    #[error(transparent)]
    Docker(#[from] DockerError),
}

impl Docker {
    /// Deletes all images of a repository, such as `registry.example:5000/functions/ID`, and returns their number. A
    /// repository that the registry does not have counts as empty. `logins` is the file of `docker login`.
    pub async fn delete_repository(&self, repository: &str, logins: Option<PathBuf>) -> Result<usize, RepositoryError> {
        let Some((host, path)) = repository.split_once('/') else { return Ok(0) };
        let is_plain = is_insecure(host, &query("info", QUERY_LIMIT, ["info", "--format", INSECURE]).await?);
        let (host, path) = (host.to_owned(), path.to_owned());
        let deleted = tokio::task::spawn_blocking(move || {
            let login = logins.and_then(|logins| Login::read(&logins, &host));
            Api::new(&host, path, is_plain, login).delete_all()
        });
        deleted.await.unwrap_or_else(|_| Err(DockerError::Cancelled.into()))
    }
}

/// The registries that Docker reaches without TLS.
const INSECURE: &str = "{{range .RegistryConfig.IndexConfigs}}{{if not .Secure}}{{.Name}} {{end}}{{end}}";

/// Whether a registry is reached without TLS: Docker does so on loopback addresses.
fn is_insecure(host: &str, listed: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost"
        || name.starts_with("127.")
        || name == "[::1]"
        || listed.split_whitespace().any(|one| one == host)
}

/// The API of a registry for one repository.
struct Api {
    agent: Agent,
    base: String,
    path: String,
    login: Option<Login>,
    /// What the registry accepts as the client's right, once the registry has asked for that.
    authorization: Option<String>,
}

#[derive(Deserialize)]
struct Tags {
    tags: Option<Vec<String>>,
}

impl Api {
    fn new(host: &str, path: String, is_plain: bool, login: Option<Login>) -> Self {
        let certificates: Vec<_> = rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|certificate| Certificate::from_der(certificate).to_owned())
            .collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build();
        // The credentials go to the registry alone.
        let config = Agent::config_builder().timeout_global(Some(LIMIT)).http_status_as_error(false);
        let config = config.max_redirects(0).proxy(None).tls_config(tls).build();
        let base = format!("{}://{host}", if is_plain { "http" } else { "https" });
        Self { agent: config.into(), base, path, login, authorization: None }
    }

    fn delete_all(&mut self) -> Result<usize, RepositoryError> {
        let mut answer = self.ask(&Method::GET, "tags/list", "application/json")?;
        if answer.status() == 404 {
            return Ok(0);
        }
        check(&answer)?;
        let tags: Tags = answer.body_mut().with_config().limit(MAX_ANSWER).read_json()?;
        let mut deleted = 0;
        for tag in tags.tags.unwrap_or_default().iter().take(MAX_IMAGES) {
            let answer = self.ask(&Method::HEAD, &format!("manifests/{tag}"), MANIFESTS)?;
            // Two tags may stand for one image.
            let Some(digest) = answer.headers().get("docker-content-digest").filter(|_| answer.status() == 200) else {
                continue;
            };
            let Ok(digest) = digest.to_str() else { continue };
            let answer = self.ask(&Method::DELETE, &format!("manifests/{digest}"), "*/*")?;
            if answer.status() != 404 {
                check(&answer)?;
                deleted += 1;
            }
        }
        Ok(deleted)
    }

    /// Asks, and once more with what the registry wants to see.
    fn ask(&mut self, method: &Method, what: &str, accept: &str) -> Result<Response<Body>, RepositoryError> {
        let answer = self.send(method, what, accept)?;
        if answer.status() != 401 {
            return Ok(answer);
        }
        let asked = answer.headers().get("www-authenticate").and_then(|asked| asked.to_str().ok());
        let challenge = asked.and_then(Challenge::parse).ok_or(RepositoryError::Refused)?;
        let login = self.login.as_ref();
        let authorization = challenge.answer(&self.agent, login, &self.path)?.ok_or(RepositoryError::Refused)?;
        self.authorization = Some(authorization);
        let answer = self.send(method, what, accept)?;
        if answer.status() == 401 { Err(RepositoryError::Refused) } else { Ok(answer) }
    }

    fn send(&self, method: &Method, what: &str, accept: &str) -> Result<Response<Body>, RepositoryError> {
        let url = format!("{}/v2/{}/{what}", self.base, self.path);
        let mut request = Request::builder().method(method).uri(url).header("accept", accept);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(()).map_err(ureq::Error::Http)?;
        Ok(self.agent.run(request)?)
    }
}

fn check(answer: &Response<Body>) -> Result<(), RepositoryError> {
    match answer.status().as_u16() {
        200..=299 => Ok(()),
        401 | 403 => Err(RepositoryError::Refused),
        400 | 405 | 501 => Err(RepositoryError::Unsupported),
        other => Err(RepositoryError::Status(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::is_insecure;

    #[test]
    fn docker_reaches_some_registries_without_tls() {
        let listed = "one.example:5000 two ";
        for host in ["localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000", "one.example:5000", "two"] {
            assert!(is_insecure(host, listed), "{host}");
        }
        for host in ["one.example", "ghcr.io", "10.0.0.1:5000", "two.example"] {
            assert!(!is_insecure(host, listed), "{host}");
        }
    }
}

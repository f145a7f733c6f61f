//! `deploy/Caddyfile` with Debian's Caddy and its internal CA.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::cgi::{ENVIRONMENT, PUBLIC};
use crate::support::{TestApp, eventually, python};

struct Caddy {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn port_of(url: &str) -> &str {
    url.rsplit(':').next().unwrap()
}

impl Caddy {
    fn start(app: &TestApp) -> Self {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/Caddyfile");
        let global = format!(
            "{{\n\tadmin off\n\thttp_port {}\n\thttps_port {port}\n\tlocal_certs\n\tskip_install_trust\n}}\nimport {}\n",
            free_port(),
            file.display()
        );
        let own = dir.path().join("Caddyfile");
        std::fs::write(&own, global).unwrap();
        let child = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(&own)
            .env("HOME", dir.path())
            .env("XDG_DATA_HOME", dir.path())
            .env("XDG_CONFIG_HOME", dir.path())
            .envs([("API_DOMAIN", "api.example.com"), ("FUNCTIONS_DOMAIN", "fn.example.com")])
            .envs([("SERVER_PORT", port_of(&app.url)), ("FUNCTIONS_PORT", port_of(&app.functions_url))])
            .stderr(Stdio::null())
            .spawn()
            .expect("caddy runs; `make test` installs Debian's caddy");
        Self { child, dir, port }
    }

    /// What curl gets from a host behind Caddy: the status, and the body.
    async fn get(&self, host: &str, path: &str) -> Option<(String, String)> {
        let (port, root) = (self.port, self.dir.path().join("caddy/pki/authorities/local/root.crt"));
        // The service runs on this thread, so no wait may block the thread.
        let got = tokio::process::Command::new("curl")
            .args([
                "--noproxy",
                "*",
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--write-out",
                "\n%{http_code}",
                "--cacert",
            ])
            .arg(&root)
            .args(["--resolve", &format!("{host}:{port}:127.0.0.1"), &format!("https://{host}:{port}{path}")])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(got.stdout).unwrap();
        let (body, status) = said.rsplit_once('\n')?;
        got.status.success().then(|| (status.to_owned(), body.to_owned()))
    }
}

#[tokio::test]
#[ignore = "needs docker"]
async fn webhooks_come_over_tls() {
    let own = [
        ("FUNCTIONS_DOMAIN", "fn.example.com"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("ALLOWED_HOSTS", "api.example.com"),
    ];
    TestApp::run(&[&PUBLIC[..], &own].concat(), async |app| {
        app.deploy_site("site", python(ENVIRONMENT)).await;
        let caddy = Caddy::start(app);
        // Caddy makes a certificate for each host.
        for (host, path) in
            [("api.example.com", "/health"), ("fn.example.com", "/f/site"), ("site.fn.example.com", "/")]
        {
            let answers = async || caddy.get(host, path).await.filter(|(status, _)| status == "200");
            eventually("caddy answers", answers).await;
        }
        for (host, path, script) in [("fn.example.com", "/f/site/a", "/f/site"), ("site.fn.example.com", "/a", "")] {
            let (status, body) = caddy.get(host, path).await.expect("curl trusts the certificate");
            let seen: Value = serde_json::from_str(&body).unwrap();
            let port = caddy.port.to_string();
            assert_eq!(status, "200");
            for (name, value) in [
                ("HTTPS", "on"),
                ("SCRIPT_NAME", script),
                ("PATH_INFO", "/a"),
                ("REMOTE_ADDR", "127.0.0.1"),
                ("SERVER_NAME", host),
                ("SERVER_PORT", &port),
            ] {
                assert_eq!(seen[name], value, "{name} on {host}");
            }
        }
        // The API has no functions, and a function's host has no API.
        assert_eq!(caddy.get("api.example.com", "/f/site").await.unwrap().0, "404");
        let (_, body) = caddy.get("site.fn.example.com", "/api/functions").await.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["PATH_INFO"], "/api/functions");
    })
    .await;
}

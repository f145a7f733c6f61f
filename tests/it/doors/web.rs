//! HTTPS with the clients that programs use, by a door and by the proxy. The server's certificate is checked in the
//! function: TLS is between the program and the host.

use std::process::Command;

use serde_json::{Value, json};

use super::authority::Authority;
use crate::support::{Program, Service, bridge, eventually, zip};

/// An HTTPS server that answers a POST with the request's Host and body. The server prints its port.
const SERVER: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.headers["Host"].encode() + b" " + body
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 0), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// Prints each client's answer from each URL, and what a client says that does not know the authority.
const PYTHON: &str = r#"
import asyncio, json, os, ssl, urllib.error, urllib.request
import aiohttp, httpx, requests
context = ssl.create_default_context(cafile="root.pem")
def by_urllib(url):
    with urllib.request.urlopen(url, b"urllib", timeout=10, context=context) as answer:
        return answer.read().decode()
def by_requests(url):
    return requests.post(url, b"requests", verify="root.pem", timeout=10).text
def by_httpx(url):
    return httpx.post(url, content=b"httpx", verify=context, timeout=10).text
async def by_aiohttp(url):
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.post(url, data=b"aiohttp", ssl=context) as answer:
            return await answer.text()
print("proxy:", os.environ.get("HTTPS_PROXY", ""))
for url in json.loads(os.environ["URLS"]):
    for answer in by_urllib(url), by_requests(url), by_httpx(url), asyncio.run(by_aiohttp(url)):
        print(answer)
    try:
        urllib.request.urlopen(url, b"", timeout=10)
    except urllib.error.URLError as error:
        print("unknown authority:", isinstance(error.reason, ssl.SSLCertVerificationError))
"#;

const CLIENTS: &str = "aiohttp==3.14.5\nhttpx==0.28.1\nrequests==2.34.2\n";

const GO: &str = r#"package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func post(client *http.Client, url string) string {
	answer, err := client.Post(url, "text/plain", strings.NewReader("net/http"))
	if err != nil {
		return err.Error()
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	return string(body)
}

// As Python writes these.
var cases = map[bool]string{true: "True", false: "False"}

func main() {
	var urls []string
	json.Unmarshal([]byte(os.Getenv("URLS")), &urls)
	root, _ := os.ReadFile("root.pem")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	fmt.Println("proxy:", os.Getenv("HTTPS_PROXY"))
	for _, url := range urls {
		// The second request goes over the connection of the first.
		for range [2]int{} {
			fmt.Println(post(&http.Client{Transport: transport}, url))
		}
		_, err := http.Get(url)
		var unknown x509.UnknownAuthorityError
		fmt.Println("unknown authority:", cases[errors.As(err, &unknown)])
	}
}
"#;

/// The receipt of an execution: the destinations with their connections, none of which was refused.
fn connections(body: &Value) -> Vec<(String, u64)> {
    let all = body["network"].as_array().unwrap_or_else(|| panic!("{body:#}"));
    all.iter()
        .map(|destined| {
            let number = |name: &str| destined[name].as_u64().unwrap();
            assert!(number("sentBytes") > 500 && number("receivedBytes") > 500, "{destined:#}");
            assert_eq!(number("refused"), 0, "{destined:#}");
            (destined["to"].as_str().unwrap().to_owned(), number("connections"))
        })
        .collect()
}

#[tokio::test]
#[ignore = "needs docker and PyPI"]
async fn https_works_by_a_door_and_by_the_proxy() {
    let (dir, bridge) = (tempfile::tempdir().unwrap(), bridge());
    let authority = Authority::new(dir.path(), &format!("DNS:web.example,IP:{bridge}"));
    // NO_PROXY has loopback, so the server is at another address of this machine.
    let mut server = Command::new("python3");
    server.args(["-c", SERVER, &bridge.to_string()]).args([&authority.certificate, &authority.key]);
    let (_server, port) = Program::announced(&mut server);
    let both = [format!("{bridge}:{}", port), format!("web.example:{}", port)];
    let (allow, private) = (both.join(","), format!("{bridge}/32"));
    let settings = [("EGRESS_ALLOW", allow.as_str()), ("EGRESS_PRIVATE", &private), ("DOCKER_CONTAINER_LIMIT", "4")];
    let hosts = format!("127.0.0.1 localhost\n{bridge} web.example\n");
    let service = Service::start_with_hosts(dir.path(), &settings, &hosts).await.healthy().await;
    let root = ("root.pem", authority.root.as_str());
    let python = zip(&[("main.py", PYTHON), ("requirements.txt", CLIENTS), root]);
    let go = zip(&[("main.go", GO), root]);
    // In Go the second request goes over the connection of the first. A client that does not know the authority has one
    // more connection.
    for (zip, clients, number) in
        [(python, &["urllib", "requests", "httpx", "aiohttp"][..], 5), (go, &["net/http", "net/http"], 2)]
    {
        let function = service.deploy_with(zip, &both, &[]).await;
        for (rules, proxy) in [(&both[1..], ""), (&both[..], "http://127.1.0.1:3128")] {
            service.configure(&function, json!({"allow": rules})).await;
            let urls: Vec<String> = rules.iter().map(|to| format!("https://{to}/")).collect();
            let mut expected = format!("proxy: {proxy}\n");
            for to in rules {
                expected.extend(clients.iter().map(|client| format!("{to} {client}\n")));
                expected += "unknown authority: True\n";
            }
            let destinations: Vec<(String, u64)> = rules.iter().map(|to| (to.clone(), number)).collect();
            // Go takes another connection where its writer is late to tell that the first request was written.
            eventually("each destination has its connections", async || {
                let answer = service.execute_with(&function, json!({"urls": urls})).await.assert_outcome(200, "ok");
                assert_eq!(answer.output(), expected);
                (connections(&answer.body) == destinations).then_some(())
            })
            .await;
        }
    }
    service.delete_all(dir.path()).await;
}

//! A store of objects by a door, with the client of S3 that Python programs use.

use std::process::Command;

use serde_json::json;

use super::authority::Authority;
use crate::support::{Program, Service, zip};

/// An HTTPS server that keeps objects as S3 does, with uploads in parts. The server takes signed requests only, and
/// prints its port.
const SERVER: &str = r#"
import hashlib, http.server, re, ssl, sys, threading, urllib.parse
objects, parts, lock = {}, {}, threading.Lock()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body=b"", **fields):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **fields}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
    def place(self):
        if not self.headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=key/"):
            self.answer(403)
            raise ConnectionAbortedError
        url = urllib.parse.urlsplit(self.path)
        return url.path, dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
    def do_PUT(self):
        path, query = self.place()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with lock:
            if "partNumber" in query:
                parts[int(query["partNumber"])] = body
            else:
                objects[path] = body
        self.answer(200, ETag='"%s"' % hashlib.md5(body).hexdigest())
    def do_POST(self):
        path, query = self.place()
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "uploads" in query:
            return self.answer(200, b"<Result><UploadId>1</UploadId></Result>")
        with lock:
            objects[path] = b"".join(parts[number] for number in sorted(parts))
        self.answer(200, b'<Result><ETag>"1"</ETag></Result>')
    def do_GET(self):
        path, query = self.place()
        if "list-type" in query:
            keys = "".join(f"<Contents><Key>{name.split('/', 2)[2]}</Key></Contents>" for name in sorted(objects))
            return self.answer(200, f"<ListBucketResult>{keys}</ListBucketResult>".encode())
        if path not in objects:
            return self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        body, ranges = objects[path], re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not ranges:
            return self.answer(200, body, ETag='"1"')
        first, last = int(ranges[1]), int(ranges[2] or len(body) - 1)
        self.answer(206, body[first:last + 1], ETag='"1"', Content_Range=f"bytes {first}-{last}/{len(body)}")
    do_HEAD = do_GET
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

const PYTHON: &str = r#"
import io, os, boto3, botocore.config, botocore.exceptions
# As stores that are not Amazon's own need it.
plain = botocore.config.Config(request_checksum_calculation="when_required",
                               response_checksum_validation="when_required")
store = boto3.client("s3", endpoint_url=os.environ["URL"], verify="root.pem", region_name="eu-central-1",
                     aws_access_key_id="key", aws_secret_access_key="secret", config=plain)
store.put_object(Bucket="bucket", Key="small", Body=b"of a function")
print(store.get_object(Bucket="bucket", Key="small")["Body"].read().decode())
large = os.urandom(20_000_000)
store.upload_fileobj(io.BytesIO(large), "bucket", "large", Config=boto3.s3.transfer.TransferConfig(max_concurrency=4))
got = io.BytesIO()
store.download_fileobj("bucket", "large", got)
print(got.getvalue() == large)
print([each["Key"] for each in store.list_objects_v2(Bucket="bucket")["Contents"]])
try:
    store.get_object(Bucket="bucket", Key="missing")
except botocore.exceptions.ClientError as error:
    print(error.response["Error"]["Code"])
"#;

#[tokio::test]
#[ignore = "needs docker and PyPI"]
async fn objects_are_kept_by_boto3_in_parts_too() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "DNS:objects.example");
    let mut server = Command::new("python3");
    let (_server, port) =
        Program::announced(server.args(["-c", SERVER]).args([&authority.certificate, &authority.key]));
    let rule = format!("objects.example:{port}");
    let settings = [("EGRESS_ALLOW", rule.as_str()), ("EGRESS_PRIVATE", "127.0.0.0/8")];
    let hosts = "127.0.0.1 localhost objects.example\n";
    let service = Service::start_with_hosts(dir.path(), &settings, hosts).await.healthy().await;
    let requirements = ("requirements.txt", "boto3==1.44.8\n");
    let zip = zip(&[("main.py", PYTHON), requirements, ("root.pem", &authority.root)]);
    let function = service.deploy_with(zip, std::slice::from_ref(&rule), &[]).await;
    let answer =
        service.execute_with(&function, json!({"url": format!("https://{rule}")})).await.assert_outcome(200, "ok");
    assert_eq!(answer.output(), "of a function\nTrue\n['large', 'small']\nNoSuchKey\n");
    let network = &answer.body["network"];
    assert_eq!((&network[0]["to"], &network[0]["refused"], &network[1]), (&json!(rule), &json!(0), &json!(null)));
    assert!(network[0]["sentBytes"].as_u64().unwrap() > 20_000_000, "{network:#}");
    service.delete_all(dir.path()).await;
}

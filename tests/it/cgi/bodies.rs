//! Bodies of requests: whole before an instance is leased, within limits.

use futures_util::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use reqwest::{Body, Method};

use crate::cgi::PUBLIC;
use crate::support::{TestApp, answer, go, python};

/// Answers with the length and the digest of the body.
const DIGEST: &str = "import hashlib, os, sys\nbody = sys.stdin.buffer.read()\nprint('Content-Type: text/plain\\n')\nprint(os.environ['CONTENT_LENGTH'], len(body), hashlib.sha256(body).hexdigest())\n";
const DIGEST_IN_GO: &str = "import (\n\t\"crypto/sha256\"\n\t\"fmt\"\n\t\"io\"\n\t\"os\"\n)\n\nfunc main() {\n\tbody, _ := io.ReadAll(os.Stdin)\n\tfmt.Printf(\"Content-Type: text/plain\\n\\n%s %d %x\\n\", os.Getenv(\"CONTENT_LENGTH\"), len(body), sha256.Sum256(body))\n}\n";

fn said(body: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    format!("{0} {0} {1:x}\n", body.len(), Sha256::digest(body))
}

/// A body without a length.
fn in_chunks(body: &[u8]) -> Body {
    let pieces: Vec<_> = body.chunks(9_999).map(|piece| Frame::data(bytes::Bytes::copy_from_slice(piece))).collect();
    Body::wrap(StreamBody::new(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>))))
}

#[tokio::test]
#[ignore = "needs docker"]
async fn uploads_arrive_whole_with_and_without_a_length() {
    TestApp::run(&PUBLIC, async |app| {
        app.deploy_site("python", python(DIGEST)).await;
        app.deploy_site("go", go(DIGEST_IN_GO)).await;
        for path in ["/f/python", "/f/go"] {
            for size in [0, 1, 4096, 65_536, 65_537, 1_000_000, 10_000_000] {
                let body: Vec<u8> = (0..size).map(|n: usize| (n * 7 + n / 251) as u8).collect();
                let expected = said(&body);
                let plain = app.call(Method::POST, path).body(body.clone()).send().await.unwrap();
                assert_eq!(plain.text().await.unwrap(), expected, "{path} {size}");
                let chunked = app.call(Method::PUT, path).body(in_chunks(&body));
                assert_eq!(chunked.send().await.unwrap().text().await.unwrap(), expected, "{path} {size} in chunks");
            }
        }
        let body = vec![b'x'; 10_000_001];
        let whole = app.call(Method::POST, "/f/python").body(body.clone());
        answer(whole).await.assert_problem(413, "too_large", "MAX_REQUEST_SIZE");
        let chunked = app.call(Method::POST, "/f/python").body(in_chunks(&body));
        answer(chunked).await.assert_problem(413, "too_large", "MAX_REQUEST_SIZE");
    })
    .await;
}

//! The console: one page, its style and its scripts, built into the program. The page needs no token; the page's
//! requests to the API do.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::http::problem::Problem;
use crate::starters;

/// The page loads no resource of other sites, has no inline script, and stands in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The folder of the page's files.
const FOLDER: &str = "/console/";

/// The files that the page loads.
const FILES: [(&str, &str, &str); 18] = [
    ("console.css", "text/css; charset=utf-8", include_str!("console/console.css")),
    ("views.css", "text/css; charset=utf-8", include_str!("console/views.css")),
    ("console.js", SCRIPT, include_str!("console/console.js")),
    ("api.js", SCRIPT, include_str!("console/api.js")),
    ("chart.js", SCRIPT, include_str!("console/chart.js")),
    ("code.js", SCRIPT, include_str!("console/code.js")),
    ("dom.js", SCRIPT, include_str!("console/dom.js")),
    ("function.js", SCRIPT, include_str!("console/function.js")),
    ("functions.js", SCRIPT, include_str!("console/functions.js")),
    ("live.js", SCRIPT, include_str!("console/live.js")),
    ("network.js", SCRIPT, include_str!("console/network.js")),
    ("overview.js", SCRIPT, include_str!("console/overview.js")),
    ("runs.js", SCRIPT, include_str!("console/runs.js")),
    ("settings.js", SCRIPT, include_str!("console/settings.js")),
    ("tokens.js", SCRIPT, include_str!("console/tokens.js")),
    ("triggers.js", SCRIPT, include_str!("console/triggers.js")),
    ("zip.js", SCRIPT, include_str!("console/zip.js")),
    ("editor.js", SCRIPT, include_str!("../../../vendor/console/editor.js")),
];
/// The first files of functions, as JSON.
const STARTERS: &str = "starters.json";

/// The page.
const PAGE: &str = "";

/// A file with its kind, and the tag by which a browser knows the file.
struct File {
    kind: &'static str,
    text: Cow<'static, str>,
    tag: HeaderValue,
}

/// All files by their names. The page has no name.
static ALL: LazyLock<HashMap<&'static str, File>> = LazyLock::new(|| {
    let page = (PAGE, "text/html; charset=utf-8", Cow::Borrowed(include_str!("console/index.html")));
    let starters = (STARTERS, "application/json", Cow::Owned(starters_as_json()));
    let files = FILES.into_iter().map(|(name, kind, text)| (name, kind, Cow::Borrowed(text)));
    let tagged = files.chain([page, starters]).map(|(name, kind, text)| {
        let digest = Sha256::digest(text.as_bytes());
        let tag: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{tag}\"")).expect("digits are a header's value");
        (name, File { kind, text, tag })
    });
    tagged.collect()
});

/// The page itself.
pub(in crate::http) async fn page(headers: HeaderMap) -> Response {
    answer(&ALL[PAGE], &headers)
}

/// A file that the page loads.
pub(in crate::http) async fn file(uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let found = named(&uri).ok_or_else(|| Problem::unknown_path(uri.path()))?;
    Ok(answer(found, &headers))
}

/// Whether a path is a part of the console, which has no secret: every copy of the program has the same files.
pub(in crate::http) fn is_console(uri: &Uri) -> bool {
    uri.path() == "/" || named(uri).is_some()
}

fn named(uri: &Uri) -> Option<&'static File> {
    ALL.get(uri.path().strip_prefix(FOLDER).filter(|name| !name.is_empty())?)
}

fn answer(file: &'static File, headers: &HeaderMap) -> Response {
    let head = [
        (CONTENT_TYPE, HeaderValue::from_static(file.kind)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // A page that opens the console, or that the console opens, has no handle of the console.
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        // After an upgrade of the program, page and scripts must be of one version.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (ETAG, file.tag.clone()),
    ];
    if headers.get(IF_NONE_MATCH) == Some(&file.tag) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, &*file.text).into_response()
}

fn starters_as_json() -> String {
    let all = starters::ALL.iter().map(|starter| {
        let files: Vec<_> = starter.files.iter().map(|(name, text)| json!({"name": name, "text": text})).collect();
        json!({"name": starter.name, "about": starter.about, "language": starter.language, "files": files})
    });
    Value::from_iter(all).to_string()
}

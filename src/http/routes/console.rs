//! The console: one page, its style and its scripts, built into the program. The page needs no token; the page's
//! requests to the API do.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, Uri};

/// The page loads no resource of other sites, has no inline script, and stands in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

type Asset = ([(HeaderName, &'static str); 6], &'static str);

/// The page itself.
pub(in crate::http) async fn page() -> Asset {
    asset("text/html; charset=utf-8", include_str!("console/index.html"))
}

/// The page's style.
pub(in crate::http) async fn style() -> Asset {
    asset("text/css; charset=utf-8", include_str!("console/console.css"))
}

/// The page's script.
pub(in crate::http) async fn script() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("console/console.js"))
}

/// The script that calls the API.
pub(in crate::http) async fn api() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("console/api.js"))
}

/// The script that shows and changes a function's network.
pub(in crate::http) async fn network() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("console/network.js"))
}

/// The script that shows and changes what runs a function by itself.
pub(in crate::http) async fn triggers() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("console/triggers.js"))
}

/// Whether a path is a part of the console, which has no secret: every copy of the program has the same files.
pub(in crate::http) fn is_console(uri: &Uri) -> bool {
    let paths = ["/", "/console.css", "/console.js", "/console-api.js", "/console-network.js", "/console-triggers.js"];
    paths.contains(&uri.path())
}

fn asset(kind: &'static str, text: &'static str) -> Asset {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // A page that opens the console, or that the console opens, has no handle of the console.
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        // After an upgrade of the program, page and scripts must be of one version.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

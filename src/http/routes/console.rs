//! The console: one page, its style and its scripts, built into the program. It needs no token; what it asks the API
//! does.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, Uri};

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

type Asset = ([(HeaderName, &'static str); 5], &'static str);

/// The page itself.
pub(in crate::http) async fn page() -> Asset {
    asset("text/html; charset=utf-8", include_str!("console/index.html"))
}

/// Its style.
pub(in crate::http) async fn style() -> Asset {
    asset("text/css; charset=utf-8", include_str!("console/console.css"))
}

/// Its script.
pub(in crate::http) async fn script() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("console/console.js"))
}

/// How that asks the API.
pub(in crate::http) async fn api() -> Asset {
    asset("text/javascript; charset=utf-8", include_str!("console/api.js"))
}

/// Whether it is a part of the console, which tells nothing that is not in every copy of this program.
pub(in crate::http) fn is_console(uri: &Uri) -> bool {
    matches!(uri.path(), "/" | "/console.css" | "/console.js" | "/console-api.js")
}

fn asset(kind: &'static str, text: &'static str) -> Asset {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        // After an update of the program its own files belong together.
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

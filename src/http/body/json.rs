//! JSON bodies of requests.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection};
use axum::extract::{FromRequest, OptionalFromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::http::problem::Problem;

/// The byte order marks, by encoding.
const UTF_8_MARK: &[u8] = b"\xef\xbb\xbf";
const UTF_16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// The reason why a body is no JSON.
#[derive(Debug, Error)]
pub(in crate::http) enum BodyError {
    #[error("expected a JSON body with the header `Content-Type: application/json`")]
    MediaType,
    #[error("the body is UTF-16 or UTF-32; JSON is sent as UTF-8")]
    NotUtf8,
    #[error("the body did not arrive")]
    Bytes(#[from] BytesRejection),
    #[error("the body is not the JSON expected")]
    Json(#[from] JsonRejection),
}

impl IntoResponse for BodyError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}

/// A request's body as JSON.
#[derive(Debug)]
pub(in crate::http) struct JsonBody<T>(pub(in crate::http) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = BodyError;

    async fn from_request(request: Request, state: &S) -> Result<Self, BodyError> {
        if !is_json(request.headers()) {
            return Err(BodyError::MediaType);
        }
        parsed(&Bytes::from_request(request, state).await?)
    }
}

/// None for an empty body of any type.
impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for JsonBody<T> {
    type Rejection = BodyError;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, BodyError> {
        let is_json = is_json(request.headers());
        // Only the end of a chunked body tells whether the body is empty.
        if !is_json && request.body().size_hint().lower() > 0 {
            return Err(BodyError::MediaType);
        }
        let body = Bytes::from_request(request, state).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok(None),
            (false, true) => parsed(&body).map(Some),
            (false, false) => Err(BodyError::MediaType),
        }
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<JsonBody<T>, BodyError> {
    let text = body.strip_prefix(UTF_8_MARK).unwrap_or(body);
    // The first two characters of a JSON text are ASCII and not NUL: an encoding with wider units shows there.
    if UTF_16_MARKS.iter().any(|mark| text.starts_with(mark)) || text.iter().take(2).any(|&byte| byte == 0) {
        return Err(BodyError::NotUtf8);
    }
    let Json(value) = Json::from_bytes(text)?;
    Ok(JsonBody(value))
}

/// `application/json`, or `application/...+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = kind.strip_prefix("application/");
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// Refuses compressed bodies: the service unpacks no body.
pub(in crate::http) async fn with_plain_encoding(request: Request, next: Next) -> Response {
    let has_body = !request.body().is_end_stream();
    match foreign_encoding(request.headers()).filter(|_| has_body) {
        Some(encoding) => ([("accept-encoding", "identity")], Problem::encoded(&encoding)).into_response(),
        None => next.run(request).await,
    }
}

/// The first encoding that the service does not know.
fn foreign_encoding(headers: &HeaderMap) -> Option<String> {
    let values =
        headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let encodings: Vec<String> =
        values.flat_map(|value| value.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()).collect();
    encodings.into_iter().find(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
    }

    #[test]
    fn marks_are_skipped_and_wide_texts_are_told() {
        let parse = |body: &[u8]| parsed::<Value>(body).map(|JsonBody(value)| value);
        assert_eq!(parse(b"\xef\xbb\xbf{\"a\": 1}").unwrap()["a"], 1);
        let wide = |text: &str, to: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(to).collect::<Vec<u8>>();
        for body in
            [wide("\u{feff}{}", u16::to_le_bytes), wide("\u{feff}{}", u16::to_be_bytes), wide("{}", u16::to_le_bytes)]
        {
            assert!(matches!(parse(&body), Err(BodyError::NotUtf8)), "{body:?}");
        }
        assert!(matches!(parse(&wide("{}", u16::to_be_bytes)), Err(BodyError::NotUtf8)));
        assert!(matches!(parse(b"\xef\xbb\xbf"), Err(BodyError::Json(_))));
        assert_eq!(parse(b"1").unwrap(), 1);
    }

    #[test]
    fn types_and_encodings_are_known_by_their_names() {
        for kind in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(is_json(&headers("content-type", kind)), "{kind}");
        }
        for kind in ["text/plain", "application/jsonp", "json", ""] {
            assert!(!is_json(&headers("content-type", kind)), "{kind}");
        }
        let encoding = |value: &str| foreign_encoding(&headers("content-encoding", value));
        assert_eq!(encoding("gzip").as_deref(), Some("gzip"));
        assert_eq!(encoding("identity, br").as_deref(), Some("br"));
        assert_eq!((encoding("Identity"), encoding(""), foreign_encoding(&HeaderMap::new())), (None, None, None));
    }
}

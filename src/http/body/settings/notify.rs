//! The receiver of a function's notifications as JSON.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::domain::settings::notify::{Event, MAX_URL, Notify, NotifyError, Target};

/// The receiver of notifications.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Notify)]
pub(in crate::http) struct NotifyBody {
    /// An https or http URL without a user's name, a password and a fragment.
    #[schema(max_length = 2048, example = "https://hooks.example.com/failed")]
    url: String,
    /// `failure` and `success`: the ends of asynchronous invocations that are told.
    #[schema(min_items = 1, default = json!(["failure"]), example = json!(["failure", "success"]))]
    #[serde(default = "of_failures")]
    on: Vec<String>,
}

/// The reason to refuse a text as a receiver.
#[derive(Debug, Error)]
pub(in crate::http) enum InvalidNotify {
    /// The reason has no word of the text: a URL may be as good as a password.
    #[error(
        "`notify` is neither null nor an object such as {{\"url\": \"https://hooks.example.com/failed\", \"on\": \
         [\"failure\"]}}"
    )]
    Form,
    #[error(transparent)]
    Notify(#[from] NotifyError),
}

impl NotifyBody {
    /// A receiver as an answer shows the receiver.
    pub(in crate::http) fn of(notify: &Notify) -> Self {
        let on = notify.target.events().into_iter().map(str::to_owned).collect();
        Self { url: notify.target.url().to_string(), on }
    }
}

fn of_failures() -> Vec<String> {
    vec![Event::Failure.name().to_owned()]
}

/// The receiver of a JSON text, with a new key; None for null, and for no text.
pub(in crate::http) fn parse(text: &str) -> Result<Option<Notify>, InvalidNotify> {
    let text = text.trim();
    if text.is_empty() || text == "null" {
        return Ok(None);
    }
    // A list would do for the object's members in their order, too.
    let object = Some(text).filter(|text| text.starts_with('{'));
    let body: Option<NotifyBody> = object.and_then(|text| serde_json::from_str(text).ok());
    let NotifyBody { url, on } = body.ok_or(InvalidNotify::Form)?;
    Ok(Some(Notify::new(Target::new(&url, &on)?)))
}

const _: () = assert!(MAX_URL == 2048, "the description of `url` has the limit");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_receiver_is_refused_with_what_is_wrong() {
        for text in ["", " ", "null", " null\n"] {
            assert_eq!(parse(text).unwrap(), None, "{text:?}");
        }
        let notify = parse(r#" {"url": "https://A.example/b"} "#).unwrap().unwrap();
        let shown = NotifyBody::of(&notify);
        assert_eq!((shown.url.as_str(), shown.on), ("https://a.example/b", vec!["failure".to_owned()]));
        let both = parse(r#"{"url": "http://a.example", "on": ["success", "failure"]}"#).unwrap().unwrap();
        assert_eq!(both.target.events(), ["success", "failure"]);
        for (text, said) in [
            (r#"{"url": "https://a.example/hidden", "secret": "x"}"#, "neither null nor an object"),
            (r#"{"on": ["failure"]}"#, "neither null nor an object"),
            (r#"["https://a.example/hidden", ["failure"]]"#, "neither null nor an object"),
            (r#""https://a.example/hidden""#, "neither null nor an object"),
            ("https://a.example/hidden", "neither null nor an object"),
            (r#"{"url": "https://a.example/hidden", "on": []}"#, "names no event"),
            (r#"{"url": "https://a.example/hidden", "on": ["lost"]}"#, "\"lost\""),
            (r#"{"url": "https://a.example/hidden", "on": null}"#, "neither null nor an object"),
            (r#"{"url": "hidden"}"#, "no URL"),
            (r#"{"url": "https://user:hidden@a.example"}"#, "password"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hidden"), "{text}: {error}");
        }
    }
}

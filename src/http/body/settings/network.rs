//! A function's network as JSON.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

use crate::domain::settings::network::{MAX_RULES, Network, NetworkError};

/// What programs may reach.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Network)]
pub(in crate::http) struct NetworkBody {
    /// Rules of the form HOST:PORT. HOST is a name, `*.` and a name, an address or a range of addresses (IPv6 in
    /// brackets), or `*`.
    #[schema(
        min_items = 1,
        max_items = 32,
        example = json!(["api.example.com:443", "*.example.org:443", "10.1.2.3:6379", "[2001:db8::/32]:443", "*:443"])
    )]
    allow: Vec<String>,
}

/// The reason to refuse a text as a network.
#[derive(Debug, Error)]
pub(in crate::http) enum InvalidNetwork {
    #[error("`network` is neither null nor an object such as {{\"allow\": [\"api.example.com:443\"]}}{0}")]
    Form(String),
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl NetworkBody {
    /// A network as an answer shows the network.
    pub(in crate::http) fn of(network: &Network) -> Self {
        Self { allow: network.rules() }
    }
}

/// The network of a JSON text; None for null, and for no text.
pub(in crate::http) fn parse(text: &str) -> Result<Option<Network>, InvalidNetwork> {
    let text = text.trim();
    if text.is_empty() || text == "null" {
        return Ok(None);
    }
    // A list would do for the object's members in their order, too.
    if !text.starts_with('{') {
        return Err(InvalidNetwork::Form(String::new()));
    }
    let body: NetworkBody = serde_json::from_str(text).map_err(|error| InvalidNetwork::Form(format!(": {error}")))?;
    Ok(Some(Network::new(body.allow)?))
}

const _: () = assert!(MAX_RULES == 32, "the description of `allow` has the limit");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_network_is_refused_with_what_is_wrong() {
        for text in ["", " ", "null", " null\n"] {
            assert_eq!(parse(text).unwrap(), None, "{text:?}");
        }
        let network = parse(r#" {"allow": ["API.example.com.:443", "*:443"]} "#).unwrap().unwrap();
        assert_eq!(network.rules(), ["api.example.com:443", "*:443"]);
        for (text, said) in [
            (r#"{"allow": ["a.example:443"], "deny": []}"#, "unknown field `deny`"),
            (r#"{"allow": ["a.example:443"], "allow": ["*:443"]}"#, "duplicate field `allow`"),
            ("{}", "missing field `allow`"),
            (r#"{"allow": "a.example:443"}"#, "expected a sequence"),
            (r#"{"allow": [443]}"#, "expected a string"),
            (r#"{"allow": null}"#, "expected a sequence"),
            (r#"[["a.example:443"]]"#, "neither null nor an object"),
            (r#""a.example:443""#, "neither null nor an object"),
            ("a.example:443", "neither null nor an object"),
            (r#"{"allow": []}"#, "no rules"),
            (r#"{"allow": ["a.example:443", "localhost:80"]}"#, "\"localhost:80\""),
            (r#"{"allow": ["https://a.example:443"]}"#, "\"https://a.example:443\""),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}

//! What the connections of an invocation did. Pure.

use serde::{Deserialize, Serialize};

/// The connections of an invocation with one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Destined {
    /// The host and port that the program asked for, such as `api.example.com:443`.
    pub to: String,
    /// The number of connections that came about.
    pub connections: u64,
    /// The bytes that went to the destination.
    pub sent_bytes: u64,
    /// The bytes that came from the destination.
    pub received_bytes: u64,
    /// The number of connections that were refused or failed.
    pub refused: u64,
    /// The last reason for that, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_written_as_clients_read_the_destination() {
        let destined = Destined {
            to: "api.example.com:443".to_owned(),
            connections: 1,
            sent_bytes: 120,
            received_bytes: 4096,
            ..Destined::default()
        };
        let expected =
            r#"{"to":"api.example.com:443","connections":1,"sentBytes":120,"receivedBytes":4096,"refused":0}"#;
        assert_eq!(serde_json::to_string(&destined).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Destined>(expected).unwrap(), destined);
        let refused = Destined { refused: 1, reason: Some("no rule".to_owned()), ..destined };
        let text = serde_json::to_string(&refused).unwrap();
        assert!(text.ends_with(r#""refused":1,"reason":"no rule"}"#), "{text}");
        assert_eq!(serde_json::from_str::<Destined>(&text).unwrap(), refused);
    }
}

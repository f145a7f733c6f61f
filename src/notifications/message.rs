//! The body of a notification. Pure.

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::Notification;

/// A message as Standard Webhooks suggests messages. What is not here is never told: input, output, settings, secrets.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The time of the end, by RFC 3339.
    timestamp: String,
    data: Data<'a>,
}

/// What a receiver learns. The words are those of the history; times are Unix seconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    function_id: String,
    function_name: &'a str,
    invocation_id: String,
    outcome: &'static str,
    exit_code: Option<i32>,
    error: Option<&'a str>,
    trigger: String,
    version: Option<u32>,
    executed_at: Option<u64>,
    duration_ms: Option<f64>,
}

/// The bytes that are sent, the same in each try.
pub(super) fn body(of: &Notification) -> Vec<u8> {
    let ended_at = i64::try_from(of.ended_at).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    let message = Message {
        kind: of.event().kind(),
        timestamp: ended_at.unwrap_or_default().to_string(),
        data: Data {
            function_id: of.function_id.to_string(),
            function_name: &of.function_name,
            invocation_id: of.invocation_id.to_string(),
            outcome: of.outcome.name(),
            exit_code: of.exit_code,
            error: of.error.as_deref(),
            trigger: of.trigger.to_string(),
            version: of.version,
            executed_at: of.executed_at.map(|millis| millis / 1000),
            duration_ms: of.duration.map(|duration| (duration.as_secs_f64() * 1e6).round() / 1e3),
        },
    };
    serde_json::to_vec(&message).expect("texts and numbers can be written as JSON")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{FunctionId, InvocationId, Outcome, Trigger};

    #[test]
    fn a_message_has_the_receipt_and_nothing_else() {
        let (function_id, invocation_id) = (FunctionId::random(), InvocationId::random());
        let failed = Notification {
            invocation_id,
            function_id,
            function_name: "nightly \"job\"".to_owned(),
            outcome: Outcome::Exit,
            exit_code: Some(3),
            error: Some("the function ended with exit status 3".to_owned()),
            trigger: Trigger::Schedule("nightly".to_owned()),
            version: Some(2),
            executed_at: Some(1_700_000_000_999),
            duration: Some(Duration::from_micros(1234)),
            ended_at: 1_700_000_001_250,
        };
        let json = |of: &Notification| serde_json::from_slice::<Value>(&body(of)).unwrap();
        let expected = json!({
            "type": "invocation.failed",
            "timestamp": "2023-11-14T22:13:21.25Z",
            "data": {
                "functionId": function_id.to_string(),
                "functionName": "nightly \"job\"",
                "invocationId": invocation_id.to_string(),
                "outcome": "exit",
                "exitCode": 3,
                "error": "the function ended with exit status 3",
                "trigger": "schedule:nightly",
                "version": 2,
                "executedAt": 1_700_000_000,
                "durationMs": 1.234,
            },
        });
        assert_eq!(json(&failed), expected);
        assert_eq!(body(&failed), body(&failed.clone()), "each try sends the same");
        let ok = Notification { outcome: Outcome::Ok, error: None, version: None, executed_at: None, ..failed };
        let ok = json(&ok);
        assert_eq!((&ok["type"], &ok["data"]["error"]), (&json!("invocation.succeeded"), &Value::Null));
    }
}

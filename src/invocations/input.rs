//! The input of an invocation: environment variables and stdin, from JSON or from a request over HTTP.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::domain::settings::Settings;
use crate::domain::settings::variable::{MAX_VALUE, PROXIES, is_name, is_reserved};
use crate::resources::budget::{BudgetExceeded, BudgetShare};
use crate::sandbox::protocol::Stdin;

/// A checked input.
#[derive(Debug)]
pub struct Input {
    environment: Vec<(String, Vec<u8>)>,
    stdin: Stdin,
    share: Option<BudgetShare>,
}

/// The reason to refuse an input.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InputError {
    /// The key makes no name of an environment variable.
    #[error(
        "input key {0:?} can't become an environment variable; use letters, digits, `_`, `-` and `.`, not a digit first"
    )]
    Key(String),
    /// Two keys make the same variable.
    #[error("input keys {0:?} and {1:?} both become the environment variable {2}; rename one")]
    Twice(String, String, String),
    /// The variable belongs to the platform or to the language's runtime.
    #[error("input key {0:?} would set {1}, which is reserved; rename it")]
    Reserved(String, String),
    /// A string has half a surrogate pair.
    #[error("the value of input key {0:?} is not a valid JSON string")]
    NotText(String),
    /// The value can't stand in an environment.
    #[error("the value of input key {0:?} holds a NUL character")]
    Nul(String),
    /// The variable is a secret of the function, which no input replaces.
    #[error("the input would set {0}, which is a secret of the function; rename its key")]
    Secret(String),
    /// The variable names a proxy, and the function has a network.
    #[error("the input would set {0}, which is reserved as the function has a `network`; rename its key")]
    Proxy(String),
    /// A value, or the whole input, is over the limit.
    #[error("the value of input key {0:?} has {1} bytes; the limit is {MAX_VALUE}")]
    TooLarge(String, usize),
}

impl Input {
    /// Checks an input's keys and values.
    pub fn parse(object: Object) -> Result<Self, InputError> {
        let mut environment: Vec<(String, Vec<u8>)> = Vec::with_capacity(object.0.len());
        let mut keys: HashMap<String, &str> = HashMap::with_capacity(object.0.len());
        for (key, value) in &object.0 {
            let name = variable(key).ok_or_else(|| InputError::Key(shortened(key)))?;
            if let Some(earlier) = keys.insert(name.clone(), key) {
                return Err(InputError::Twice(shortened(earlier), shortened(key), name));
            }
            if is_reserved(&name) {
                return Err(InputError::Reserved(shortened(key), name));
            }
            let text = text_of(value.get()).ok_or_else(|| InputError::NotText(shortened(key)))?;
            if text.contains('\0') {
                return Err(InputError::Nul(shortened(key)));
            }
            if text.len() > MAX_VALUE {
                return Err(InputError::TooLarge(shortened(key), text.len()));
            }
            environment.push((name, text.into_bytes()));
        }
        Ok(Self { environment, stdin: Stdin::Memory(object.into_json().into_bytes()), share: None })
    }

    /// The input of a request over HTTP. The names are those of variables, and no value holds a NUL.
    pub fn of_request(environment: Vec<(String, Vec<u8>)>, stdin: Stdin) -> Self {
        Self { environment, stdin, share: None }
    }

    /// Counts the input in a request's share of memory, until an invocation takes the input.
    pub fn within(self, mut share: BudgetShare) -> Result<Self, BudgetExceeded> {
        let variables = self.environment.iter().map(|(name, value)| name.len() + value.len());
        share.take((self.stdin.size() + variables.sum::<usize>()) as u64)?;
        Ok(Self { share: Some(share), ..self })
    }

    /// Refuses an input that would replace a secret of the function, or a variable by which programs find the way to
    /// the function's network.
    pub fn check(&self, settings: &Settings) -> Result<(), InputError> {
        for (name, _) in &self.environment {
            if settings.secrets.contains_key(name) {
                return Err(InputError::Secret(name.clone()));
            }
            if settings.network.is_some() && PROXIES.contains(&name.as_str()) {
                return Err(InputError::Proxy(name.clone()));
            }
        }
        Ok(())
    }

    /// The whole input as JSON. Empty for a request over HTTP whose body is on disk.
    pub fn json(&self) -> &[u8] {
        match &self.stdin {
            Stdin::Memory(bytes) => bytes,
            Stdin::File(_) => &[],
        }
    }

    /// The whole input as JSON, and the share that the JSON counts in.
    pub fn into_json(self) -> (Vec<u8>, Option<BudgetShare>) {
        (self.json().to_vec(), self.share)
    }

    /// The environment variables, and the content of stdin.
    pub fn into_parts(self) -> (Vec<(String, Vec<u8>)>, Stdin) {
        (self.environment, self.stdin)
    }
}

/// A JSON object as the client sent the object: keys in their order, and repeated keys repeated.
#[derive(Debug, Default)]
pub struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    fn into_json(self) -> String {
        let mut json = String::from("{");
        for (key, value) in self.0 {
            if json.len() > 1 {
                json.push(',');
            }
            json.push_str(&serde_json::to_string(&key).expect("a string can be written as JSON"));
            json.push(':');
            json.push_str(&compact(value.get()));
        }
        json.push('}');
        json
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

fn variable(key: &str) -> Option<String> {
    let name = key.replace(['-', '.'], "_").to_ascii_uppercase();
    is_name(&name).then_some(name)
}

/// The value's text in the environment; None for a string that is no text.
fn text_of(json: &str) -> Option<String> {
    match json.as_bytes()[0] {
        b'"' => serde_json::from_str(json).ok(),
        b'n' => Some(String::new()),
        b'{' | b'[' => Some(compact(json)),
        _ => Some(json.to_owned()),
    }
}

/// Valid JSON without the white space between tokens. All tokens stay to the letter, numbers above all.
fn compact(json: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let is_kept = |c: &char| {
        let kept = in_string || !c.is_ascii_whitespace();
        in_string ^= *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        kept
    };
    json.chars().filter(is_kept).collect()
}

fn shortened(key: &str) -> String {
    key.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::settings::network::Network;

    fn parsed(json: &str) -> Result<Input, InputError> {
        Input::parse(serde_json::from_str(json).expect("it is JSON"))
    }

    #[track_caller]
    fn check_value(json: &str, expected: &str) {
        let (environment, _) = parsed(&format!(r#"{{"key":{json}}}"#)).unwrap().into_parts();
        assert_eq!(environment, [("KEY".to_owned(), expected.as_bytes().to_vec())]);
    }

    #[test]
    fn values_arrive_in_the_form_of_the_contract() {
        check_value(r#""a string""#, "a string");
        check_value(r#""\u00e9\n""#, "é\n");
        check_value("1.0", "1.0");
        check_value("12345678901234567890123", "12345678901234567890123");
        check_value("1e5", "1e5");
        check_value("true", "true");
        check_value("null", "");
        check_value(r#"{ "b": [1, 2.50], "a": null }"#, r#"{"b":[1,2.50],"a":null}"#);
        check_value(r#"[ "a \" b\\", "\\\" " ]"#, r#"["a \" b\\","\\\" "]"#);
    }

    #[test]
    fn keys_become_variables() {
        let input = parsed(r#"{"my-key.x": "1", "_a1": "2"}"#).unwrap();
        assert_eq!(input.json(), br#"{"my-key.x":"1","_a1":"2"}"#);
        let (environment, _) = input.into_parts();
        assert_eq!(environment.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["MY_KEY_X", "_A1"]);
        assert_eq!(Input::parse(Object::default()).unwrap().json(), b"{}");
    }

    #[test]
    fn bad_keys_are_refused_by_name() {
        for key in ["", "1a", "a b", "ä", "a=b", "a\\u0000"] {
            let error = parsed(&format!(r#"{{"{key}":1}}"#)).expect_err(key);
            assert!(matches!(error, InputError::Key(_)), "{error}");
        }
        let twice = parsed(r#"{"a-b":1,"A_B":2}"#).expect_err("they fall on one name");
        assert_eq!(twice, InputError::Twice("a-b".to_owned(), "A_B".to_owned(), "A_B".to_owned()));
        assert!(matches!(parsed(r#"{"a":1,"a":1}"#), Err(InputError::Twice(..))));
    }

    #[test]
    fn reserved_names_are_refused() {
        for key in
            ["path", "Home", "tmpdir", "ld_preload", "ld-library.path", "pythonpath", "PYTHONx", "godebug", "gogc"]
        {
            assert!(matches!(parsed(&format!(r#"{{"{key}":1}}"#)), Err(InputError::Reserved(..))), "{key}");
        }
        for key in ["gomaxprocs", "gomemlimit", "gotraceback", "function-id", "function.name", "invocation_id"] {
            assert!(matches!(parsed(&format!(r#"{{"{key}":1}}"#)), Err(InputError::Reserved(..))), "{key}");
        }
        assert!(parsed(r#"{"paths":1,"my_home":1,"ldx":1,"function":1}"#).is_ok());
    }

    #[test]
    fn variables_of_proxies_are_reserved_where_the_function_has_a_network() {
        let with_network = Settings { network: Network::new(["a.example:443"]).ok(), ..Settings::default() };
        for (key, name) in [
            ("http_proxy", "HTTP_PROXY"),
            ("https-proxy", "HTTPS_PROXY"),
            ("ALL.PROXY", "ALL_PROXY"),
            ("no_proxy", "NO_PROXY"),
        ] {
            let input = parsed(&format!(r#"{{"a":1,"{key}":1}}"#)).unwrap();
            assert_eq!(input.check(&with_network), Err(InputError::Proxy(name.to_owned())));
            assert_eq!(input.check(&Settings::default()), Ok(()));
        }
        assert_eq!(parsed(r#"{"proxy":1,"ftp_proxy":1}"#).unwrap().check(&with_network), Ok(()));
    }

    #[test]
    fn bad_values_are_refused() {
        assert_eq!(parsed(r#"{"a":"x\u0000"}"#).err(), Some(InputError::Nul("a".to_owned())));
        assert_eq!(parsed(r#"{"a":"\ud800"}"#).err(), Some(InputError::NotText("a".to_owned())));
        let large = |n| parsed(&format!(r#"{{"a":"{}"}}"#, "x".repeat(n)));
        assert!(large(MAX_VALUE).is_ok());
        assert_eq!(large(MAX_VALUE + 1).err(), Some(InputError::TooLarge("a".to_owned(), MAX_VALUE + 1)));
    }
}

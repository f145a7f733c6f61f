//! What `docker login` has left for a registry, and what a registry wants to see.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use ureq::Agent;
use url::Url;

use super::{MAX_ANSWER, RepositoryError};

/// A user and a password, as basic authentication has the two.
pub(super) struct Login(String);

impl Login {
    /// The login for a registry from the file of `docker login`. None where there is no login, or where another program
    /// keeps the login.
    pub(super) fn read(file: &Path, host: &str) -> Option<Self> {
        let file: Value = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        let login = file.get("auths")?.get(host)?.get("auth")?.as_str()?;
        Some(Self(login.to_owned())).filter(|_| !login.is_empty())
    }
}

/// What a registry wants to see, as its `WWW-Authenticate` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// The user and the password.
    Basic,
    /// A token from this place, for this service.
    Bearer { realm: Url, service: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Challenge {
    /// None for what no registry is known to say.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let value = |name: &str| {
            let (_, rest) = rest.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        let realm = Url::parse(&value("realm")?).ok()?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Self::Bearer { realm, service: value("service") })
    }

    /// The value of `Authorization` for work on the repository `path`. None where a login is needed that is not there.
    pub(super) fn answer(
        self,
        agent: &Agent,
        login: Option<&Login>,
        path: &str,
    ) -> Result<Option<String>, RepositoryError> {
        let basic = login.map(|Login(login)| format!("Basic {login}"));
        let Self::Bearer { mut realm, service } = self else { return Ok(basic) };
        // The password does not cross a network in clear text because a registry says so.
        let is_safe = realm.scheme() == "https" || realm.host_str().is_some_and(|host| host.starts_with("127."));
        if let Some(service) = service {
            realm.query_pairs_mut().append_pair("service", &service);
        }
        realm.query_pairs_mut().append_pair("scope", &format!("repository:{path}:pull,delete"));
        let mut request = agent.get(realm.as_str());
        if let Some(basic) = basic.filter(|_| is_safe) {
            request = request.header("authorization", basic);
        }
        let mut answer = request.call()?;
        if answer.status() != 200 {
            return Ok(None);
        }
        let token: Token = answer.body_mut().with_config().limit(MAX_ANSWER).read_json()?;
        Ok(token.token.or(token.access_token).map(|token| format!("Bearer {token}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_want_to_see_is_understood() {
        assert_eq!(Challenge::parse("Basic realm=\"test\""), Some(Challenge::Basic));
        let said = "Bearer realm=\"https://auth.example/token\",service=\"registry.example\",scope=\"a:b:pull\"";
        let realm = Url::parse("https://auth.example/token").unwrap();
        let expected = Challenge::Bearer { realm, service: Some("registry.example".to_owned()) };
        assert_eq!(Challenge::parse(said), Some(expected));
        for other in ["", "Basic", "Bearer realm=\"no url\"", "Digest realm=\"https://a\""] {
            assert_eq!(Challenge::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_login_is_that_of_the_registry() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        assert!(Login::read(&file, "one:5000").is_none());
        std::fs::write(&file, r#"{"auths": {"one:5000": {"auth": "dTpw"}, "two": {}}}"#).unwrap();
        assert_eq!(Login::read(&file, "one:5000").unwrap().0, "dTpw");
        assert!(Login::read(&file, "two").is_none() && Login::read(&file, "one").is_none());
    }
}

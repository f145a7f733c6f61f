//! The configuration of this node among others.

use url::Url;

use super::value::var;
use super::variables::Variables;
use super::{ConfigError, Secret};

/// Configuration of this node among others.
#[derive(Clone, Debug)]
pub struct Node {
    /// NODE_URL: where the other nodes reach this node.
    pub url: Option<String>,
    /// CLUSTER_TOKEN: what nodes show each other.
    pub token: Option<Secret>,
}

impl Node {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        const URL: &str = "an http or https URL without a path, such as http://10.0.0.1:8080";
        const TOKEN: &str = "16 to 256 visible ASCII characters";
        Ok(Self {
            url: var!(variables.node_url).read(None, URL, parse_url)?,
            token: var!(variables.cluster_token).read(None, TOKEN, parse_token)?,
        })
    }
}

fn parse_url(text: &str) -> Option<Option<String>> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())?;
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && is_anonymous;
    is_bare.then(|| Some(text.trim_end_matches('/').to_owned()))
}

fn parse_token(text: &str) -> Option<Option<Secret>> {
    let is_token = (16..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    is_token.then(|| Some(Secret(text.to_owned())))
}

//! Tells the operator about settings that weaken the isolation or open the service to others.

use url::{Host, Url};

use crate::config::{self, Config};
use crate::sandbox::isolation::Isolation;
use crate::tokens::Tokens;

/// Notes the gaps that the settings of builds leave in the isolation, and warns about secrets that builds may see.
pub(super) fn note_builds(config: &config::Builds, isolation: &Isolation) {
    if config.builder == config::ImageBuilder::BuildKit {
        isolation.note(
            "builds",
            vec!["BuildKit (DOCKER_BUILDKIT=1) takes no limits of memory and processor time".to_owned()],
        );
    }
    if config.allow_source_builds && !config.environment.is_empty() {
        let names: Vec<&str> = config.environment.iter().map(|(name, _)| name.as_str()).collect();
        tracing::warn!(
            variables = names.join(", "),
            "PYTHON_ALLOW_SOURCE_BUILDS is true: code of packages that are built from source sees the variables of \
             BUILD_ENV"
        );
    }
}

/// Warns about an address that others may reach, where the service asks for no token.
pub(super) fn warn_about_address(config: &config::Http) {
    if !config.host.is_loopback() && config.api_token.is_none() {
        tracing::warn!(
            address = %config.host,
            "ANYONE WHO REACHES THIS ADDRESS CAN RUN CODE HERE AND DELETE FUNCTIONS: set API_TOKEN, or SERVER_HOST to \
             127.0.0.1"
        );
    }
}

/// Warns about tokens that protect nothing.
pub(super) fn warn_about_tokens(tokens: &Tokens) {
    if !tokens.are_asked_for() && !tokens.is_empty() {
        tracing::warn!(
            tokens = tokens.len(),
            "API_TOKEN is not set, so requests need no token, and each request may do everything"
        );
    }
}

/// Warns about nodes that share a store and can't ask each other, or that do so in clear text on a network.
pub(super) fn warn_about_nodes(config: &Config, is_shared: bool) {
    let config::Node { url, token } = &config.node;
    if !is_shared {
        return;
    }
    let (Some(url), Some(token)) = (url, token) else {
        tracing::warn!(
            "live output of this node's invocations is not seen on other nodes: set NODE_URL and CLUSTER_TOKEN on each \
             node"
        );
        return;
    };
    if config.http.api_token.as_ref() == Some(token) {
        tracing::warn!(
            "CLUSTER_TOKEN is the API_TOKEN, so it counts as that only, and nodes do not ask each other for live \
             output: set another CLUSTER_TOKEN on each node"
        );
    }
    if is_in_clear(url) {
        tracing::warn!(
            node.url = url,
            "other nodes send CLUSTER_TOKEN to NODE_URL and get output from there in clear text: use TLS or a private \
             network"
        );
    }
}

/// Whether bytes to the URL leave this machine without TLS.
fn is_in_clear(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| {
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        url.scheme() == "http" && !is_loopback
    })
}

#[cfg(test)]
mod tests {
    use super::is_in_clear;

    #[test]
    fn a_node_on_a_network_needs_tls() {
        for url in ["http://10.0.0.1:8080", "http://two:8080", "http://[fd00::1]:8080", "http://localhost.example"] {
            assert!(is_in_clear(url), "{url}");
        }
        for url in ["https://two", "http://127.0.0.1:8080", "http://127.1.2.3", "http://[::1]:1", "http://LOCALHOST:1"]
        {
            assert!(!is_in_clear(url), "{url}");
        }
    }
}

//! Where the nodes that share the store are reached.

use std::sync::Arc;

use parking_lot::RwLock;
use url::Url;

/// The hosts and ports of the nodes' NODE_URLs. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct NodeUrls(Arc<RwLock<Vec<(String, u16)>>>);

impl NodeUrls {
    /// The host and the port of each node that has a URL and was seen lately, this node included.
    pub fn hosts(&self) -> Vec<(String, u16)> {
        self.0.read().clone()
    }

    /// Takes over the URLs of all nodes.
    pub fn replace(&self, urls: impl IntoIterator<Item = impl AsRef<str>>) {
        let host = |url: Url| Some((url.host_str()?.to_owned(), url.port_or_known_default()?));
        let hosts = urls.into_iter().filter_map(|url| host(Url::parse(url.as_ref()).ok()?)).collect();
        *self.0.write() = hosts;
    }
}

#[cfg(test)]
mod tests {
    use super::NodeUrls;

    #[test]
    fn a_url_names_a_host_and_a_port() {
        let urls = NodeUrls::default();
        assert_eq!(urls.hosts(), []);
        urls.clone().replace(["http://a.example:8080/", "https://B.example", "http://[::1]:1", "nonsense"]);
        let expected = [("a.example", 8080), ("b.example", 443), ("[::1]", 1)];
        assert_eq!(urls.hosts(), expected.map(|(host, port)| (host.to_owned(), port)));
        urls.replace([""; 0]);
        assert_eq!(urls.hosts(), []);
    }
}

//! The configuration of the store.

use std::net::IpAddr;

use url::Url;

use super::value::var;
use super::variables::Variables;
use super::{ConfigError, Secret};

/// Configuration of the store.
#[derive(Clone, Debug, Default)]
pub struct Store {
    /// STORE_URL: the PostgreSQL that nodes share; None for the SQLite file in DATA_DIR.
    pub url: Option<Secret>,
    /// SECRETS_KEY: the keys by which functions' secrets are sealed. The first one seals.
    pub keys: Vec<SecretKey>,
}

/// A key of 32 bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(pub [u8; 32]);

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

const URL: &str = "postgres://USER:PASSWORD@HOST/DATABASE; beyond loopback with sslmode=verify-full, unless \
                   STORE_INSECURE is true";

const KEYS: &str = "keys of 64 hexadecimal digits, one a line, as `openssl rand -hex 32` prints (give them by \
                    SECRETS_KEY_FILE)";

impl Store {
    pub(super) fn read(variables: &Variables) -> Result<Self, ConfigError> {
        let may_be_insecure = var!(variables.store_insecure).flag(false)?;
        let url = var!(variables.store_url).read(None, URL, |text| parse_store_url(text, may_be_insecure))?;
        let keys = var!(variables.secrets_key);
        let is_needed = url.is_some() && keys.value.is_none();
        if is_needed {
            return Err(keys.refuse("", &format!("{KEYS}; STORE_URL needs it")));
        }
        Ok(Self { url, keys: keys.read(Vec::new(), KEYS, parse_keys)? })
    }
}

/// A URL of PostgreSQL with a host. Bytes that leave this machine must be encrypted, and the server known.
fn parse_store_url(text: &str, may_be_insecure: bool) -> Option<Option<Secret>> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "postgres" | "postgresql"))?;
    let parameter =
        |name: &str| url.query_pairs().filter(|(key, _)| key == name).last().map(|(_, value)| value.into_owned());
    // sqlx takes a host, or the folder of a socket, from these parameters, too.
    let hosts = [url.host_str().map(str::to_owned), parameter("host"), parameter("hostaddr")];
    let hosts: Vec<String> = hosts.into_iter().flatten().filter(|host| !host.is_empty()).collect();
    let is_local = hosts.iter().all(|host| {
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        host == "localhost" || host.starts_with('/') || address.is_ok_and(|address| address.is_loopback())
    });
    let is_verified = ["sslmode", "ssl-mode"].into_iter().filter_map(parameter).all(|mode| mode == "verify-full")
        && parameter("sslmode").is_some();
    (!hosts.is_empty() && (is_local || is_verified || may_be_insecure)).then(|| Some(Secret(text.to_owned())))
}

fn parse_keys(text: &str) -> Option<Vec<SecretKey>> {
    let key = |line: &str| {
        let mut key = [0; 32];
        hex::decode_to_slice(line.trim(), &mut key).ok()?;
        Some(SecretKey(key))
    };
    let keys: Vec<SecretKey> = text.lines().filter(|line| !line.trim().is_empty()).map(key).collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(keys)
}

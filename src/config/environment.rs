//! BUILD_ENV: which of the service's own variables downloads see.

use super::parse::parse_names;
use super::{ConfigError, Reader, Secret};

/// Where indexes and proxies are, and what is needed there.
const DEFAULT: [&str; 10] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "UV_DEFAULT_INDEX",
    "UV_INDEX",
    "GOPROXY",
    "GOPRIVATE",
    "GONOSUMDB",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
impl Reader {
    /// The variables that BUILD_ENV names, as far as they are set.
    pub(super) fn build_environment(&mut self) -> Result<Vec<(String, Secret)>, ConfigError> {
        let default = DEFAULT.map(str::to_owned).into();
        let names = self.read("BUILD_ENV", default, "names of variables separated by commas", parse_names)?;
        Ok(names
            .into_iter()
            .filter_map(|name| self.vars.get(&name).map(|value| (name, Secret(value.clone()))))
            .collect())
    }
}

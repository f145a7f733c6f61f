//! BUILD_ENV: the service's own variables that downloads see.

use super::parse::parse_names;
use super::{ConfigError, Reader, Secret};

/// The default of BUILD_ENV: variables for package indexes, for private Go modules and for proxies.
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
    /// The variables that BUILD_ENV names and that are set, with their values.
    pub(super) fn build_environment(&mut self) -> Result<Vec<(String, Secret)>, ConfigError> {
        let default = DEFAULT.map(str::to_owned).into();
        let names = self.read("BUILD_ENV", default, "names of variables separated by commas", parse_names)?;
        Ok(names
            .into_iter()
            .filter_map(|name| self.vars.get(&name).map(|value| (name, Secret(value.clone()))))
            .collect())
    }
}

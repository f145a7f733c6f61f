//! BUILD_ENV: the service's own variables that downloads see.

use std::collections::HashMap;

use super::files::value_of;
use super::parse::parse_names;
use super::value::Value;
use super::{ConfigError, Secret};

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

impl Value<'_> {
    /// The variables that BUILD_ENV names and that are set in `vars`, or in files that `vars` names, with their
    /// values.
    pub(super) fn build_environment(
        &self,
        vars: &HashMap<String, String>,
    ) -> Result<Vec<(String, Secret)>, ConfigError> {
        let default = DEFAULT.map(str::to_owned).into();
        let names = self.read(default, "names of variables separated by commas", parse_names)?;
        let mut environment = Vec::new();
        for name in names {
            environment.extend(value_of(vars, &name)?.map(|value| (name, Secret(value))));
        }
        Ok(environment)
    }
}

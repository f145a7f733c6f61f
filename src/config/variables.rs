//! The values of all variables as the operator writes them.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::files::value_of;

/// The list of variables: a field for each variable, with the variable's name in lower case.
#[derive(Deserialize, Serialize)]
pub(super) struct Variables {
    pub(super) server_host: Option<String>,
    pub(super) server_port: Option<String>,
    pub(super) server_read_timeout: Option<String>,
    pub(super) server_write_timeout: Option<String>,
    pub(super) server_shutdown_timeout: Option<String>,
    pub(super) server_drain_time: Option<String>,
    pub(super) max_file_size: Option<String>,
    pub(super) api_token: Option<String>,
    pub(super) allowed_hosts: Option<String>,
    pub(super) rate_limit: Option<String>,
    pub(super) functions_port: Option<String>,
    pub(super) functions_host: Option<String>,
    pub(super) functions_domain: Option<String>,
    pub(super) http_functions: Option<String>,
    pub(super) trusted_proxies: Option<String>,
    pub(super) max_request_size: Option<String>,
    pub(super) docker_image_prefix: Option<String>,
    pub(super) python_image: Option<String>,
    pub(super) go_image: Option<String>,
    pub(super) docker_build_timeout: Option<String>,
    pub(super) max_concurrent_builds: Option<String>,
    pub(super) build_queue_limit: Option<String>,
    pub(super) max_unpacked_size: Option<String>,
    pub(super) python_allow_source_builds: Option<String>,
    pub(super) docker_build_memory_limit: Option<String>,
    pub(super) docker_build_cpu_limit: Option<String>,
    pub(super) docker_buildkit: Option<String>,
    pub(super) build_network: Option<String>,
    pub(super) build_env: Option<String>,
    pub(super) image_cache_limit: Option<String>,
    pub(super) min_free_disk: Option<String>,
    pub(super) docker_memory_limit: Option<String>,
    pub(super) docker_cpu_limit: Option<String>,
    pub(super) docker_pids_limit: Option<String>,
    pub(super) docker_tmpfs_size: Option<String>,
    pub(super) instance_uids: Option<String>,
    pub(super) docker_runtime: Option<String>,
    pub(super) require_isolation: Option<String>,
    pub(super) docker_container_limit: Option<String>,
    pub(super) docker_run_timeout: Option<String>,
    pub(super) max_output_size: Option<String>,
    pub(super) queue_limit: Option<String>,
    pub(super) queue_timeout: Option<String>,
    pub(super) async_queue_limit: Option<String>,
    pub(super) slots_python: Option<String>,
    pub(super) slots_go: Option<String>,
    pub(super) slot_cache_size: Option<String>,
    pub(super) instance_idle_timeout: Option<String>,
    pub(super) instance_transport: Option<String>,
    pub(super) instance_max_invocations: Option<String>,
    pub(super) max_function_memory: Option<String>,
    pub(super) max_function_cpus: Option<String>,
    pub(super) max_function_timeout: Option<String>,
    pub(super) max_function_versions: Option<String>,
    pub(super) preload: Option<String>,
    pub(super) egress_allow: Option<String>,
    pub(super) egress_private: Option<String>,
    pub(super) egress_connections: Option<String>,
    pub(super) egress_connect_timeout: Option<String>,
    pub(super) invocation_retention: Option<String>,
    pub(super) invocation_limit: Option<String>,
    pub(super) invocation_output_size: Option<String>,
    pub(super) temp_dir_base: Option<String>,
    pub(super) data_dir: Option<String>,
    pub(super) store_url: Option<String>,
    pub(super) store_insecure: Option<String>,
    pub(super) secrets_key: Option<String>,
    pub(super) node_url: Option<String>,
    pub(super) cluster_token: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) log_format: Option<String>,
}

impl Variables {
    /// Picks the values of the listed variables, from `vars` or from the files that `vars` names. A name in lower case
    /// is not the name of a listed variable, although `envy` ignores the case.
    pub(super) fn from_vars(vars: &HashMap<String, String>) -> Result<Self, ConfigError> {
        let mut values = Vec::new();
        for name in Self::names() {
            values.extend(value_of(vars, &name)?.map(|value| (name, value)));
        }
        Ok(Self::from_values(values))
    }

    /// The names of all variables.
    pub(super) fn names() -> Vec<String> {
        let fields = serde_json::to_value(Self::from_values(Vec::new())).expect("the fields are texts");
        fields.as_object().expect("a struct is an object").keys().map(|name| name.to_ascii_uppercase()).collect()
    }

    fn from_values(values: Vec<(String, String)>) -> Self {
        envy::from_iter(values).expect("a text is a valid value of each field, and no name occurs twice")
    }
}

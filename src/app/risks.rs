//! Tells the operator about settings that weaken the isolation or open the service to others.

use crate::config;
use crate::sandbox::isolation::Isolation;

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

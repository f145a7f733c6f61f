//! The configuration of builds.

use std::time::Duration;

use super::parse::{parse_cpus, parse_memory, parse_size};
use super::value::{CPUS, MEMORY, SIZE, var};
use super::variables::Variables;
use super::{ConfigError, Sandbox, Secret};

/// Configuration of builds.
#[derive(Clone, Debug)]
pub struct Builds {
    /// DOCKER_IMAGE_PREFIX: functions' images are named PREFIX/ID, runtime images PREFIX-runtime/LANGUAGE.
    pub image_prefix: String,
    /// Whether DOCKER_IMAGE_PREFIX begins with the host of a registry, which then has all functions' images.
    pub has_registry: bool,
    /// PYTHON_IMAGE.
    pub python_image: String,
    /// GO_IMAGE.
    pub go_image: String,
    /// DOCKER_BUILD_TIMEOUT.
    pub timeout: Duration,
    /// MAX_CONCURRENT_BUILDS.
    pub max_concurrent: u32,
    /// BUILD_QUEUE_LIMIT: how many builds may wait for their turn.
    pub queue_limit: u32,
    /// MAX_UNPACKED_SIZE of a zip's content, in bytes.
    pub max_unpacked_size: u64,
    /// PYTHON_ALLOW_SOURCE_BUILDS: packages that have no wheel may be built, which runs their code.
    pub allow_source_builds: bool,
    /// DOCKER_BUILD_MEMORY_LIMIT of each step of a build, in bytes; without swap.
    pub memory: u64,
    /// DOCKER_BUILD_CPU_LIMIT of each step of a build, in processors.
    pub cpus: f64,
    /// DOCKER_BUILDKIT.
    pub builder: ImageBuilder,
    /// BUILD_NETWORK of downloads.
    pub network: BuildNetwork,
    /// BUILD_ENV: the service's own variables that downloads see, where they are set, with their values.
    pub environment: Vec<(String, Secret)>,
    /// DOCKER_RUNTIME of the containers that download.
    pub runtime: Option<String>,
    /// IMAGE_CACHE_LIMIT: what functions' images may take together, in bytes; None for no limit.
    pub image_cache_limit: Option<u64>,
    /// MIN_FREE_DISK: with less than this free, in bytes, no submit is taken.
    pub min_free_disk: u64,
}

/// The part of Docker that builds images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageBuilder {
    /// The classic builder, which limits the steps of a build.
    Classic,
    /// BuildKit, which takes no limits.
    BuildKit,
}

/// The network of downloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildNetwork {
    /// The network that Docker gives to a container.
    Default,
    /// No network.
    None,
}

const IMAGE: &str = "the name of a Docker image such as python:3.13-slim";

impl Builds {
    /// `environment` has the variables of BUILD_ENV. Downloads run in the runtime of `sandbox`.
    pub(super) fn read(
        variables: &Variables,
        environment: Vec<(String, Secret)>,
        sandbox: &Sandbox,
    ) -> Result<Self, ConfigError> {
        let image_prefix = var!(variables.docker_image_prefix).read(
            "youtube-serverless".to_owned(),
            "a Docker repository name: lower-case letters and digits, separated by `.`, `_`, `-` or `/`, which may \
             begin with the host of a registry, as in registry.internal:5000/functions",
            parse_repository,
        )?;
        Ok(Self {
            has_registry: begins_with_host(&image_prefix),
            image_prefix,
            python_image: var!(variables.python_image).read("python:3.13-slim".to_owned(), IMAGE, parse_image)?,
            go_image: var!(variables.go_image).read("golang:1.25-bookworm".to_owned(), IMAGE, parse_image)?,
            timeout: var!(variables.docker_build_timeout).duration(300)?,
            max_concurrent: var!(variables.max_concurrent_builds).count(2, 1, 1000)?,
            queue_limit: var!(variables.build_queue_limit).count(100, 0, 100_000)?,
            max_unpacked_size: var!(variables.max_unpacked_size).size(100_000_000)?,
            allow_source_builds: var!(variables.python_allow_source_builds).flag(false)?,
            memory: var!(variables.docker_build_memory_limit).read(2_000_000_000, MEMORY, parse_memory)?,
            cpus: var!(variables.docker_build_cpu_limit).read(2.0, CPUS, parse_cpus)?,
            builder: var!(variables.docker_buildkit).read(ImageBuilder::Classic, "0 or 1", parse_builder)?,
            network: var!(variables.build_network).read(BuildNetwork::Default, "default or none", parse_network)?,
            environment,
            runtime: sandbox.runtime.clone(),
            image_cache_limit: var!(variables.image_cache_limit).read(None, SIZE, |text| parse_size(text).map(Some))?,
            min_free_disk: var!(variables.min_free_disk).size(500_000_000)?,
        })
    }
}

impl Builds {
    /// The hosts and ports of the registry of images, where there is one.
    pub fn registry(&self) -> Vec<(String, u16)> {
        if !self.has_registry {
            return Vec::new();
        }
        let first = self.image_prefix.split('/').next().unwrap_or_default();
        match first.split_once(':') {
            Some((host, port)) => port.parse().map(|port| vec![(host.to_owned(), port)]).unwrap_or_default(),
            // Docker reaches its own registry by other names, and a registry without TLS by the port of HTTP.
            None if first == "docker.io" => {
                ["registry-1.docker.io", "index.docker.io", "docker.io"].map(|host| (host.to_owned(), 443)).into()
            }
            None => vec![(first.to_owned(), 443), (first.to_owned(), 80)],
        }
    }
}

fn parse_builder(text: &str) -> Option<ImageBuilder> {
    match text {
        "0" => Some(ImageBuilder::Classic),
        "1" => Some(ImageBuilder::BuildKit),
        _ => None,
    }
}

fn parse_network(text: &str) -> Option<BuildNetwork> {
    match text {
        "default" => Some(BuildNetwork::Default),
        "none" => Some(BuildNetwork::None),
        _ => None,
    }
}

fn parse_repository(text: &str) -> Option<String> {
    let is_part = |part: &str| {
        let allowed = part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b));
        let at_ends = |c: char| c.is_ascii_alphanumeric();
        allowed && part.starts_with(at_ends) && part.ends_with(at_ends)
    };
    // A registry's host may have a port. Then another part follows, because words such as `-runtime` are added to the
    // prefix.
    let path = match text.split_once('/') {
        Some((first, path)) => match first.split_once(':') {
            Some((host, port)) => {
                let is_port = !port.starts_with('0') && port.parse::<u16>().is_ok();
                (is_port && is_part(host) && !host.contains('_')).then_some(path)?
            }
            None => text,
        },
        None => text,
    };
    (text.len() <= 128 && path.split('/').all(is_part)).then(|| text.to_owned())
}

/// Docker's own rule: the first part of an image's name is the host of a registry where that part is like a host.
fn begins_with_host(image_prefix: &str) -> bool {
    let first = image_prefix.split('/').next().unwrap_or_default();
    first.contains(['.', ':']) || first == "localhost"
}

fn parse_image(text: &str) -> Option<String> {
    let valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b));
    (valid && text.starts_with(|c: char| c.is_ascii_alphanumeric())).then(|| text.to_owned())
}

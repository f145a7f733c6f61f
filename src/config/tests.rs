use std::collections::BTreeSet;

use super::*;

fn from(vars: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_vars(vars.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())))
}

#[track_caller]
fn check_refused(variable: &str, value: &str) {
    let error = from(&[(variable, value)]).expect_err(value);
    assert_eq!((error.variable.as_str(), error.value.as_str()), (variable, value));
    assert!(error.to_string().contains("expected"), "{error}");
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = from(&[]).expect("the defaults are valid");
    assert_eq!((config.http.host.to_string().as_str(), config.http.port), ("127.0.0.1", 8080));
    let timeouts = [config.http.read_timeout, config.http.write_timeout, config.http.shutdown_timeout];
    assert_eq!(timeouts.map(|timeout| timeout.as_secs()), [10, 10, 5]);
    assert_eq!(config.http.max_file_size, 10_000_000);
    assert!(config.http.api_token.is_none());
    assert_eq!(config.builds.image_prefix, "youtube-serverless");
    assert_eq!(
        (config.builds.timeout.as_secs(), config.builds.max_concurrent, config.builds.queue_limit),
        (300, 2, 100)
    );
    assert_eq!(config.builds.max_unpacked_size, 100_000_000);
    assert_eq!((config.sandbox.memory, config.sandbox.cpus), (128_000_000, 1.0));
    assert_eq!((config.sandbox.pids, config.sandbox.tmpfs), (64, 64_000_000));
    assert!(config.sandbox.runtime.is_none());
    assert_eq!((config.pool.container_limit, config.pool.run_timeout.as_secs()), (10, 30));
    assert_eq!((config.pool.queue_limit, config.pool.queue_timeout.as_secs()), (1000, 10));
    assert_eq!((config.pool.idle_timeout.as_secs(), config.pool.max_invocations), (300, 0));
    assert_eq!(config.pool.max_output_size, 1_000_000);
    assert_eq!(config.uids.to_string(), "70000-70999");
    assert_eq!(config.pool.async_queue_limit, 10_000);
    assert_eq!((config.history.retention.as_secs(), config.history.max_invocations), (7 * 24 * 3600, 100_000));
    assert_eq!((config.temp_dir_base, config.data_dir), (std::env::temp_dir(), PathBuf::from("data")));
    assert_eq!(config.log_level, Level::INFO);
    let egress = config.egress;
    assert!(egress.allow.is_empty() && egress.private.is_empty());
    assert_eq!((egress.connections, egress.connect_timeout.as_secs()), (64, 5));
}

#[test]
fn what_functions_may_reach_is_a_list() {
    let egress =
        from(&[("EGRESS_ALLOW", "*:443, a.example:80"), ("EGRESS_PRIVATE", "10.0.0.0/8,fd00::1")]).unwrap().egress;
    assert_eq!(egress.allow.iter().map(ToString::to_string).collect::<Vec<_>>(), ["*:443", "a.example:80"]);
    assert_eq!(egress.private.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.0/8", "fd00::1/128"]);
    check_refused("EGRESS_ALLOW", "*");
    check_refused("EGRESS_ALLOW", "a.example:443,");
    check_refused("EGRESS_PRIVATE", "10.1.2.3/8");
    check_refused("EGRESS_CONNECTIONS", "0");
    check_refused("EGRESS_CONNECT_TIMEOUT", "0");
}

#[test]
fn durations_and_sizes_take_the_forms_of_the_contract() {
    let run_timeout = |value| from(&[("DOCKER_RUN_TIMEOUT", value)]).expect(value).pool.run_timeout;
    assert_eq!(run_timeout("10s"), Duration::from_secs(10));
    assert_eq!(run_timeout("500ms"), Duration::from_millis(500));
    assert_eq!(run_timeout("5m"), Duration::from_secs(300));
    assert_eq!(run_timeout("7"), Duration::from_secs(7));
    assert_eq!(run_timeout("0.5"), Duration::from_millis(500));
    let max_file_size = |value| from(&[("MAX_FILE_SIZE", value)]).expect(value).http.max_file_size;
    assert_eq!(max_file_size("10MB"), 10_000_000);
    assert_eq!(max_file_size("10MiB"), 10_485_760);
    assert_eq!(max_file_size("1234"), 1234);
}

#[test]
fn a_rate_is_a_count_in_a_time() {
    let rate = |value| {
        let limit = from(&[("RATE_LIMIT", value)]).expect(value).http.rate_limit.expect(value);
        (limit.requests.get(), limit.period.as_secs())
    };
    assert_eq!([rate("100/s"), rate("600/m"), rate("7/5m"), rate("1/30")], [(100, 1), (600, 60), (7, 300), (1, 30)]);
    assert_eq!(from(&[]).expect("none").http.rate_limit, None);
}

#[test]
fn an_image_prefix_may_begin_with_a_registry() {
    let has_registry = |prefix| from(&[("DOCKER_IMAGE_PREFIX", prefix)]).expect(prefix).builds.has_registry;
    for prefix in ["registry.internal:5000/team/functions", "localhost:5000/a", "registry.internal/a", "localhost/a"] {
        assert!(has_registry(prefix), "{prefix}");
    }
    for prefix in ["youtube-serverless", "team/functions", "team/my.functions", "team/localhost"] {
        assert!(!has_registry(prefix), "{prefix}");
    }
}

#[test]
fn a_registry_has_a_host_and_ports() {
    let registry = |prefix| from(&[("DOCKER_IMAGE_PREFIX", prefix)]).expect(prefix).builds.registry();
    let places = |places: &[(&str, u16)]| -> Vec<(String, u16)> {
        places.iter().map(|(host, port)| ((*host).to_owned(), *port)).collect()
    };
    assert_eq!(registry("registry.internal:5000/a/b"), places(&[("registry.internal", 5000)]));
    assert_eq!(registry("ghcr.io/a"), places(&[("ghcr.io", 443), ("ghcr.io", 80)]));
    assert!(registry("docker.io/a").contains(&("registry-1.docker.io".to_owned(), 443)));
    assert_eq!(registry("youtube-serverless"), []);
}

#[test]
fn what_does_not_parse_is_refused_by_name() {
    check_refused("SERVER_PORT", "80800");
    for rate in ["100", "100/", "/s", "0/s", "-1/s", "100/0", "1/fortnight"] {
        check_refused("RATE_LIMIT", rate);
    }
    check_refused("REQUIRE_ISOLATION", "yes");
    check_refused("DOCKER_BUILDKIT", "true");
    check_refused("SERVER_HOST", "localhost");
    check_refused("SERVER_READ_TIMEOUT", "10 parsecs");
    check_refused("SERVER_WRITE_TIMEOUT", "0");
    check_refused("DOCKER_RUN_TIMEOUT", "-1");
    check_refused("DOCKER_RUN_TIMEOUT", "inf");
    check_refused("MAX_FILE_SIZE", "10 apples");
    check_refused("MAX_FILE_SIZE", "999000001");
    check_refused("MAX_FILE_SIZE", "1GB");
    check_refused("DOCKER_IMAGE_PREFIX", "Upper/Case");
    for prefix in ["-rm", "a/b:5000", "localhost:5000", "host:0/a", "host:65536/a", ":5000/a", "host:/a", "ho_st:1/a"] {
        check_refused("DOCKER_IMAGE_PREFIX", prefix);
    }
    check_refused("PYTHON_IMAGE", "--privileged");
    check_refused("DOCKER_CONTAINER_LIMIT", "0");
    check_refused("DOCKER_CPU_LIMIT", "NaN");
    check_refused("DOCKER_MEMORY_LIMIT", "1MB");
    check_refused("LOG_LEVEL", "verbose");
    check_refused("MAX_OUTPUT_SIZE", "1GB");
}

#[test]
fn downloads_see_what_is_named_and_set() {
    let seen = |vars: &[(&str, &str)]| {
        let environment = from(vars).expect("valid").builds.environment;
        environment.into_iter().map(|(name, Secret(value))| format!("{name}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(seen(&[("PIP_INDEX_URL", "https://a"), ("OTHER", "x"), ("NO_PROXY", "")]), ["PIP_INDEX_URL=https://a"]);
    assert_eq!(seen(&[("PIP_INDEX_URL", "https://a"), ("OTHER", "x"), ("BUILD_ENV", "OTHER, MISSING")]), ["OTHER=x"]);
    for bad in ["A=b", "A B", "1A", ",", "A,"] {
        check_refused("BUILD_ENV", bad);
    }
    let shown = format!("{:?}", from(&[("PIP_INDEX_URL", "https://me:password@a")]).expect("valid"));
    assert!(!shown.contains("password"), "{shown}");
}

#[test]
fn each_container_needs_a_user_of_its_own() {
    let uids = from(&[("INSTANCE_UIDS", "1000-1002"), ("DOCKER_CONTAINER_LIMIT", "2")]).expect("there is room").uids;
    assert_eq!((uids.of_instances(), uids.of_check()), (1000..=1001, 1002));
    for range in [
        "",
        "-",
        "1000",
        "1000-",
        "-1000",
        "2000-1000",
        "0-1000",
        "60000-70000",
        "65535-70000",
        "1000-1009",
        "1-4294967295",
    ] {
        if !range.is_empty() {
            check_refused("INSTANCE_UIDS", range);
        }
    }
    assert_eq!(from(&[("INSTANCE_UIDS", "100000-199999")]).expect("there are 100,000").uids.of_check(), 199_999);
    check_refused("INSTANCE_UIDS", "100000-200000");
    let error = from(&[("DOCKER_CONTAINER_LIMIT", "1000")]).expect_err("the default has 1,000");
    assert_eq!((error.variable.as_str(), error.value.as_str()), ("INSTANCE_UIDS", "70000-70999"));
    assert!(error.to_string().contains("1001"), "{error}");
}

#[test]
fn a_bad_token_is_not_shown() {
    let error = from(&[("API_TOKEN", "with space")]).expect_err("it has a space");
    assert!(!error.to_string().contains("with space"), "{error}");
}

#[test]
fn an_empty_value_counts_as_none() {
    assert!(from(&[("API_TOKEN", ""), ("DOCKER_RUNTIME", "")]).expect("valid").http.api_token.is_none());
}

#[test]
fn a_name_in_lower_case_is_another_name() {
    let config = from(&[("SERVER_PORT", "1"), ("server_port", "x"), ("Log_Level", "x")]).expect("valid");
    assert_eq!(config.http.port, 1);
}

#[test]
fn the_example_file_lists_every_variable_with_its_default() {
    let example = dotenvy::from_read_iter(include_str!("../../.env.example").as_bytes());
    let example: Vec<(String, String)> = example.collect::<Result<_, _>>().expect("it parses");
    let config = Config::from_vars(example.clone()).expect("its values are valid");
    let listed: BTreeSet<String> = example.into_iter().map(|(name, _)| name).collect();
    let known: BTreeSet<String> = Variables::names().into_iter().collect();
    assert_eq!(listed, known);
    let mut defaults = from(&[]).expect("the defaults are valid");
    assert_eq!(config.data_dir, PathBuf::from("./data"));
    defaults.data_dir = config.data_dir.clone();
    assert_eq!(format!("{config:?}"), format!("{defaults:?}"));
}

#[test]
fn a_value_may_come_from_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).expect("it can be written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let token = file("token", b"secret\n");
    let config = from(&[("API_TOKEN_FILE", &token)]).expect("valid");
    assert!(config.http.api_token == Some(Secret("secret".to_owned())));
    let index = from(&[("PIP_INDEX_URL_FILE", &token)]).expect("valid");
    assert!(index.builds.environment == [("PIP_INDEX_URL".to_owned(), Secret("secret".to_owned()))]);
    let empty = file("empty", b"\n");
    assert!(from(&[("API_TOKEN_FILE", &empty)]).expect("valid").http.api_token.is_none());
    let error = from(&[("API_TOKEN_FILE", &token), ("API_TOKEN", "x")]).expect_err("both are set").to_string();
    assert!(error.starts_with("API_TOKEN_FILE is") && error.contains("no API_TOKEN beside it"), "{error}");
    let missing = folder.path().join("missing");
    for path in [missing.to_str().expect("UTF-8"), &file("long", &[b'x'; 70_000]), &file("binary", b"\xff")] {
        check_refused("API_TOKEN_FILE", path);
    }
    let error = from(&[("SERVER_PORT_FILE", &file("port", b"x"))]).expect_err("not a port");
    assert_eq!((error.variable.as_str(), error.value.as_str()), ("SERVER_PORT", "x"));
}

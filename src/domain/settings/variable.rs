//! Rules for environment variables of inputs and settings.

/// Largest value, in bytes.
pub const MAX_VALUE: usize = 64 << 10;

/// Whether a text can be a variable's name: letters, digits and `_`, not a digit first.
pub fn is_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts_well && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether the variable belongs to the platform or to the language's runtime.
pub fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 11] = [
        "PATH",
        "HOME",
        "TMPDIR",
        "GODEBUG",
        "GOGC",
        "GOMAXPROCS",
        "GOMEMLIMIT",
        "GOTRACEBACK",
        "FUNCTION_ID",
        "FUNCTION_NAME",
        "INVOCATION_ID",
    ];
    NAMES.contains(&name) || name.starts_with("LD_") || name.starts_with("PYTHON")
}

/// The variables that name proxies. Where a function has a network, the variables belong to the platform.
pub const PROXIES: [&str; 8] =
    ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"];

/// Whether a function's own settings may have a variable that is reserved otherwise: many Python projects set this one,
/// and the variable changes nothing, as output is line-buffered anyway.
pub fn is_settable(name: &str) -> bool {
    name == "PYTHONUNBUFFERED"
}

//! Which functions take slots. Pure.

use crate::config::{PreloadLimit, Sandbox};
use crate::domain::{Language, Preload};
use crate::functions::Function;

/// The variable that changes nothing, although its name begins with [`EARLY`].
const HARMLESS: &str = "PYTHONUNBUFFERED";
/// The beginnings of the names of variables that something may read in a slot before there is a function, and in
/// another instance only after the function's variables are set. The common modules of Python 3.13 and the libraries
/// below read the variables of the first line when they are imported, which a library that notes all calls of `getenv`
/// shows: `OPENSSL_CONF` and `OPENSSL_ia32cap`, `SQLITE_TMPDIR` and `TMPDIR`, `_PYTHON_SUBPROCESS_USE_...`. Other
/// versions of these libraries may read the rest. `TZ` is not here, as the bootstrap tells the C library of a change.
/// Nor are `SSL_CERT_FILE` and the like, which are read at each use.
const EARLY: [&str; 12] = [
    "OPENSSL", "SQLITE", "TMPDIR", "PYTHON", "_PYTHON", //
    "LANG", "LC_", "LOCPATH", "LD_", "MALLOC_", "GLIBC_", "GCONV_",
];

/// Why a function takes no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The function's container has limits of its own, and a slot has the operator's.
    Limits,
    /// The function has a network, and a slot has neither doors nor names.
    Network,
    /// Nothing is preloaded, so the function wants a fresh interpreter.
    NoPreload,
    /// No instance has found out yet what can be preloaded.
    NotTried,
    /// The function's environment has a variable that is read before there is a function.
    Variables,
}

/// Whether a function takes slots, as far as the function itself goes. Beside that, the function's files must be on
/// disk.
pub(super) fn check(function: &Function, sandbox: &Sandbox, limit: PreloadLimit) -> Result<(), Unfit> {
    let settings = &function.settings;
    let own = sandbox.with(settings);
    if (own.memory, own.cpus) != (sandbox.memory, sandbox.cpus) {
        return Err(Unfit::Limits);
    }
    if settings.network.is_some() {
        return Err(Unfit::Network);
    }
    if function.version.language == Language::Go {
        return Ok(());
    }
    match function.preload_plan(function.preload(limit)) {
        (Preload::Off, _) => return Err(Unfit::NoPreload),
        (_, None) => return Err(Unfit::NotTried),
        (_, Some(_)) => {}
    }
    let mut names = settings.environment.keys().chain(settings.secrets.keys());
    if names.any(|name| name != HARMLESS && EARLY.iter().any(|early| name.starts_with(early))) {
        return Err(Unfit::Variables);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::domain::settings::network::Network;
    use crate::domain::{Preloaded, Record};
    use crate::functions::example;

    const SANDBOX: Sandbox =
        Sandbox { memory: 128_000_000, cpus: 1.0, pids: 64, tmpfs: 1, runtime: None, required: false };

    #[track_caller]
    fn check(language: Language, change: impl FnOnce(&mut Record), expected: Result<(), Unfit>) {
        let mut record = example::record(language);
        record.preloaded = Some(Preloaded { asked: "auto".to_owned(), ..Preloaded::default() });
        change(&mut record);
        assert_eq!(super::check(&Function::from(record), &SANDBOX, PreloadLimit::Auto), expected);
    }

    #[test]
    fn each_reason_counts() {
        use Language::{Go, Python};
        let set = |record: &mut Record, name: &str| {
            record.settings.environment.insert(name.to_owned(), "1".to_owned());
        };
        check(Python, |_| {}, Ok(()));
        check(Go, |record| record.preloaded = None, Ok(()));
        check(Python, |record| record.settings.memory = Some(SANDBOX.memory), Ok(()));
        for language in [Python, Go] {
            check(language, |record| record.settings.memory = Some(1), Err(Unfit::Limits));
            check(language, |record| record.settings.cpus = Some(0.5), Err(Unfit::Limits));
            let network = |record: &mut Record| record.settings.network = Network::new(["a.example:443"]).ok();
            check(language, network, Err(Unfit::Network));
        }
        check(Python, |record| record.settings.preload = Some(Preload::Off), Err(Unfit::NoPreload));
        check(Python, |record| record.preloaded = None, Err(Unfit::NotTried));
        check(Python, |record| record.settings.preload = Some(Preload::Stdlib), Err(Unfit::NotTried));
        check(Python, |record| set(record, "PYTHONHASHSEED"), Err(Unfit::Variables));
        check(Python, |record| set(record, "PYTHONUNBUFFERED"), Ok(()));
        for name in ["SQLITE_TMPDIR", "_PYTHON_SUBPROCESS_USE_VFORK", "LC_ALL", "TMPDIR", "LANGUAGE", "OPENSSL_ia32cap"]
        {
            check(Python, |record| set(record, name), Err(Unfit::Variables));
        }
        for name in ["TZ", "SSL_CERT_FILE", "NAME", "TEMPLATE", "HTTP_PROXY"] {
            check(Python, |record| set(record, name), Ok(()));
        }
        check(Go, |record| set(record, "PYTHONHASHSEED"), Ok(()));
        let secret = |record: &mut Record| {
            record.settings.secrets.insert("OPENSSL_CONF".to_owned(), Secret("/x".to_owned()));
        };
        check(Python, secret, Err(Unfit::Variables));
    }
}

//! First files of functions, which people change: for the command line and the console.

/// The first files of a function.
#[derive(Clone, Copy, Debug)]
pub struct Starter {
    /// The name by which people choose the starter.
    pub name: &'static str,
    /// What the function is, for people.
    pub about: &'static str,
    /// `python` or `golang`.
    pub language: &'static str,
    /// The files by their names. The first is the file that a person changes first.
    pub files: &'static [(&'static str, &'static str)],
}

/// A program that greets, in Python.
pub const PYTHON: Starter = Starter {
    name: "python",
    about: "A program that greets",
    language: "python",
    files: &[("main.py", include_str!("../examples/python-hello/main.py"))],
};

/// A program that greets, in Go.
pub const GO_HELLO: Starter = Starter {
    name: "go-hello",
    about: "A program that greets",
    language: "golang",
    files: &[("main.go", include_str!("../examples/go-hello/main.go"))],
};

/// A web application with Flask, in Python.
pub const FLASK: Starter = Starter {
    name: "flask",
    about: "A web application with Flask",
    language: "python",
    files: &[
        ("main.py", include_str!("../examples/python-flask/main.py")),
        ("requirements.txt", include_str!("../examples/python-flask/requirements.txt")),
        ("function.toml", include_str!("../examples/python-flask/function.toml")),
    ],
};

/// An API over HTTP, in Go.
pub const GO: Starter = Starter {
    name: "go",
    about: "An API over HTTP",
    language: "golang",
    files: &[
        ("main.go", include_str!("../examples/go-http/main.go")),
        ("function.toml", include_str!("../examples/go-http/function.toml")),
    ],
};

/// A job that runs by itself at night, in Python.
pub const CRON: Starter = Starter {
    name: "cron",
    about: "A job that runs by itself at night",
    language: "python",
    files: &[
        ("main.py", include_str!("../examples/python-job/main.py")),
        ("function.toml", include_str!("../examples/python-job/function.toml")),
    ],
};

/// A receiver of GitHub's webhooks, in Python.
pub const WEBHOOK: Starter = Starter {
    name: "webhook",
    about: "A receiver of GitHub's webhooks",
    language: "python",
    files: &[
        ("main.py", include_str!("../examples/python-webhook/main.py")),
        ("function.toml", include_str!("../examples/python-webhook/function.toml")),
    ],
};

/// All starters.
pub const ALL: [Starter; 6] = [PYTHON, GO_HELLO, FLASK, GO, CRON, WEBHOOK];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_has_a_name_of_its_own_and_files() {
        for starter in ALL {
            assert_eq!(ALL.iter().filter(|other| other.name == starter.name).count(), 1, "{}", starter.name);
            assert!(starter.files[0].0.starts_with("main."), "{}", starter.name);
            assert!(starter.files.iter().all(|(_, text)| !text.is_empty()), "{}", starter.name);
        }
    }
}

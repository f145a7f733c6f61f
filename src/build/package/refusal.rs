//! Why dependencies of a Python program are not installed.

use std::fmt::{self, Display, Formatter};
use std::io;

use thiserror::Error;

/// How much text all requirement files may have together, in bytes.
pub(super) const MAX_TOTAL: usize = 8 << 20;
/// How many requirement files a program may have.
pub(super) const MAX_FILES: usize = 100;

/// Why dependencies are not installed.
#[derive(Debug, Error)]
pub enum DependencyError {
    /// A line, or an entry of a list, is refused.
    #[error("{file}, {place}: {reason}")]
    Refused {
        /// The file's path in the zip.
        file: String,
        /// The line's number, or the dependency's number in a list.
        place: String,
        /// Why the line is refused.
        reason: Refusal,
    },
    /// A file is neither UTF-8 nor UTF-16.
    #[error("{file} is not text in UTF-8, nor in UTF-16 with a byte order mark; save it as UTF-8")]
    Encoding {
        /// The file's name.
        file: String,
    },
    /// A file is too large.
    #[error("{file} has more than {limit} bytes")]
    TooLarge {
        /// The file's name.
        file: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// There are too many requirement files.
    #[error("requirements.txt and the files that it names are more than {MAX_FILES} files")]
    TooMany,
    /// The requirement files are too large together.
    #[error("requirements.txt and the files that it names have more than {MAX_TOTAL} bytes together")]
    TooLargeTogether,
    /// A dependency comes from a folder: a package of an index would be installed in its place.
    #[error(
        "pyproject.toml: `[tool.uv.sources]` takes {0:?} from a folder or from the workspace, and only packages of \
         an index are installed; modules of the zip can be imported as they are, so leave {0:?} out of `dependencies`"
    )]
    LocalSource(String),
    /// The `pyproject.toml` is not TOML, or does not follow the standard.
    #[error("pyproject.toml: {0}")]
    Project(String),
    /// The dependencies are dynamic: only a build backend, which is not run, knows the dependencies.
    #[error(
        "pyproject.toml: `dependencies` is among `dynamic`, so that only the project's build backend, which is not \
         run, knows the dependencies; list them in `dependencies`, or in a requirements.txt"
    )]
    Dynamic,
    /// A file of the package could not be read.
    #[error("failed to read the package")]
    Io(#[from] io::Error),
}

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An editable requirement: `-e`.
    Editable,
    /// A file or folder in place of a package.
    Local(String),
    /// A `${`, in whose place an installer would put a variable's value.
    Variable,
    /// A requirement file at a URL.
    Remote,
    /// A requirement file that the zip does not have.
    Missing(String),
    /// A requirement file outside the zip.
    Outside(String),
    /// A requirement file whose path has a backslash.
    Backslash(String),
    /// `--trusted-host`, a host whose certificates are not checked.
    TrustedHost,
    /// Several options in one line.
    Several,
    /// A control character, which some programs take for the end of a line.
    Control(char),
    /// An entry of a list that is not one requirement.
    NotARequirement,
    /// An option that requirement files do not have, or that only builds use.
    Option(String),
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Editable => f.write_str(
                "an editable requirement builds a project, which runs the project's code; modules of the zip can be \
                 imported as they are, so leave the line out, and list the packages that the project itself needs",
            ),
            Self::Local(what) => write!(
                f,
                "{what:?} is a file or folder, and only packages of an index or at an http or https URL are installed; \
                 modules of the zip can be imported as they are"
            ),
            Self::Variable => {
                f.write_str("`${` would be replaced by a variable of the service; write the value itself")
            }
            Self::Remote => f.write_str("the requirement file is at a URL; put it into the zip"),
            Self::Missing(name) => write!(f, "the zip has no file {name:?}"),
            Self::Outside(name) => write!(f, "{name:?} is outside the zip"),
            Self::Backslash(name) => write!(f, "{name:?} has a backslash; write {:?}", name.replace('\\', "/")),
            Self::TrustedHost => f.write_str(
                "`--trusted-host` would turn the check of certificates off, which only the service may do; leave the \
                 option out",
            ),
            Self::Several => f.write_str("there are several options in one line; give each a line of its own"),
            Self::Control(c) => {
                write!(f, "there is a control character ({}); save the file as plain text", c.escape_unicode())
            }
            Self::NotARequirement => f.write_str("this is not one requirement"),
            Self::Option(name) => write!(f, "the option {name:?} is not known; leave the option out"),
        }
    }
}

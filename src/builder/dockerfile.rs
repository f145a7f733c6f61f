//! The Dockerfile of a function. Pure.

use uuid::Uuid;

use super::{CODE_FOLDER, PACKAGE_FOLDER};
use crate::docker::label;
use crate::package::Program;

/// Where a function's own package is found, by a link to `/app`: the bootstrap puts the folder at the end of `sys.path`.
const PACKAGES: &str = "/opt/youtube-serverless/packages";

/// Renders it. The platform's label comes first, so that what a cancelled or failed build leaves bears it.
pub(super) fn render(program: &Program, runtime: &str, platform: Uuid, allow_source_builds: bool) -> String {
    let label = format!("LABEL {}={platform}", label::PLATFORM);
    match program {
        Program::Python { entry, requirements, package } => {
            let wheels_only = if allow_source_builds { "" } else { " --only-binary :all:" };
            python(runtime, &label, (entry, package.as_deref()), requirements.then_some(wheels_only))
        }
        Program::Go { module } => go(runtime, &label, *module),
    }
}

/// `requirements` are pip's options for them, if there are any.
fn python(runtime: &str, label: &str, (entry, package): (&str, Option<&str>), requirements: Option<&str>) -> String {
    let mut lines = vec![format!("FROM {runtime}"), label.to_owned()];
    if let Some(options) = requirements {
        // A layer of its own, before the code: built anew only when the requirements change.
        lines.push(format!("COPY {CODE_FOLDER}/requirements.txt /app/"));
        lines.push(format!(
            "RUN PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 \
             python3 -I -m pip install --no-input --no-cache-dir --progress-bar off{options} -r /app/requirements.txt"
        ));
    }
    lines.push(format!("COPY {CODE_FOLDER}/ /app/"));
    // At run time nothing can be written, so modules are compiled now. A file that does not compile may stay unused, and the
    // build's log names the file. Neither the working directory nor an installed package may run here: `-I` and `-S`.
    lines.push("RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true".to_owned());
    if package.is_some() {
        lines.push(format!("COPY {PACKAGE_FOLDER}/ {PACKAGES}/"));
    }
    let arguments: Vec<&str> = [entry].into_iter().chain(package).collect();
    let arguments = serde_json::to_string(&arguments).expect("strings can be written as JSON");
    lines.push(format!("CMD {arguments}\n"));
    lines.join("\n")
}

/// The exit status of a step that finds another package than `main` in the zip's root.
pub(super) const NOT_MAIN: i32 = 43;

/// The package's name comes from the toolchain, which knows build constraints. `timetzdata` embeds the time zones: the final
/// image has no files but the function's own and the certificates.
fn go(runtime: &str, label: &str, module: bool) -> String {
    let init = if module { "" } else { "go mod init function && " };
    let check = format!(
        "name=$(go list -f '{{{{.Name}}}}' .) && \
         if [ \"$name\" != main ]; then echo \"package $name\"; exit {NOT_MAIN}; fi"
    );
    [
        format!("FROM {runtime} AS build"),
        label.to_owned(),
        "WORKDIR /app".to_owned(),
        format!("COPY {CODE_FOLDER}/ /app/"),
        format!("RUN go version && {init}{check} && go build -ldflags=-s -tags=timetzdata -o /out/function ."),
        "FROM scratch".to_owned(),
        label.to_owned(),
        format!("COPY {CODE_FOLDER}/ /app/"),
        "COPY --from=build /out/ /".to_owned(),
        "ENV HOME=/tmp TMPDIR=/tmp".to_owned(),
        "WORKDIR /app".to_owned(),
        "ENTRYPOINT [\"/bootstrap\", \"/function\"]\n".to_owned(),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(program: &Program) -> String {
        render(program, "runtime:tag", Uuid::nil(), false)
    }

    #[test]
    fn python_alone() {
        let program = Program::Python { entry: "main.py".to_owned(), requirements: false, package: None };
        let expected = r#"FROM runtime:tag
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
COPY app/ /app/
RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true
CMD ["main.py"]
"#;
        assert_eq!(rendered(&program), expected);
    }

    #[test]
    fn python_with_all() {
        let program = Program::Python { entry: "my \"app\".py".to_owned(), requirements: true, package: None };
        let expected = r#"FROM runtime:tag
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
COPY app/requirements.txt /app/
RUN PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 python3 -I -m pip install --no-input --no-cache-dir --progress-bar off --only-binary :all: -r /app/requirements.txt
COPY app/ /app/
RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true
CMD ["my \"app\".py"]
"#;
        assert_eq!(rendered(&program), expected);
    }

    #[test]
    fn a_package_of_its_own_can_be_imported() {
        let package = Some("my_app".to_owned());
        let program = Program::Python { entry: "__main__.py".to_owned(), requirements: false, package };
        let rendered = rendered(&program);
        assert!(rendered.contains("\nCOPY package/ /opt/youtube-serverless/packages/\n"), "{rendered}");
        assert!(rendered.ends_with("CMD [\"__main__.py\",\"my_app\"]\n"), "{rendered}");
    }

    #[test]
    fn go_with_and_without_a_module() {
        let expected = r#"FROM runtime:tag AS build
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
WORKDIR /app
COPY app/ /app/
RUN go version && go mod init function && name=$(go list -f '{{.Name}}' .) && if [ "$name" != main ]; then echo "package $name"; exit 43; fi && go build -ldflags=-s -tags=timetzdata -o /out/function .
FROM scratch
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
COPY app/ /app/
COPY --from=build /out/ /
ENV HOME=/tmp TMPDIR=/tmp
WORKDIR /app
ENTRYPOINT ["/bootstrap", "/function"]
"#;
        assert_eq!(rendered(&Program::Go { module: false }), expected);
        let with_module = rendered(&Program::Go { module: true });
        assert!(with_module.contains(" go build ") && !with_module.contains("go mod init"), "{with_module}");
    }
}

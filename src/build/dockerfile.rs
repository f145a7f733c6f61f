//! Renders the Dockerfile of a function's image. Pure.

use super::{CODE_FOLDER, PACKAGE_FOLDER};
use crate::build::package::Program;
use crate::docker::label;

/// The folder in which Python finds a function's own package, as a symbolic link to `/app`. The bootstrap puts the
/// folder at the end of `sys.path`.
const OWN_PACKAGE: &str = "/opt/youtube-serverless/packages";

/// The labels of a function's image, as names and values.
pub(super) type Labels = [(&'static str, String)];

/// Renders the Dockerfile. `base` is a runtime image, or an image with packages, which are in the folder `place`. The
/// labels are the first step of each stage, so that the leftovers of a cancelled or failed build bear the platform's
/// label. The labels are one step, because the classic builder makes a container and a layer for each step.
pub(super) fn render(program: &Program, base: &str, place: Option<&str>, platform: &str, labels: &Labels) -> String {
    let platform = format!("LABEL {}={platform}", label::PLATFORM);
    let labels: String = labels.iter().map(|(name, value)| format!(" {name}={}", quoted(value))).collect();
    let labels = format!("{platform}{labels}");
    match program {
        Program::Python { entry, package, .. } => python(base, place, labels, (entry, package.as_deref())),
        Program::Go { module, .. } => go(base, place, (platform, labels), *module),
    }
}

/// Quotes a label's value, so that the builder changes nothing in the value.
fn quoted(value: &str) -> String {
    let escaped: String =
        value.chars().flat_map(|c| matches!(c, '"' | '\\' | '$').then_some('\\').into_iter().chain([c])).collect();
    format!("\"{escaped}\"")
}

fn python(base: &str, place: Option<&str>, labels: String, (entry, package): (&str, Option<&str>)) -> String {
    let mut lines = vec![format!("FROM {base}"), labels];
    // The commands of installed packages come last in PATH: no command of a package may run in place of a system
    // command.
    lines.extend(place.map(|place| format!("ENV PATH=$PATH:{place}/bin")));
    lines.push(format!("COPY {CODE_FOLDER}/ /app/"));
    // The root filesystem is read-only at run time, so modules are compiled now. A file that does not compile may stay
    // unused: the step succeeds, and the build's log names the file. A step from the builder's cache would print
    // nothing, but the version's labels come before, so the step runs for each version. The options `-I` and `-S` keep
    // the working directory and installed packages from running code here.
    lines.push("RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true".to_owned());
    if package.is_some() {
        lines.push(format!("COPY {PACKAGE_FOLDER}/ {OWN_PACKAGE}/"));
    }
    let arguments: Vec<&str> = [entry].into_iter().chain(package).collect();
    let arguments = serde_json::to_string(&arguments).expect("strings can be written as JSON");
    lines.push(format!("CMD {arguments}\n"));
    lines.join("\n")
}

/// The exit status of the build step when the Go package in the zip's root is not `main`.
pub(super) const NOT_MAIN: i32 = 43;

/// The package's name comes from the toolchain, which knows build constraints. `timetzdata` embeds the time zones,
/// because the final image has no time zone files.
fn go(base: &str, place: Option<&str>, (platform, labels): (String, String), module: bool) -> String {
    let cache = place.map(|place| format!(" GOMODCACHE={place}")).unwrap_or_default();
    let init = if module { "" } else { "go mod init function && " };
    let check = format!(
        "name=$(go list -f '{{{{.Name}}}}' .) && \
         if [ \"$name\" != main ]; then echo \"package $name\"; exit {NOT_MAIN}; fi"
    );
    [
        format!("FROM {base} AS build"),
        platform,
        "WORKDIR /app".to_owned(),
        format!("COPY {CODE_FOLDER}/ /app/"),
        // All modules are downloaded by now: `GOPROXY=off` forbids further downloads.
        format!(
            "RUN export GOPROXY=off{cache} && go version && {init}{check} && \
             within-memory go build -ldflags=-s -tags=timetzdata -o /out/function ."
        ),
        "FROM scratch".to_owned(),
        labels,
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
        render(program, "runtime:tag", None, "platform", &labels())
    }

    fn labels() -> [(&'static str, String); 1] {
        [(label::FUNCTION_NAME, "a \"$b\" \\c".to_owned())]
    }

    #[test]
    fn python_alone() {
        let program = Program::Python { entry: "main.py".to_owned(), dependencies: None, package: None };
        let expected = r#"FROM runtime:tag
LABEL youtube-serverless.platform=platform youtube-serverless.function.name="a \"\$b\" \\c"
COPY app/ /app/
RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true
CMD ["main.py"]
"#;
        assert_eq!(rendered(&program), expected);
    }

    #[test]
    fn python_with_all() {
        let program = Program::Python { entry: "my \"app\".py".to_owned(), dependencies: None, package: None };
        let expected = r#"FROM runtime:tag
LABEL youtube-serverless.platform=platform youtube-serverless.function.name="a \"\$b\" \\c"
COPY app/ /app/
RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true
CMD ["my \"app\".py"]
"#;
        assert_eq!(rendered(&program), expected);
    }

    #[test]
    fn a_package_of_its_own_can_be_imported() {
        let package = Some("my_app".to_owned());
        let program = Program::Python { entry: "__main__.py".to_owned(), dependencies: None, package };
        let rendered = rendered(&program);
        assert!(rendered.contains("\nCOPY package/ /opt/youtube-serverless/packages/\n"), "{rendered}");
        assert!(rendered.ends_with("CMD [\"__main__.py\",\"my_app\"]\n"), "{rendered}");
    }

    #[test]
    fn packages_come_after_what_the_system_has() {
        let program = Program::Python { entry: "main.py".to_owned(), dependencies: None, package: None };
        let text = render(&program, "packages:tag", Some("/usr/lib/site"), "platform", &labels());
        assert!(
            text.starts_with("FROM packages:tag\n") && text.contains("\nENV PATH=$PATH:/usr/lib/site/bin\nCOPY "),
            "{text}"
        );
        let program = Program::Go { module: true, modules: Vec::new() };
        let text = render(&program, "packages:tag", Some("/modules"), "platform", &labels());
        assert!(text.contains("\nRUN export GOPROXY=off GOMODCACHE=/modules && "), "{text}");
    }

    #[test]
    fn go_with_and_without_a_module() {
        let expected = "FROM runtime:tag AS build\n\
            LABEL youtube-serverless.platform=platform\n\
            WORKDIR /app\n\
            COPY app/ /app/\n\
            RUN export GOPROXY=off && go version && go mod init function && name=$(go list -f '{{.Name}}' .) && \
            if [ \"$name\" != main ]; then echo \"package $name\"; exit 43; fi && \
            within-memory go build -ldflags=-s -tags=timetzdata -o /out/function .\n\
            FROM scratch\n\
            LABEL youtube-serverless.platform=platform \
            youtube-serverless.function.name=\"a \\\"\\$b\\\" \\\\c\"\n\
            COPY app/ /app/\n\
            COPY --from=build /out/ /\n\
            ENV HOME=/tmp TMPDIR=/tmp\n\
            WORKDIR /app\n\
            ENTRYPOINT [\"/bootstrap\", \"/function\"]\n";
        assert_eq!(rendered(&Program::Go { module: false, modules: Vec::new() }), expected);
        let with_module = rendered(&Program::Go { module: true, modules: Vec::new() });
        assert!(with_module.contains(" go build ") && !with_module.contains("go mod init"), "{with_module}");
    }
}

//! The Dockerfile of a function. Pure.

use uuid::Uuid;

use super::CODE_FOLDER;
use crate::docker::label;
use crate::package::Program;

/// Renders it upon `base`, a runtime image or one with packages, which are in `place`. The platform's label comes first, so that what a cancelled or
/// failed build leaves bears it.
pub(super) fn render(program: &Program, base: &str, place: Option<&str>, platform: Uuid) -> String {
    let label = format!("LABEL {}={platform}", label::PLATFORM);
    match program {
        Program::Python { entry, modules, .. } => python(base, place, &label, entry, *modules),
        Program::Go { module, .. } => go(base, place, &label, *module),
    }
}

fn python(base: &str, place: Option<&str>, label: &str, entry: &str, modules: bool) -> String {
    let mut lines = vec![format!("FROM {base}"), label.to_owned()];
    // Commands of packages come after all others: none of theirs is run in place of one of the system's.
    lines.extend(place.map(|place| format!("ENV PATH=$PATH:{place}/bin")));
    lines.push(format!("COPY {CODE_FOLDER}/ /app/"));
    if modules {
        // At run time nothing can be written, so what is imported is compiled now; a file that doesn't compile may stay unused.
        // Neither the folder it is started in nor what packages have installed may run here: `-I` and `-S`.
        lines.push("RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true".to_owned());
    }
    let entry = serde_json::to_string(&[entry]).expect("a string can be written as JSON");
    lines.push(format!("CMD {entry}\n"));
    lines.join("\n")
}

fn go(base: &str, place: Option<&str>, label: &str, module: bool) -> String {
    let cache = place.map(|place| format!("GOMODCACHE={place} ")).unwrap_or_default();
    let init = if module { "" } else { "go mod init function && " };
    [
        format!("FROM {base} AS build"),
        label.to_owned(),
        "WORKDIR /app".to_owned(),
        format!("COPY {CODE_FOLDER}/ /app/"),
        // What is not here by now is not to be had.
        format!("RUN {init}{cache}GOPROXY=off go build -ldflags=-s -o /out/function ."),
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
        render(program, "runtime:tag", None, Uuid::nil())
    }

    #[test]
    fn python_alone() {
        let program = Program::Python { entry: "main.py".to_owned(), dependencies: None, modules: false };
        let expected = r#"FROM runtime:tag
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
COPY app/ /app/
CMD ["main.py"]
"#;
        assert_eq!(rendered(&program), expected);
    }

    #[test]
    fn python_with_all() {
        let program = Program::Python { entry: "my \"app\".py".to_owned(), dependencies: None, modules: true };
        let expected = r#"FROM runtime:tag
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
COPY app/ /app/
RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true
CMD ["my \"app\".py"]
"#;
        assert_eq!(rendered(&program), expected);
    }

    #[test]
    fn packages_come_after_what_the_system_has() {
        let program = Program::Python { entry: "main.py".to_owned(), dependencies: None, modules: false };
        let text = render(&program, "packages:tag", Some("/usr/lib/site"), Uuid::nil());
        assert!(text.starts_with("FROM packages:tag\n") && text.contains("\nENV PATH=$PATH:/usr/lib/site/bin\nCOPY "), "{text}");
        let program = Program::Go { module: true, modules: Vec::new() };
        let text = render(&program, "packages:tag", Some("/modules"), Uuid::nil());
        assert!(text.contains("\nRUN GOMODCACHE=/modules GOPROXY=off go build "), "{text}");
    }

    #[test]
    fn go_with_and_without_a_module() {
        let expected = r#"FROM runtime:tag AS build
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
WORKDIR /app
COPY app/ /app/
RUN go mod init function && GOPROXY=off go build -ldflags=-s -o /out/function .
FROM scratch
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
COPY app/ /app/
COPY --from=build /out/ /
ENV HOME=/tmp TMPDIR=/tmp
WORKDIR /app
ENTRYPOINT ["/bootstrap", "/function"]
"#;
        assert_eq!(rendered(&Program::Go { module: false, modules: Vec::new() }), expected);
        let with_module = rendered(&Program::Go { module: true, modules: Vec::new() });
        assert!(with_module.contains("\nRUN GOPROXY=off go build ") && !with_module.contains("go mod init"), "{with_module}");
    }
}

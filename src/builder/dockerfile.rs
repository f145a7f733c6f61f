//! The Dockerfile of a function. Pure.

use uuid::Uuid;

use super::CODE_FOLDER;
use crate::docker::label;
use crate::package::Program;

/// Renders it. The platform's label comes first, so that what a cancelled or failed build leaves bears it.
pub(super) fn render(program: &Program, runtime: &str, platform: Uuid, allow_source_builds: bool) -> String {
    let label = format!("LABEL {}={platform}", label::PLATFORM);
    match program {
        Program::Python { entry, requirements, modules } => {
            let wheels_only = if allow_source_builds { "" } else { " --only-binary :all:" };
            python(runtime, &label, entry, requirements.then_some(wheels_only), *modules)
        }
        Program::Go { module } => go(runtime, &label, *module),
    }
}

/// `requirements` are pip's options for them, if there are any.
fn python(runtime: &str, label: &str, entry: &str, requirements: Option<&str>, modules: bool) -> String {
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
    if modules {
        // At run time nothing can be written, so what is imported is compiled now; a file that doesn't compile may stay unused.
        // Neither the folder it is started in nor what packages have installed may run here: `-I` and `-S`.
        lines.push("RUN python3 -I -S -m compileall -q --invalidation-mode unchecked-hash /app || true".to_owned());
    }
    let entry = serde_json::to_string(&[entry]).expect("a string can be written as JSON");
    lines.push(format!("CMD {entry}\n"));
    lines.join("\n")
}

fn go(runtime: &str, label: &str, module: bool) -> String {
    let init = if module { "" } else { "go mod init function && " };
    [
        format!("FROM {runtime} AS build"),
        label.to_owned(),
        "WORKDIR /app".to_owned(),
        format!("COPY {CODE_FOLDER}/ /app/"),
        format!("RUN {init}go build -ldflags=-s -o /out/function ."),
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
        let program = Program::Python { entry: "main.py".to_owned(), requirements: false, modules: false };
        let expected = r#"FROM runtime:tag
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
COPY app/ /app/
CMD ["main.py"]
"#;
        assert_eq!(rendered(&program), expected);
    }

    #[test]
    fn python_with_all() {
        let program = Program::Python { entry: "my \"app\".py".to_owned(), requirements: true, modules: true };
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
    fn go_with_and_without_a_module() {
        let expected = r#"FROM runtime:tag AS build
LABEL youtube-serverless.platform=00000000-0000-0000-0000-000000000000
WORKDIR /app
COPY app/ /app/
RUN go mod init function && go build -ldflags=-s -o /out/function .
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
        assert!(with_module.contains("\nRUN go build ") && !with_module.contains("go mod init"), "{with_module}");
    }
}

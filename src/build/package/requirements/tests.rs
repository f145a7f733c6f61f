use super::*;

fn of(files: &[(&str, &str)]) -> Result<Requirements, DependencyError> {
    let text = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, text)| (*text).to_owned());
    of_files(&|name| Ok(text(name).unwrap()), &|name| text(name).is_some(), "requirements.txt")
}

#[track_caller]
fn text_of(text: &str) -> String {
    of(&[("requirements.txt", text)]).unwrap().files.remove(0).text
}

#[track_caller]
fn refusal_of(line: &str) -> Refusal {
    match of(&[("requirements.txt", &format!("six\n\n{line}\n"))]) {
        Err(DependencyError::Refused { file, place, reason }) => {
            assert_eq!((file.as_str(), place.as_str()), ("requirements.txt", "line 3"), "{line}");
            reason
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn what_tools_write_is_kept() {
    for good in [
        "six",
        "requests[socks] >= 2.8.1, == 2.8.* ; python_version < \"3.13\"",
        "--index-url https://pypi.example.org/simple",
        "--find-links https://example.org/wheels/",
        "--only-binary :all:",
        "--no-binary=six",
        "--no-index",
        "six @ https://example.org/six-1.16.0-py2.py3-none-any.whl",
        "six[a,b]@https://example.org/six-1.16.0-py2.py3-none-any.whl ; python_version > '3'",
        "https://example.org/six-1.16.0-py2.py3-none-any.whl#sha256=8abb",
        "git+https://example.org/x.git",
        "six =! 1",
    ] {
        assert_eq!(text_of(good), format!("{good}\n"));
    }
}

#[test]
fn comments_go_and_lines_that_continue_become_one() {
    let exported = "six==1.16.0 ; \
        python_version >= \"3.8\" \\\n    --hash=sha256:8a \\\n    --hash=sha256:8b\n    # via x\nattrs  # a\n";
    let expected = "six==1.16.0 ; python_version >= \"3.8\"     --hash=sha256:8a     --hash=sha256:8b\n\n\n\nattrs\n";
    assert_eq!(text_of(exported), expected);
    assert_eq!(text_of("# ${HOME}\nsix # ${HOME}\nx@https://e.org/a#b"), "\nsix\nx@https://e.org/a#b\n");
    assert_eq!(text_of("six\\"), "six\n");
}

#[test]
fn what_runs_code_or_reads_files_is_refused_with_its_reason() {
    for line in ["-e .", "-e./x", "--editable=git+https://example.org/x.git", "--editable .", "-\\\ne ."] {
        assert_eq!(refusal_of(line), Refusal::Editable, "{line}");
    }
    for line in [
        "./local",
        "../up",
        ".",
        "~/x",
        "/app/pkg",
        "pkg/",
        "pkg\\",
        "x.whl",
        "x.whl[extra]",
        "x.tar.gz ; python_version > '3'",
        "C:\\x",
        "file:///app/x.tar.gz",
        "FILE:x",
        "file:x.whl",
        "git+file:///app/x",
        "name @ file:///etc/passwd",
        "name[a]@ ./x",
        "name @ x.whl",
        "--find-links ./wheels",
        "--index-url=file:///x",
        "-f wheels",
        "-i \"file:///x\"",
    ] {
        // A backslash at the end of a line is no part of a path.
        if line != "pkg\\" {
            assert!(matches!(refusal_of(line), Refusal::Local(_)), "{line}");
        }
    }
    for line in
        ["six ; '${HOME}'", "https://example.org/${HOME}.whl", "--index-url https://${USER}@x.org", "$\\\n{HOME}"]
    {
        assert_eq!(refusal_of(line), Refusal::Variable, "{line}");
    }
    for line in ["--pre -e .", "--no-binary :all: --editable .", "--index-url https://x.org -e ."] {
        assert_eq!(refusal_of(line), Refusal::Several, "{line}");
    }
    for line in ["six\u{c}-e .", "six\u{b}-e .", "six\u{85}-e .", "six \u{2028}-e .", "\u{feff}-e .", "six\0"] {
        assert!(matches!(refusal_of(line), Refusal::Control(_)), "{line}");
    }
}

#[test]
fn options_are_known_or_refused() {
    let found =
        of(&[("requirements.txt", "--require-hashes\n--prefer-binary\n--use-feature x\nsix\n\n--no-binary six\n")])
            .unwrap();
    assert_eq!(found.files[0].text, "\n\n\nsix\n\n--no-binary six\n");
    assert!(found.require_hashes && !found.prereleases);
    assert_eq!(refusal_of("--trusted-host example.org"), Refusal::TrustedHost);
    assert_eq!(found.source_builds.as_deref(), Some("requirements.txt, line 6"));
    for line in
        ["--foo", "-x", "six --config-settings=a=b", "six --no-binary :all:", "six --global-option x", "--no-build"]
    {
        assert!(matches!(refusal_of(line), Refusal::Option(_)), "{line}");
    }
}

#[test]
fn files_that_are_named_are_read_once() {
    let files = [
        (
            "requirements.txt",
            "-r requirements/base.txt\n-c constraints.txt\n--requirement=requirements/dev.txt\nattrs\n",
        ),
        ("requirements/base.txt", "-r ../requirements.txt\nsix\n--pre\n"),
        ("requirements/dev.txt", "-r base.txt\n-c ../constraints.txt\n"),
        ("constraints.txt", "-c constraints.txt\nsix==1.16.0\n"),
    ];
    let found = of(&files).unwrap();
    let mut listed: Vec<(&str, Role, &str)> =
        found.files.iter().map(|file| (file.name.as_str(), file.role, file.text.as_str())).collect();
    listed.sort_by_key(|file| file.0);
    let expected = [
        ("constraints.txt", Role::Constraints, "\nsix==1.16.0\n"),
        ("requirements.txt", Role::Requirements, "\n\n\nattrs\n"),
        ("requirements/base.txt", Role::Requirements, "\nsix\n"),
        ("requirements/dev.txt", Role::Requirements, ""),
    ];
    assert_eq!(listed, expected);
    assert!(found.prereleases && !found.is_empty());
}

#[test]
fn files_outside_the_zip_are_refused() {
    for outside in ["-r ../../etc/passwd", "-r /etc/passwd", "-c ../x", "-r a/../../x"] {
        assert!(matches!(refusal_of(outside), Refusal::Outside(_)), "{outside}");
    }
    let backslash = refusal_of("-r requirements\\base.txt");
    assert!(backslash.to_string().ends_with("write \"requirements/base.txt\""), "{backslash}");
    for missing in ["-r missing.txt", "-cmissing.txt", "--requirement missing.txt", "-r"] {
        assert!(matches!(refusal_of(missing), Refusal::Missing(_)), "{missing}");
    }
    for remote in ["-r https://example.org/x.txt", "--constraint=http://example.org/x.txt"] {
        assert_eq!(refusal_of(remote), Refusal::Remote, "{remote}");
    }
}

#[test]
fn names_of_files_end_somewhere() {
    let texts: Vec<(String, String)> = (0..=MAX_FILES).map(|n| (format!("{n}"), format!("-r {}\n", n + 1))).collect();
    let mut files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.push(("requirements.txt", "-r 0\n"));
    assert!(matches!(of(&files), Err(DependencyError::TooMany)));
}

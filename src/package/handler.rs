//! Whether a Python program only defines a handler, as other platforms call one, and does nothing when it is run. Pure.

/// Names of functions that other platforms, or people, call from outside.
const HANDLERS: [&str; 4] = ["lambda_handler", "handler", "handle", "main"];

/// The warning about an entry file whose handler nothing calls; None when the file uses the name beside its definition.
pub(super) fn warning(entry: &str, source: &str) -> Option<String> {
    let handler = HANDLERS.into_iter().find(|name| is_defined(source, name) && !is_used(source, name))?;
    Some(format!(
        "{entry} defines `{handler}`, and nothing calls it: a function is run as a program, with its input on stdin and in the \
         environment. Add at the end: if __name__ == \"__main__\": ..., which calls `{handler}` and prints the result."
    ))
}

fn is_defined(source: &str, name: &str) -> bool {
    source.lines().any(|line| {
        let definition = line.strip_prefix("async ").unwrap_or(line).trim_start();
        let rest = line.starts_with(['d', 'a']).then_some(definition).and_then(|line| line.strip_prefix("def "));
        rest.and_then(|rest| rest.trim_start().strip_prefix(name)).is_some_and(|rest| rest.trim_start().starts_with('('))
    })
}

/// Whether the name stands anywhere but behind `def`, outside comments.
fn is_used(source: &str, name: &str) -> bool {
    source.lines().map(|line| line.split('#').next().unwrap_or_default()).any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let is_whole = !before.ends_with(is_word) && !after.starts_with(is_word);
            is_whole && before.trim_end() != "def" && before.trim_end() != "async def"
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_nothing_calls_is_noticed() {
        for source in [
            "def lambda_handler(event, context):\n    return {'statusCode': 200}\n",
            "import json\n\nasync def handler(event):\n    pass  # handler is called by the platform\n",
            "def main ():\n    print('x')\n",
        ] {
            assert!(warning("main.py", source).is_some_and(|text| text.starts_with("main.py defines `")), "{source}");
        }
    }

    #[test]
    fn a_program_that_calls_its_handler_is_no_matter() {
        for source in [
            "def lambda_handler(event, context):\n    pass\n\nprint(lambda_handler({}, None))\n",
            "def main():\n    pass\n\nif __name__ == '__main__':\n    main()\n",
            "def main():\n    pass\n\nmain()\n",
            "class A:\n    def handler(self):\n        pass\n\nprint('x')\n",
            "def handler(event):\n    pass\n\nrun(on=handler)\n",
            "print('hello')\n",
        ] {
            assert_eq!(warning("main.py", source), None, "{source}");
        }
    }
}

//! Finds out whether a Python program only defines a handler, as other platforms call such a function, and does nothing
//! when run as a program. Pure.

/// Names of functions that other platforms, or people, call from outside.
const HANDLERS: [&str; 4] = ["lambda_handler", "handler", "handle", "main"];
/// The quotes around a Python string, the longer quotes first.
const QUOTES: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];

/// The warning about an entry file whose handler nothing calls. None when the file uses the handler's name outside the
/// definition.
pub(super) fn warning(entry: &str, source: &str) -> Option<String> {
    let code = without_texts(source);
    let handler = HANDLERS.into_iter().find(|name| is_defined(&code, name) && !is_used(&code, name))?;
    Some(format!(
        "{entry} defines `{handler}`, and nothing calls it: a function is run as a program, with its input on stdin \
         and in the environment. Add at the end: if __name__ == \"__main__\": ..., which calls `{handler}` and prints \
         the result."
    ))
}

/// The source without comments and without the content of strings.
fn without_texts(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find(['"', '\'', '#']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        match QUOTES.into_iter().find(|quote| rest.starts_with(quote)) {
            Some(quote) => {
                code.push_str("''");
                rest = after_text(&rest[quote.len()..], quote);
            }
            None => rest = rest.find('\n').map_or("", |end| &rest[end..]),
        }
    }
    code + rest
}

/// The source after a string that ends with `quote`. A backslash escapes the next character.
fn after_text<'a>(text: &'a str, quote: &str) -> &'a str {
    let mut is_escaped = false;
    for (at, character) in text.char_indices() {
        if !is_escaped && text[at..].starts_with(quote) {
            return &text[at + quote.len()..];
        }
        is_escaped = !is_escaped && character == '\\';
    }
    ""
}

/// Whether the handler is defined at the top level without a decorator. A decorator gives the handler to a framework,
/// which calls the handler.
fn is_defined(code: &str, name: &str) -> bool {
    let mut is_decorated = false;
    code.lines().any(|line| {
        let definition = line.strip_prefix("async ").unwrap_or(line).strip_prefix("def ").map(str::trim_start);
        let is_function =
            definition.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.trim_start().starts_with('('));
        let is_found = is_function && !is_decorated || is_lambda(line, name);
        is_decorated = line.starts_with('@') || is_decorated && definition.is_none();
        is_found
    })
}

fn is_lambda(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with("= lambda"))
}

/// Whether the name occurs outside the handler's definition.
fn is_used(code: &str, name: &str) -> bool {
    code.lines().any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let is_whole = !before.ends_with(is_word) && !after.starts_with(is_word);
            let is_definition = matches!(before.trim_end(), "def" | "async def") || at == 0 && is_lambda(line, name);
            is_whole && !is_definition
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
            "'''A doc of handler.'''\ndef handler(event):\n    print(\"handler called\", 'it\\'s # handler')\n",
            "lambda_handler = lambda event, context: {}\n",
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
            "@app.route('/')\ndef handler():\n    pass\n\napp.run()\n",
            "def handler(event):\n    pass\n\nx = {'a': handler}  # 'quotes' \"here\"\n",
            "x = 'not closed\ndef handler():\n",
            "print('hello')\n",
        ] {
            assert_eq!(warning("main.py", source), None, "{source}");
        }
    }
}

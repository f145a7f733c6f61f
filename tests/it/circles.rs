//! No two files of the source import each other, directly or by way of other files.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::sources;

/// The paths in a file: the paths of `use` items, which give the file names, and the paths elsewhere in the code.
struct Paths {
    items: Vec<String>,
    code: Vec<String>,
}

type Modules = BTreeMap<String, Paths>;

#[test]
fn no_files_import_each_other_in_a_circle() {
    let modules: Modules = sources("src")
        .into_iter()
        .filter(|(name, _)| name.ends_with(".rs") && !name.ends_with("/tests.rs") && !name.contains("/tests/"))
        .map(|(name, text)| (name["src/".len()..name.len() - ".rs".len()].replace('/', "::"), paths(&text)))
        .collect();
    let mut imports: BTreeMap<&str, BTreeSet<&str>> =
        modules.keys().map(|module| (module.as_str(), imports_of(module, &modules))).collect();
    assert!(imports["sandbox::pool"].contains("sandbox::instance"), "the test reads no imports");

    // A file without imports is in no circle. Nor is a file whose imports are in no circle.
    while let Some(free) = imports.iter().find(|(_, used)| used.is_empty()).map(|(module, _)| *module) {
        imports.remove(free);
        for used in imports.values_mut() {
            used.remove(free);
        }
    }
    let Some(mut module) = imports.keys().next().copied() else { return };
    let mut way = Vec::new();
    while !way.contains(&module) {
        way.push(module);
        module = imports[module].first().unwrap();
    }
    way.push(module);
    let circle: Vec<&str> = way.into_iter().skip_while(|other| *other != module).collect();
    panic!("these files import each other in a circle: {}", circle.join(" → "));
}

/// The files that a file imports by `crate::` or `super::`. A module's use of its own parts is no import.
fn imports_of<'a>(module: &str, modules: &'a Modules) -> BTreeSet<&'a str> {
    let Paths { items, code } = &modules[module];
    items
        .iter()
        .chain(code)
        .filter(|path| path.starts_with("crate::") || path.starts_with("super::"))
        .filter_map(|path| file_of(&absolute(module, path, modules)?, modules))
        .filter(|file| *file != module)
        .collect()
}

/// The file where a path ends: the file of the last module in the path, or the file from which that module has the
/// name.
fn file_of<'a>(path: &str, modules: &'a Modules) -> Option<&'a str> {
    let ends = path.match_indices("::").map(|(end, _)| end).chain([path.len()]);
    let (file, Paths { items, .. }) = ends.filter_map(|end| modules.get_key_value(&path[..end])).last()?;
    let name = path[file.len()..].split("::").nth(1);
    let origin = items.iter().find(|item| item.rsplit("::").next() == name);
    origin.and_then(|item| file_of(&absolute(file, item, modules)?, modules)).or(Some(file))
}

/// A path from the root of the crate. A path of another crate has none.
fn absolute(module: &str, mut path: &str, modules: &Modules) -> Option<String> {
    if let Some(path) = path.strip_prefix("crate::") {
        return Some(path.to_owned());
    }
    let mut base = module;
    while let Some(rest) = path.strip_prefix("super::") {
        base = base.rsplit_once("::").map_or("", |(parent, _)| parent);
        path = rest;
    }
    let part = format!("{base}::{}", path.split("::").next()?);
    (base != module || modules.contains_key(&part))
        .then(|| format!("{base}::{path}").trim_start_matches("::").to_owned())
}

/// The paths in a file's text. Comments, a test module and a visibility like `pub(in crate::http)` have none.
fn paths(text: &str) -> Paths {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
    let lines: Vec<&str> = code.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = lines.join("\n").replace("in crate::", "");
    let starts = |word| code.match_indices(word).map(|(start, _)| start);
    let in_code = |start: &usize| !code[..*start].ends_with("use ") && !code[..*start].ends_with("super::");
    Paths {
        items: starts("use ").flat_map(|start| leaves(&code[start + "use ".len()..])).collect(),
        code: starts("crate::")
            .chain(starts("super::"))
            .filter(in_code)
            .flat_map(|start| leaves(&code[start..]))
            .collect(),
    }
}

/// The paths of the tree with which a text begins: `a::{b, c::d}` has `a::b` and `a::c::d`.
fn leaves(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut stems: Vec<String> = Vec::new();
    let mut path = String::new();
    for c in text.chars() {
        match c {
            '{' => stems.push(path.clone()),
            ',' | '}' if !stems.is_empty() => {
                found.push(path);
                stems.truncate(stems.len() - usize::from(c == '}'));
                path = stems.last().cloned().unwrap_or_default();
            }
            c if c.is_alphanumeric() || c == '_' || c == ':' => path.push(c),
            c if c.is_whitespace() && !stems.is_empty() => {}
            _ => break,
        }
    }
    found.push(path.trim_end_matches("::").to_owned());
    // After a last comma, a stem stands alone.
    found.retain(|path| !path.is_empty() && !path.ends_with("::"));
    found.iter().map(|path| path.trim_end_matches("::self").to_owned()).collect()
}

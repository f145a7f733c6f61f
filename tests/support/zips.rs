//! Zips for tests.

use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A zip of files with these names and contents.
pub(crate) fn zip(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A function of one Python file.
pub(crate) fn python(program: &str) -> Vec<u8> {
    zip(&[("main.py", program)])
}

/// A function of one Go file, given without its package clause.
pub(crate) fn go(program: &str) -> Vec<u8> {
    zip(&[("main.go", &format!("package main\n\n{program}"))])
}

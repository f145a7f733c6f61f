use std::io::{Cursor, Write};

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

const LIMIT: u64 = 1_000_000;

/// Files and, with a name that ends in `/`, folders.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in entries {
        if name.ends_with('/') {
            writer.add_directory(*name, SimpleFileOptions::default()).unwrap();
        } else {
            writer.start_file(*name, SimpleFileOptions::default().unix_permissions(0o600)).unwrap();
            writer.write_all(content).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn unpacked(bytes: &[u8]) -> Result<tempfile::TempDir, PackageError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    let folder = tempfile::tempdir().unwrap();
    unpack(&mut file, folder.path(), LIMIT, false).map(|_| folder)
}

#[track_caller]
fn check_refused(bytes: &[u8], expected: &str) {
    let error = unpacked(bytes).expect_err(expected).to_string();
    assert!(error.contains(expected), "{error}");
}

/// The same archive with every occurrence of a name replaced by another of the same length.
fn renamed(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    bytes
}

/// Offsets of the headers with this signature.
fn headers(bytes: &[u8], signature: &[u8; 4]) -> Vec<usize> {
    (0..bytes.len() - 4).filter(|&at| bytes[at..].starts_with(signature)).collect()
}

#[test]
fn files_arrive_readable_and_keep_only_the_executable_bit() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, mode) in [("a.py", 0o600), ("run.sh", 0o4700), ("lib/b.py", 0o000)] {
        writer.start_file(name, SimpleFileOptions::default().unix_permissions(mode)).unwrap();
        writer.write_all(name.as_bytes()).unwrap();
    }
    let folder = unpacked(&writer.finish().unwrap().into_inner()).unwrap();
    let mode = |name| folder.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("a.py"), mode("run.sh"), mode("lib/b.py"), mode("lib")], [0o644, 0o755, 0o644, 0o755]);
    assert_eq!(fs::read(folder.path().join("lib/b.py")).unwrap(), b"lib/b.py");
}

#[test]
fn a_single_top_level_folder_is_stripped() {
    let folder = unpacked(&zip(&[("repo/", b""), ("repo/main.py", b"1"), ("repo/lib/a.py", b"2")])).unwrap();
    assert!(folder.path().join("main.py").exists() && folder.path().join("lib/a.py").exists());
    let folder = unpacked(&zip(&[("__MACOSX/._x", b""), (".DS_Store", b""), ("x/main.py", b"1")])).unwrap();
    assert!(folder.path().join("main.py").exists() && !folder.path().join("__MACOSX").exists());
    let folder = unpacked(&zip(&[("a/main.py", b"1"), ("b/main.py", b"2")])).unwrap();
    assert!(folder.path().join("a/main.py").exists());
    let folder = unpacked(&zip(&[("main.py", b"1")])).unwrap();
    assert!(folder.path().join("main.py").exists());
}

#[test]
fn what_is_no_zip_is_refused() {
    check_refused(b"", "not a zip");
    check_refused(b"PK\x03\x04 and then nothing", "not a zip");
    check_refused(&[0x41; 10_000], "not a zip");
    let whole = zip(&[("main.py", b"print(1)")]);
    check_refused(&whole[..whole.len() - 30], "not a zip");
}

#[test]
fn names_that_lead_out_are_refused() {
    let harmless = zip(&[("aaaaaaaa", b"x"), ("main.py", b"")]);
    check_refused(&renamed(&harmless, b"aaaaaaaa", b"../../aa"), "holds `..`");
    check_refused(&renamed(&harmless, b"aaaaaaaa", b"/etc/aaa"), "is absolute");
    check_refused(&renamed(&harmless, b"aaaaaaaa", b"aa\\..\\aa"), "backslash");
    check_refused(&renamed(&harmless, b"aaaaaaaa", b"C:/aaaaa"), "drive letter");
    check_refused(&renamed(&harmless, b"aaaaaaaa", b"aaa\naaaa"), "control character");
    check_refused(&renamed(&harmless, b"aaaaaaaa", b"aaa\xff\xfeaaa"), "not UTF-8");
}

#[test]
fn links_and_special_files_are_refused() {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
    check_refused(&writer.finish().unwrap().into_inner(), "neither a file nor a folder");
    // The upper half of the external attributes in the central header is the Unix mode: a pipe.
    let mut pipe = zip(&[("pipe", b"")]);
    let header = headers(&pipe, b"PK\x01\x02")[0];
    pipe[header + 40..header + 42].copy_from_slice(&0o010_644_u16.to_le_bytes());
    check_refused(&pipe, "neither a file nor a folder");
}

#[test]
fn encrypted_entries_are_refused() {
    let mut locked = zip(&[("main.py", b"print(1)")]);
    for (signature, flags) in [(b"PK\x01\x02", 8), (b"PK\x03\x04", 6)] {
        let header = headers(&locked, signature)[0];
        locked[header + flags] |= 1;
    }
    check_refused(&locked, "encrypted");
}

#[test]
fn two_entries_of_one_name_are_refused() {
    check_refused(&renamed(&zip(&[("a.py", b"1"), ("b.py", b"2")]), b"b.py", b"a.py"), "two entries");
    check_refused(&zip(&[("main.py", b"1"), ("MAIN.py", b"2")]), "\"main.py\" and \"MAIN.py\"");
    check_refused(&zip(&[("x.py", b""), ("lib/a.py", b"1"), ("Lib/b.py", b"2")]), "\"lib\" and \"Lib\"");
    check_refused(&zip(&[("a", b"1"), ("a/b", b"2"), ("c", b"")]), "\"a\" as a file and as a folder");
    check_refused(&zip(&[("a/b", b"1"), ("a", b"2"), ("c", b"")]), "\"a\" as a file and as a folder");
}

#[test]
fn overlapping_entries_are_refused() {
    // Both central headers point at the first local header.
    let mut overlapping = zip(&[("a.py", b"1"), ("b.py", b"1")]);
    let second = headers(&overlapping, b"PK\x01\x02")[1];
    overlapping[second + 42..second + 46].fill(0);
    check_refused(&overlapping, "overlap");
}

#[test]
fn the_limit_counts_what_is_really_unpacked() {
    let exact = vec![0; LIMIT as usize];
    assert!(unpacked(&zip(&[("a", &exact)])).is_ok());
    check_refused(&zip(&[("a", &exact), ("b", b"1")]), "larger than the limit of 1000000 bytes");
    // Headers that claim one byte each, before the same content.
    let mut lying = zip(&[("a", &exact), ("b", b"1")]);
    for (signature, size) in [(b"PK\x01\x02", 24), (b"PK\x03\x04", 22)] {
        for header in headers(&lying, signature) {
            lying[header + size..header + size + 4].copy_from_slice(&1_u32.to_le_bytes());
        }
    }
    let error = unpacked(&lying).expect_err("it lies");
    assert!(matches!(error, PackageError::TooLarge { .. } | PackageError::Damaged { .. }), "{error}");
}

#[test]
fn too_many_entries_are_refused() {
    let names: Vec<String> = (0..=MAX_ENTRIES).map(|n| n.to_string()).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    check_refused(&zip(&entries), "10001 entries; the limit is 10000");
    assert!(unpacked(&zip(&entries[1..])).is_ok());
}

#[test]
fn damaged_content_is_refused() {
    let mut damaged = zip(&[("main.py", &(0..=255).collect::<Vec<u8>>())]);
    let data = headers(&damaged, b"PK\x03\x04")[0] + 30 + "main.py".len();
    damaged[data + 20] ^= 0x55;
    check_refused(&damaged, "\"main.py\" is damaged");
}

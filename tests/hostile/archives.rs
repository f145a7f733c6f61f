//! Archives with false claims: each archive is refused at once, and costs no more memory than any other.

use std::fs::{self, File};
use std::io::{BufWriter, Cursor, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use youtube_serverless::build::package::{self, Choice};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::alone;
use crate::support::{Service, python, zip};

#[path = "../../fuzz/check.rs"]
mod check;

/// An answer to an archive takes milliseconds, see `make bench`. This limit is for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(30);
/// The growth of a service that refuses all of these archives, in bytes.
const FLAT: u64 = 64 << 20;

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";

/// Offsets of the headers with this signature.
fn headers(zip: &[u8], signature: &[u8; 4]) -> Vec<usize> {
    (0..zip.len() - 4).filter(|&at| zip[at..].starts_with(signature)).collect()
}

fn set(zip: &mut [u8], at: usize, value: u32) {
    zip[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Claims another unpacked size for every entry.
fn claiming(mut zip: Vec<u8>, size: u32) -> Vec<u8> {
    for (signature, field) in [(CENTRAL, 24), (LOCAL, 22)] {
        for header in headers(&zip, signature) {
            set(&mut zip, header + field, size);
        }
    }
    zip
}

/// One file of this many zeros, which deflate to a thousandth.
fn zeros(name: &str, size: usize) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file(name, SimpleFileOptions::default()).unwrap();
    for _ in 0..size >> 20 {
        writer.write_all(&[0; 1 << 20]).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Bombs in a bomb, ten levels deep.
fn nested() -> Vec<u8> {
    let mut inner = zeros("main.py", 32 << 20);
    for level in 0..10 {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for copy in 0..if level == 9 { 3 } else { 1 } {
            writer.start_file(format!("{level}-{copy}.zip"), stored).unwrap();
            writer.write_all(&inner).unwrap();
        }
        inner = writer.finish().unwrap().into_inner();
    }
    inner
}

/// Many entries for the same compressed file, as in the bombs without recursion.
fn overlapping() -> Vec<u8> {
    let names: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let content = "0".repeat(900_000);
    let entries: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), content.as_str())).collect();
    let mut whole = zip(&entries);
    let first = headers(&whole, LOCAL)[0];
    for header in headers(&whole, CENTRAL) {
        set(&mut whole, header + 42, first as u32);
    }
    whole
}

/// A central directory of as many empty entries as fit, of one byte for a name.
fn empty_entries(count: u32, claimed: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_empty_entries(&mut bytes, count, claimed);
    bytes
}

fn write_empty_entries(out: &mut impl Write, count: u32, claimed: u16) {
    let mut local = [0; 31];
    local[..4].copy_from_slice(LOCAL);
    local[26] = 1;
    local[30] = b'a';
    out.write_all(&local).unwrap();
    let mut central = [0; 47];
    central[..4].copy_from_slice(CENTRAL);
    central[28] = 1;
    for n in 0..count {
        central[46] = b'a' + (n % 26) as u8;
        out.write_all(&central).unwrap();
    }
    let size = u64::from(count) * 47;
    if claimed == u16::MAX {
        // The counts of more than 65,534 entries stand in the larger record.
        let mut end64 = [0; 56 + 20];
        end64[..4].copy_from_slice(b"PK\x06\x06");
        end64[4] = 44;
        for field in [24, 32] {
            end64[field..field + 8].copy_from_slice(&u64::from(count).to_le_bytes());
        }
        end64[40..48].copy_from_slice(&size.to_le_bytes());
        end64[48..56].copy_from_slice(&31_u64.to_le_bytes());
        end64[56..60].copy_from_slice(b"PK\x06\x07");
        end64[64..72].copy_from_slice(&(31 + size).to_le_bytes());
        end64[72] = 1;
        out.write_all(&end64).unwrap();
    }
    let mut end = [0; 22];
    end[..4].copy_from_slice(END);
    end[8..10].copy_from_slice(&claimed.to_le_bytes());
    end[10..12].copy_from_slice(&claimed.to_le_bytes());
    end[12..16].copy_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes());
    end[16..20].copy_from_slice(&31_u32.to_le_bytes());
    out.write_all(&end).unwrap();
}

#[tokio::test]
#[ignore = "needs docker"]
async fn bombs_are_refused_at_once_in_little_memory() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    let service = Service::start(dir.path(), &[]).await.healthy().await;
    service.submit(b"warm".to_vec()).await.assert_problem(400, "invalid_archive", "not a zip");
    let before = service.memory();
    let deep: Vec<String> = (0..4000).map(|n| format!("{n:04}/{}f", "a/".repeat(400))).collect();
    let deep: Vec<(&str, &str)> = deep.iter().map(|name| (name.as_str(), "")).collect();
    let wide: Vec<String> = (0..4000).map(|n| format!("{n:04}/{}f", "a/".repeat(50))).collect();
    let wide: Vec<(&str, &str)> = wide.iter().map(|name| (name.as_str(), "")).collect();
    let mut longer = python("print(1)");
    let header = headers(&longer, CENTRAL)[0];
    set(&mut longer, header + 20, 1_000_000);
    let mut cut = zip(&[("main.py", &"print(1)\n".repeat(1000))]);
    let data = headers(&cut, LOCAL)[0] + 37;
    cut[data + 4..data + 12].fill(0xff);

    let attacks: [(&str, Vec<u8>, u16, &str); 15] = [
        ("60,000 entries behind one that is broken", hidden(60_000), 400, "not a zip"),
        ("a gigabyte of zeros", zeros("main.py", 1 << 30), 413, "MAX_UNPACKED_SIZE"),
        ("the same, claiming one byte", claiming(zeros("main.py", 1 << 30), 1), 400, "damaged"),
        ("4 GiB claimed in 1 kB", claiming(python(&"#".repeat(1000)), u32::MAX - 1), 0, ""),
        ("bombs in a bomb: only files", nested(), 422, "zip"),
        ("200 entries over one file", overlapping(), 400, "overlap"),
        ("200,000 entries", empty_entries(200_000, u16::MAX), 413, "200000 entries; the limit is 10000"),
        ("200,000 entries, claiming 3", empty_entries(200_000, 3), 400, ""),
        ("4,000 names of 400 folders", zip(&deep), 400, "64 parts"),
        ("4,000 names of 50 folders of their own", zip(&wide), 413, "folders"),
        ("a compressed size beyond the file", longer, 400, ""),
        ("a broken stream", cut, 400, "damaged"),
        ("nothing but an end", empty_entries(0, 0), 422, "no files"),
        ("an end that points nowhere", [&b"PK\x05\x06"[..], &[0xfe; 18]].concat(), 400, "not a zip"),
        ("ten megabytes of ends", b"PK\x05\x06".repeat(2_499_000), 400, "not a zip"),
    ];
    for (name, zip, status, detail) in attacks {
        let began = Instant::now();
        let answer = service.submit(zip).await;
        let took = began.elapsed();
        println!("{name}: {} in {} ms, memory {} MB", answer.status, took.as_millis(), service.peak_memory() >> 20);
        let detail_is = answer.body["detail"].as_str().unwrap_or_default();
        // A claim alone does no harm: only the bytes that are read count.
        assert!(answer.status == status || status == 0 && [200, 400].contains(&answer.status), "{name}: {answer:?}");
        assert!(detail_is.contains(detail), "{name}: {detail_is}");
        assert!(took < AT_ONCE || answer.status == 200, "{name} took {took:?}");
        assert!(service.peak_memory() < before + FLAT, "{name}: {before} -> {}", service.peak_memory());
    }
    service.delete_all(dir.path()).await;
}

#[tokio::test]
async fn ten_million_empty_entries_are_counted_and_not_kept() {
    let _alone = alone().await;
    let dir = tempfile::tempdir().unwrap();
    for (claimed, expected) in [(u16::MAX, "10000000 entries"), (3, "")] {
        let mut out = BufWriter::new(tempfile::tempfile_in(dir.path()).unwrap());
        write_empty_entries(&mut out, 10_000_000, claimed);
        let mut file: File = out.into_inner().unwrap();
        file.rewind().unwrap();
        let before = peak_from_now();
        let began = Instant::now();
        let folder = tempfile::tempdir_in(dir.path()).unwrap();
        let error =
            package::open(&mut file, folder.path(), 1_000_000, Choice::default()).expect_err("a bomb").to_string();
        assert!(error.contains(expected), "{error}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert!(peak() < before + FLAT, "{before} -> {}", peak());
    }
}

/// The peak of this process's resident memory, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Forgets the peak, and returns the resident memory now. See proc(5).
fn peak_from_now() -> u64 {
    fs::write("/proc/self/clear_refs", "5").unwrap();
    peak()
}

/// A directory that only a careless reader takes. The directory hides a large directory, to which a careful reader
/// falls back.
fn hidden(count: u16) -> Vec<u8> {
    let mut zip = empty_entries(count.into(), count);
    let at = zip.len();
    let mut central = [0; 46 + 1 + 12];
    central[..4].copy_from_slice(CENTRAL);
    central[28] = 1;
    central[30] = 12;
    central[42..46].fill(0xff);
    central[46] = b'a';
    // The larger record of offsets has an offset that runs over with any addition.
    central[47..49].copy_from_slice(&1_u16.to_le_bytes());
    central[49] = 8;
    central[51..].copy_from_slice(&(u64::MAX - at as u64).to_le_bytes());
    zip.extend(central);
    let mut end = [0; 22];
    end[..4].copy_from_slice(END);
    end[8] = 1;
    end[10] = 1;
    end[12..16].copy_from_slice(&46_u32.to_le_bytes());
    end[16..20].copy_from_slice(&(at as u32).to_le_bytes());
    zip.extend(end);
    zip
}

#[test]
fn what_fuzzing_has_found_stays_refused_or_harmless() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/package");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let mut zip = File::open(entry.unwrap().path()).unwrap();
        let outside = tempfile::tempdir().unwrap();
        let folder = outside.path().join("package");
        fs::create_dir(&folder).unwrap();
        let opened = package::open(&mut zip, &folder, check::MAX_SIZE, Choice::default());
        check::holds(outside.path(), &folder, &opened);
        replayed += 1;
    }
    assert!(replayed > 100, "{replayed}");
}

#[test]
fn names_that_mean_something_elsewhere_stay_names_or_are_refused() {
    // Linux, Windows or macOS takes each of these for more than a name.
    let refused = [
        "../up",
        "a/../../up",
        "/etc/cron.d/x",
        "//server/share",
        "..\\up",
        "C:\\x",
        "C:x",
        "c:/x",
        "\\\\?\\C:\\x",
        "a\\b",
        "a\0.py",
        "a\r\nb",
        "\u{1b}[31mred",
        "a\u{85}b",
    ];
    let harmless = [
        "~/x",
        "$HOME/x",
        "%TEMP%/x",
        "CON",
        "nul.py",
        "file:stream",
        "trailing. ",
        "dots...",
        "-rf",
        "..hidden",
        "a*?",
        "\u{202e}yp.niam",
        "e\u{301}",
        "\u{e9}",
        ".bashrc",
        "__pycache__/x",
        "Icon\u{fffd}",
    ];
    for name in refused {
        let error = open(&[("main.py", ""), (name, "x")]).expect_err(name);
        assert!(error.to_string().contains("the zip's entry"), "{name:?}: {error}");
    }
    for name in harmless {
        open(&[("main.py", ""), (name, "x")]).unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }
    // Two spellings of a name are two files here, and one file where file systems fold names. Both stay below the
    // folder.
    open(&[("main.py", ""), ("e\u{301}", "1"), ("\u{e9}", "2")]).unwrap();
    let folded = open(&[("main.py", ""), ("K.txt", "1"), ("\u{212a}.txt", "2")]).expect_err("the Kelvin sign is a k");
    assert!(folded.to_string().contains("two entries"), "{folded}");
}

fn open(files: &[(&str, &str)]) -> Result<package::Package, package::PackageError> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&zip(files)).unwrap();
    let outside = tempfile::tempdir().unwrap();
    let folder = outside.path().join("package");
    fs::create_dir(&folder).unwrap();
    let opened = package::open(&mut file, &folder, check::MAX_SIZE, Choice::default());
    check::holds(outside.path(), &folder, &opened);
    opened
}

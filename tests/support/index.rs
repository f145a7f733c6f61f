//! A package index for one test that containers can reach: PyPI's simple pages, Go's proxy, or any files.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{docker, zip};

/// An index that serves until the test's process ends.
pub(crate) struct Index {
    /// The address at which containers reach the index.
    pub(crate) authority: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Index {
    /// Serves files by their paths. With credentials, which are in Base64, only requests with these credentials get
    /// files.
    pub(crate) fn start(files: Vec<(String, Vec<u8>)>, credentials: Option<&'static str>) -> Self {
        let listener = TcpListener::bind((bridge(), 0)).unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (files, seen) = (Arc::new(HashMap::from_iter(files)), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, seen) = (Arc::clone(&files), Arc::clone(&seen));
                thread::spawn(move || answer(stream, &files, credentials, &seen));
            }
        });
        Self { authority, requests }
    }

    /// Serves wheels and other distributions, given by their file names.
    pub(crate) fn of(distributions: &[(&str, Vec<u8>)], credentials: Option<&'static str>) -> Self {
        let mut files: HashMap<String, Vec<u8>> = HashMap::new();
        for (name, content) in distributions {
            let project = name.split('-').next().unwrap().replace('_', "-");
            let page = files.entry(format!("/simple/{project}/")).or_default();
            page.extend(format!("<a href=\"/files/{name}\">{name}</a>\n").bytes());
            files.insert(format!("/files/{name}"), content.clone());
        }
        Self::start(files.into_iter().collect(), credentials)
    }

    /// The number of requests so far for paths that end with `end`.
    pub(crate) fn count(&self, end: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|path| path.ends_with(end)).count()
    }
}

/// The address of this machine on Docker's bridge.
pub(crate) fn bridge() -> Ipv4Addr {
    // Some engines tell only the subnet, and take the subnet's first address for themselves.
    let subnet = docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]).remove(0);
    let network: Ipv4Addr = subnet.split('/').next().unwrap().parse().unwrap();
    Ipv4Addr::from(u32::from(network) + 1)
}

/// The file name and the content of a wheel that holds these files and its metadata.
pub(crate) fn wheel(name: &str, files: &[(&str, &str)]) -> (String, Vec<u8>) {
    let info = format!("{name}-1.0.dist-info");
    let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    let tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let names = [format!("{info}/METADATA"), format!("{info}/WHEEL"), format!("{info}/RECORD")];
    let mut all = files.to_vec();
    all.extend([(names[0].as_str(), metadata.as_str()), (names[1].as_str(), tag)]);
    let record: String =
        all.iter().map(|(name, _)| *name).chain([names[2].as_str()]).map(|name| format!("{name},,\n")).collect();
    all.push((names[2].as_str(), &record));
    (format!("{name}-1.0-py3-none-any.whl"), zip(&all))
}

fn answer(stream: TcpStream, files: &HashMap<String, Vec<u8>>, credentials: Option<&str>, seen: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut stream = stream;
    while let Some(first) = lines.next() {
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let wanted = credentials.map(|credentials| format!("authorization: basic {credentials}").to_lowercase());
        let is_known = wanted.is_none_or(|wanted| head.iter().any(|line| line.to_lowercase() == wanted));
        seen.lock().unwrap().push(path.clone());
        let (status, content) = match files.get(&path) {
            _ if !is_known => ("401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"", Vec::new()),
            // A path with "stalls" makes the client wait.
            _ if path.contains("stalls") => {
                thread::sleep(std::time::Duration::from_secs(60));
                return;
            }
            Some(content) => ("200 OK", content.clone()),
            None => ("404 Not Found", Vec::new()),
        };
        let kind = if path.ends_with('/') { "text/html" } else { "application/octet-stream" };
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", content.len());
        let body = if method == "HEAD" { &[][..] } else { &content };
        if stream.write_all(&[head.as_bytes(), body].concat()).is_err() {
            return;
        }
    }
}

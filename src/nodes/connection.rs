//! A request to another node, on a connection of its own.
//!
//! The request goes to the host and port of the node's URL, and nowhere else: there is no proxy, and an answer that
//! leads elsewhere is a fault. The reader of an answer drives the connection. So a connection has no task, takes no
//! more than its reader takes, and ends with its reader.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;
use url::{Host, Position, Url};

use crate::config::Secret;
use crate::resources::tls::{NoRoots, Tls};

/// The time limit of a connection: for the name, TCP and TLS.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// The time limit of the answer's head.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// The number of looks for a name at one time: a look holds a thread, also after the end of the wait for the look.
const MAX_LOOKS: usize = 8;
/// The number of requests to other nodes at one time.
const MAX_OPEN: usize = 500;
/// The largest head of an answer, and the largest piece of a body that is read at once, in bytes.
const MAX_BUFFER: usize = 64 << 10;

type Io = Either<TcpStream, TlsStream<TcpStream>>;
type Driven = Pin<Box<http1::Connection<TokioIo<Io>, Empty<Bytes>>>>;

/// The reason why another node did not answer, or did not go on.
#[derive(Debug, Error)]
pub enum PeerError {
    /// The other node's configuration is wrong.
    #[error("its NODE_URL is not an http or https URL without a path")]
    Url,
    /// There are too many requests already.
    #[error("{MAX_OPEN} requests to other nodes are under way already")]
    Busy,
    /// No connection.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// No certificate that is trusted here, or no TLS at all.
    #[error("no TLS connection: {0}")]
    Tls(io::Error),
    /// This machine has no usable certificates.
    #[error(transparent)]
    Roots(#[from] NoRoots),
    /// No connection, or no head of an answer, in time.
    #[error("no answer in time")]
    Slow,
    /// The connection broke, or the answer is not HTTP.
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    /// The token is refused.
    #[error("it refuses this node's CLUSTER_TOKEN, which must be the same on each node")]
    Refused,
    /// Another status than 200.
    #[error("it answered with the status {0}")]
    Status(u16),
    /// The answer is not what was asked for.
    #[error("its answer has another form: {0}")]
    Form(&'static str),
    /// The node had a fault a moment ago, and is not asked now.
    #[error("it failed a moment ago")]
    Unwell,
    /// Nothing came for too long.
    #[error("it fell silent")]
    Silent,
}

/// Makes connections to other nodes.
#[derive(Debug)]
pub(super) struct Dialer {
    /// Made at the first need.
    tls: OnceCell<Tls>,
    /// Turns for looks for a name.
    looks: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

/// The answer of another node, whose body comes piece by piece. A drop ends the connection.
#[derive(Debug)]
pub struct Answer {
    response: Response<Incoming>,
    /// None once hyper is through with the connection.
    connection: Option<Driven>,
    /// The connection lasts as long as a further request may come.
    _sender: http1::SendRequest<Empty<Bytes>>,
    _permit: OwnedSemaphorePermit,
}

impl Dialer {
    pub(super) fn new() -> Self {
        let open = Arc::new(Semaphore::new(MAX_OPEN));
        Self { tls: OnceCell::new(), looks: Arc::new(Semaphore::new(MAX_LOOKS)), open }
    }

    /// The answer to a GET, whose status is 200 and whose content has the type `accept`. `base` is a NODE_URL.
    pub(super) async fn get(
        &self,
        base: &str,
        path: &str,
        accept: &'static str,
        token: &Secret,
    ) -> Result<Answer, PeerError> {
        let permit = Arc::clone(&self.open).try_acquire_owned().map_err(|_| PeerError::Busy)?;
        let url = Url::parse(base).map_err(|_| PeerError::Url)?;
        let request = request(&url, path, accept, token).ok_or(PeerError::Url)?;
        let io = time::timeout(DIAL_LIMIT, self.dial(&url)).await.map_err(|_| PeerError::Slow)??;
        let answered = async {
            let (mut sender, connection) =
                http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(io)).await?;
            let mut connection = Some(Box::pin(connection));
            let response = drive(&mut connection, sender.send_request(request)).await?;
            Ok(Answer { response, connection, _sender: sender, _permit: permit })
        };
        let answer: Result<_, hyper::Error> = time::timeout(HEAD_LIMIT, answered).await.map_err(|_| PeerError::Slow)?;
        let answer = answer?;
        match answer.response.status().as_u16() {
            200 => {}
            401 => return Err(PeerError::Refused),
            status => return Err(PeerError::Status(status)),
        }
        let is_wanted = answer.header(&http::header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with(accept));
        if is_wanted { Ok(answer) } else { Err(PeerError::Form("the type of the content")) }
    }

    /// The addresses of a name. The turn lasts as long as the look does, which nothing can break off.
    async fn look_up(&self, domain: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let turn = Arc::clone(&self.looks).acquire_owned().await.expect("the semaphore is never closed");
        let name = (domain.to_owned(), port);
        let look = tokio::spawn(async move {
            let addresses = lookup_host(name).await.map(Iterator::collect);
            drop(turn);
            addresses
        });
        look.await.map_err(io::Error::other)?
    }

    async fn dial(&self, url: &Url) -> Result<Io, PeerError> {
        let port = url.port_or_known_default().ok_or(PeerError::Url)?;
        let to = |address: IpAddr| (TcpStream::connect((address, port)), ServerName::from(address));
        let (stream, name) = match url.host().ok_or(PeerError::Url)? {
            Host::Domain(domain) => {
                let name = ServerName::try_from(domain.to_owned()).map_err(|_| PeerError::Url)?;
                let addresses = self.look_up(domain, port).await.map_err(PeerError::Connect)?;
                (TcpStream::connect(&*addresses).await, name)
            }
            Host::Ipv4(address) => {
                let (stream, name) = to(address.into());
                (stream.await, name)
            }
            Host::Ipv6(address) => {
                let (stream, name) = to(address.into());
                (stream.await, name)
            }
        };
        let stream = stream.map_err(PeerError::Connect)?;
        stream.set_nodelay(true).map_err(PeerError::Connect)?;
        if url.scheme() == "http" {
            return Ok(Either::Left(stream));
        }
        let tls = self.tls.get_or_try_init(Tls::new).await?;
        Ok(Either::Right(tls.connect(name, stream).await.map_err(PeerError::Tls)?))
    }
}

impl Answer {
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The body's length in bytes, where the other node has told the length.
    pub fn length(&self) -> Option<u64> {
        self.header(&http::header::CONTENT_LENGTH)?.parse().ok()
    }

    /// The next piece of the body, which comes within `limit`. None at the end.
    pub async fn next(&mut self, limit: Duration) -> Result<Option<Bytes>, PeerError> {
        loop {
            let frame = drive(&mut self.connection, self.response.body_mut().frame());
            match time::timeout(limit, frame).await.map_err(|_| PeerError::Silent)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(piece) = frame?.into_data() {
                        return Ok(Some(piece));
                    }
                }
            }
        }
    }
}

/// None where the URL is not an http or https URL without a path.
fn request(url: &Url, path: &str, accept: &'static str, token: &Secret) -> Option<Request<Empty<Bytes>>> {
    let is_bare = matches!(url.scheme(), "http" | "https") && url.path() == "/" && url.query().is_none();
    let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.0)).ok()?;
    bearer.set_sensitive(true);
    let request = Request::get(path)
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(ACCEPT, accept)
        .header(AUTHORIZATION, bearer);
    request.body(Empty::new()).ok().filter(|_| is_bare)
}

/// Drives the connection until `wanted` is there.
async fn drive<T>(connection: &mut Option<Driven>, wanted: impl Future<Output = T>) -> T {
    let mut wanted = pin!(wanted);
    poll_fn(|cx| {
        // A fault of the connection reaches `wanted`, too.
        if connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            *connection = None;
        }
        wanted.as_mut().poll(cx)
    })
    .await
}

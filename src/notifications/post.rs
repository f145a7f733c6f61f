//! One try: a POST on a connection of its own, which goes to the receiver's host and port and nowhere else. There is no
//! proxy, and an answer that leads elsewhere is a failure.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either as First, select};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio_util::either::Either;
use url::{Host, Position, Url};

use super::{Notifier, message, signature};
use crate::config::Secret;
use crate::domain::Notification;
use crate::domain::settings::notify::Notify;
use crate::egress::NotReached;
use crate::nodes::CutOff;
use crate::resources::clock;
use crate::resources::tls::{NoRoots, Tls};

/// The time limit of a try: for the name, TCP, TLS, the request and the head of the answer.
const TRY_LIMIT: Duration = Duration::from_secs(15);
/// The part of an answer's body that is read and thrown away, in bytes, and the time for that: a receiver that writes
/// before its answer is taken would see a fault.
const MAX_BODY: usize = 4 << 10;
const BODY_LIMIT: Duration = Duration::from_secs(1);
/// The largest head of an answer, in bytes.
const MAX_HEAD: usize = 16 << 10;

const SENDER: HeaderValue = HeaderValue::from_static(concat!("youtube-serverless/", env!("CARGO_PKG_VERSION")));

type Io = Either<TcpStream, TlsStream<TcpStream>>;

/// A try that has failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// The HTTP status of the answer, where there was an answer.
    pub(super) status: Option<u16>,
    /// What went wrong, in words.
    pub(super) reason: String,
    /// Whether no further try can do better.
    pub(super) is_final: bool,
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum PostError {
    #[error(transparent)]
    NotReached(#[from] NotReached),
    #[error(transparent)]
    CutOff(#[from] CutOff),
    #[error(transparent)]
    Roots(#[from] NoRoots),
    #[error("no certificate can have the name of the host: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("no TLS connection: {0}")]
    Tls(io::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the request can't be made: {0}")]
    Request(#[from] http::Error),
    #[error("the key of `notify` can't be used; set `notify` to null and then anew")]
    Key,
    #[error("no answer within {TRY_LIMIT:?}")]
    Slow,
}

impl Failed {
    /// A failure after which no try comes.
    pub(super) fn for_good(reason: &str) -> Self {
        Self { status: None, reason: reason.to_owned(), is_final: true }
    }
}

impl Notifier {
    /// Sends a notification once. Returns the status of the answer, which is a success.
    pub(super) async fn post(&self, notification: &Notification, notify: &Notify) -> Result<u16, Failed> {
        let answered = time::timeout(TRY_LIMIT, self.exchange(notification, notify)).await;
        let (status, reason) = match answered.unwrap_or(Err(PostError::Slow)) {
            Ok(status @ 200..=299) => return Ok(status),
            Ok(status @ 300..=399) => {
                (Some(status), format!("the receiver answered {status}; no redirect is followed"))
            }
            Ok(status) => (Some(status), format!("the receiver answered {status}")),
            Err(error) => (None, error.to_string()),
        };
        Err(Failed { status, reason, is_final: false })
    }

    /// The status of the receiver's answer.
    async fn exchange(&self, notification: &Notification, notify: &Notify) -> Result<u16, PostError> {
        let url = notify.target.url();
        let stream = self.egress.dial(notify.target.rule()).await?;
        let io = match url.scheme() {
            "https" => {
                let tls = self.tls.get_or_try_init(Tls::new).await?;
                Either::Right(tls.connect(server_name(url)?, stream).await.map_err(PostError::Tls)?)
            }
            _ => Either::Left(stream),
        };
        // The claim of a node that was cut off meanwhile is free for others.
        self.nodes.check()?;
        let request = request(notification, url, &notify.key, clock::unix_seconds())?;
        send(io, request).await
    }
}

/// The name that the receiver's certificate must have.
fn server_name(url: &Url) -> Result<ServerName<'static>, InvalidDnsNameError> {
    match url.host() {
        Some(Host::Ipv4(address)) => Ok(ServerName::from(std::net::IpAddr::from(address))),
        Some(Host::Ipv6(address)) => Ok(ServerName::from(std::net::IpAddr::from(address))),
        Some(Host::Domain(name)) => ServerName::try_from(name.trim_end_matches('.').to_owned()),
        None => Err(InvalidDnsNameError),
    }
}

fn request(
    notification: &Notification,
    url: &Url,
    key: &Secret,
    timestamp: u64,
) -> Result<Request<Full<Bytes>>, PostError> {
    let (id, body) = (notification.id().to_string(), message::body(notification));
    let signature = signature::sign(key, &id, timestamp, &body).ok_or(PostError::Key)?;
    let request = Request::post(&url[Position::BeforePath..Position::AfterQuery])
        .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(USER_AGENT, SENDER)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(CONNECTION, HeaderValue::from_static("close"))
        .header("webhook-id", id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", signature);
    Ok(request.body(Full::new(body.into()))?)
}

/// Sends the request on a connection, and drives the connection until the answer is there. A drop ends the connection.
async fn send(io: Io, request: Request<Full<Bytes>>) -> Result<u16, PostError> {
    let (mut sender, connection) = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(io)).await?;
    let exchange = async move {
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        // The status is the answer, whatever becomes of the body.
        let _ = time::timeout(BODY_LIMIT, throw_away(response.into_body())).await;
        Ok(status)
    };
    match select(pin!(exchange), pin!(connection)).await {
        First::Left((status, _)) => status,
        // A fault of the connection reaches the exchange, too.
        First::Right((_, exchange)) => exchange.await,
    }
}

async fn throw_away(mut body: Incoming) {
    let mut left = MAX_BODY;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

//! The proxy of a function: a client names the host by HTTP, with CONNECT or by the URL of a plain request.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time;

use super::body::{BodyEnd, client, pass_body};
use super::carry::{End, LAST_WORDS, carry, pass, throw_away, write};
use super::head::{self, Ask, Framing, HeadError, MAX_HEAD, Request};
use super::traffic::Meter;
use super::{Context, Denial, Egress, ended};

/// The destination of a request that names none.
const NOWHERE: &str = "proxy";

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
const METHODS: &str = "CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

/// The first bytes of a client.
enum Start {
    /// A head, and what came after the head.
    Head(Vec<u8>, Vec<u8>),
    /// The client has sent nothing, and has gone.
    Nothing,
}

impl Egress {
    pub(super) async fn serve_proxy(&self, mut inner: End, context: Context<'_>) {
        let late = HeadError { status: 408, reason: "the head did not come in time" };
        let started = time::timeout(self.0.head_limit, read_head(&mut inner)).await.unwrap_or(Err(Some(late)));
        let started = started.and_then(|start| match start {
            Start::Head(head, early) => Ok(Some((head::parse(&head).map_err(Some)?, early))),
            Start::Nothing => Ok(None),
        });
        let (request, early) = match started {
            Ok(Some(request)) => request,
            Ok(None) => return inner.close(),
            // The client has reset its connection.
            Err(None) => return,
            Err(Some(HeadError { status, reason })) => {
                context.deny(NOWHERE, &Denial::Refused(reason.to_owned()));
                return refuse(inner, status, reason).await;
            }
        };
        let Request { host, port, ask } = request;
        let (outer, meter) = match self.reach(&host, port, context).await {
            Ok(connected) => connected,
            Err(denial) => return refuse(inner, denial.status(), denial.reason()).await,
        };
        match ask {
            Ask::Tunnel => {
                if inner.write_all(ESTABLISHED).await.is_ok() {
                    ended(carry(inner, outer, &early, &meter).await, &meter);
                }
            }
            Ask::Forward { head, body } => {
                let forwarded = forward(inner, outer, (&head, body), &early, &meter).await;
                if let Err(error) = &forwarded
                    && error.kind() == io::ErrorKind::InvalidData
                {
                    context.note(&format!("{host}:{port}"), &error.to_string());
                }
                ended(forwarded, &meter);
            }
        }
    }
}

/// Reads a head. Fails with None where the connection does.
async fn read_head(inner: &mut End) -> Result<Start, Option<HeadError>> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let known = bytes.len();
        // The bytes never exceed the longest head.
        let mut room = (&mut **inner).take((MAX_HEAD - known) as u64);
        match room.read_buf(&mut bytes).await {
            Ok(0) if known == 0 => return Ok(Start::Nothing),
            Ok(0) => return Err(Some(HeadError { status: 400, reason: "the head has no end" })),
            Ok(_) => {}
            Err(_) => return Err(None),
        }
        if let Some(length) = head::end(&bytes, known).map_err(Some)? {
            let early = bytes.split_off(length);
            return Ok(Start::Head(bytes, early));
        }
    }
}

/// Sends one request, and passes on whatever comes back. Nothing follows the request, whatever else the client sends.
async fn forward(
    mut inner: End,
    mut outer: End,
    (head, body): (&[u8], Framing),
    early: &[u8],
    meter: &Meter,
) -> io::Result<()> {
    {
        let ((from_inner, mut to_inner), (mut from_outer, mut to_outer)) = (inner.split(), outer.split());
        let mut from_inner = client(early, from_inner);
        let request = async {
            write(&mut to_outer, head, |count| meter.sent(count)).await?;
            if pass_body(&mut from_inner, &mut to_outer, body, |count| meter.sent(count)).await? == BodyEnd::Whole {
                throw_away(&mut from_inner).await?;
            }
            // A client that has ended its half has said so to the destination.
            to_outer.shutdown().await
        };
        let answer = pass(&mut from_outer, &mut to_inner, |count| meter.received(count));
        tokio::pin!(request, answer);
        tokio::select! {
            // The answer may end before the request has gone.
            ended = &mut answer => ended?,
            sent = &mut request => match sent {
                Ok(()) => answer.await?,
                // A host may answer before it has the whole request, and then take no more.
                Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                    time::timeout(LAST_WORDS, answer).await.unwrap_or(Err(error))?;
                }
                Err(error) => return Err(error),
            },
        }
    }
    outer.close();
    inner.close_after_last_words().await;
    Ok(())
}

/// Answers why there is no connection. The reason is in the status line, too, where clients show the reason.
async fn refuse(mut inner: End, status: u16, reason: &str) {
    let is_plain = |c: char| c.is_ascii_graphic() || c == ' ';
    let reason: String = reason.chars().map(|c| if is_plain(c) { c } else { '?' }).collect();
    let allow = if status == 405 { format!("Allow: {METHODS}\r\n") } else { String::new() };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         {allow}Connection: close\r\n\r\n{reason}\n",
        reason.len() + 1,
    );
    if inner.write_all(answer.as_bytes()).await.is_ok() {
        inner.close_after_last_words().await;
    }
}

impl Denial {
    /// The status of the proxy's answer.
    fn status(&self) -> u16 {
        match self {
            Self::Refused(_) => 403,
            Self::Failed(_) => 502,
            Self::Timeout(_) => 504,
        }
    }
}

#[cfg(test)]
mod tests;

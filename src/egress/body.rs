//! The body of a forwarded request: exactly one, and written anew where the body has chunks.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::carry::{BUFFER, write};
use super::head::Framing;

/// The longest line between chunks, in bytes, and the most fields after the last chunk.
const MAX_LINE: usize = 4096;
const MAX_TRAILERS: usize = 100;

/// Where a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    /// The whole body was passed on.
    Whole,
    /// The client has ended its half before.
    Cut,
}

/// The bytes of the client: what came with the head, and then the connection.
pub(super) type Client<'a, 'b> = BufReader<tokio::io::Chain<&'a [u8], ReadHalf<'b>>>;

/// The client's bytes behind the head.
pub(super) fn client<'a, 'b>(early: &'a [u8], from: ReadHalf<'b>) -> Client<'a, 'b> {
    BufReader::with_capacity(BUFFER, early.chain(from))
}

/// Passes on one body. Fails with [`io::ErrorKind::InvalidData`] where the chunks are none: the destination has not got
/// the end of the body then.
pub(super) async fn pass_body(
    from: &mut Client<'_, '_>,
    to: &mut WriteHalf<'_>,
    framing: Framing,
    count: impl Fn(usize),
) -> io::Result<BodyEnd> {
    match framing {
        Framing::Length(length) => pass_bytes(from, to, length, false, &count).await,
        Framing::Chunked => pass_chunks(from, to, &count).await,
    }
}

async fn pass_chunks(from: &mut Client<'_, '_>, to: &mut WriteHalf<'_>, count: &impl Fn(usize)) -> io::Result<BodyEnd> {
    loop {
        let Some(line) = line(from).await? else { return Ok(BodyEnd::Cut) };
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        let is_number = (1..=15).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        let size = std::str::from_utf8(size).ok().filter(|_| is_number);
        let size =
            size.and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or_else(|| bad("a chunk has no size"))?;
        if size == 0 {
            break;
        }
        if pass_bytes(from, to, size, true, count).await? == BodyEnd::Cut {
            return Ok(BodyEnd::Cut);
        }
        match self::line(from).await? {
            Some(rest) if rest.is_empty() => {}
            Some(_) => return Err(bad("a chunk is longer than its size")),
            None => return Ok(BodyEnd::Cut),
        }
    }
    // Fields behind the body are thrown away: no destination may take them for fields of the head.
    for _ in 0..=MAX_TRAILERS {
        match line(from).await? {
            Some(line) if line.is_empty() => {
                write(to, b"0\r\n\r\n", count).await?;
                return Ok(BodyEnd::Whole);
            }
            Some(_) => {}
            None => return Ok(BodyEnd::Cut),
        }
    }
    Err(bad("there are more than 100 fields behind the body"))
}

/// Passes on so many bytes, as chunks of whatever length where the body has chunks.
async fn pass_bytes(
    from: &mut Client<'_, '_>,
    to: &mut WriteHalf<'_>,
    mut left: u64,
    as_chunks: bool,
    count: &impl Fn(usize),
) -> io::Result<BodyEnd> {
    while left > 0 {
        let bytes = from.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(BodyEnd::Cut);
        }
        let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if as_chunks {
            let chunk = [format!("{length:x}\r\n").as_bytes(), &bytes[..length], b"\r\n"].concat();
            write(to, &chunk, count).await?;
        } else {
            write(to, &bytes[..length], count).await?;
        }
        from.consume(length);
        left -= length as u64;
    }
    Ok(BodyEnd::Whole)
}

/// A line without its CR and LF. None where the bytes end before.
async fn line(from: &mut Client<'_, '_>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = from.take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return if length < MAX_LINE { Ok(None) } else { Err(bad("a line between chunks is too long")) };
    }
    match line.strip_suffix(b"\r\n") {
        Some(text) if !text.contains(&b'\r') && !text.contains(&0) => Ok(Some(text.to_owned())),
        Some(_) | None => Err(bad("a line between chunks does not end with CR and LF")),
    }
}

fn bad(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests;

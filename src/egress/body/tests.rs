use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What becomes of a client's bytes: the end or the reason, what the destination gets, and what is left of the bytes.
async fn passed(framing: Framing, early: &[u8], bytes: &[u8]) -> (Result<BodyEnd, String>, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut program = TcpStream::connect(address).await.unwrap();
    let (mut inner, _) = listener.accept().await.unwrap();
    let mut outer = TcpStream::connect(address).await.unwrap();
    let (mut destination, _) = listener.accept().await.unwrap();
    program.write_all(bytes).await.unwrap();
    drop(program);
    let (mut rest, counted) = (String::new(), std::cell::Cell::new(0));
    let passed = {
        let mut from = client(early, inner.split().0);
        let count = |bytes| counted.set(counted.get() + bytes);
        let passed = pass_body(&mut from, &mut outer.split().1, framing, count).await;
        from.read_to_string(&mut rest).await.unwrap();
        passed
    };
    drop(outer);
    let mut got = String::new();
    destination.read_to_string(&mut got).await.unwrap();
    assert_eq!(got.len(), counted.get());
    (passed.map_err(|error| error.to_string()), got, rest)
}

#[tokio::test]
async fn a_body_of_a_length_is_passed_on_and_nothing_more() {
    let whole = |got: &str, rest: &str| (Ok(BodyEnd::Whole), got.to_owned(), rest.to_owned());
    assert_eq!(passed(Framing::Length(5), b"he", b"lloGET / HTTP/1.1").await, whole("hello", "GET / HTTP/1.1"));
    assert_eq!(passed(Framing::Length(2), b"hello", b"!").await, whole("he", "llo!"));
    assert_eq!(passed(Framing::Length(0), b"x", b"y").await, whole("", "xy"));
    assert_eq!(passed(Framing::Length(6), b"", b"hello").await, (Ok(BodyEnd::Cut), "hello".to_owned(), String::new()));
}

#[tokio::test]
async fn chunks_are_written_anew() {
    let (end, got, rest) = passed(
        Framing::Chunked,
        b"5;name=\"value\"\r\nhel",
        b"lo\r\n000A \r\n, world!!!\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\nGET /",
    )
    .await;
    assert_eq!((end, rest.as_str()), (Ok(BodyEnd::Whole), "GET /"));
    assert_eq!(got, "3\r\nhel\r\n2\r\nlo\r\na\r\n, world!!!\r\n0\r\n\r\n");
    let (end, got, _) = passed(Framing::Chunked, b"", b"0\r\n\r\n").await;
    assert_eq!((end, got.as_str()), (Ok(BodyEnd::Whole), "0\r\n\r\n"));
    for cut in ["", "5", "5\r\n", "5\r\nhe", "5\r\nhello", "5\r\nhello\r\n", "0\r\n", "0\r\nX: y\r\n"] {
        let (end, got, _) = passed(Framing::Chunked, b"", cut.as_bytes()).await;
        assert_eq!(end, Ok(BodyEnd::Cut), "{cut:?}");
        assert!(!got.contains("0\r\n\r\n"), "{cut:?}: {got:?}");
    }
}

#[tokio::test]
async fn what_is_no_chunk_never_looks_whole() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(5000));
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(200));
    for bytes in [
        "x\r\n",
        "\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "1000000000000000\r\n",
        "0\r\nX: y\n\r\n",
        "0\n\r\n",
        &long,
        &many,
    ] {
        let (end, got, _) = passed(Framing::Chunked, b"", bytes.as_bytes()).await;
        assert!(end.is_err(), "{bytes:?}: {end:?}");
        assert!(!got.contains("0\r\n\r\n"), "{bytes:?}: {got:?}");
    }
}

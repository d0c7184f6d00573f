//! The connection by itself; with the gateway behind it, see the gateway's tests.

use std::io::ErrorKind;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const LIMITS: Limits = Limits { target: 100, headers: 200 };

/// Longer than anything here takes.
const LONG: Duration = Duration::from_mins(1);

async fn pair(first: &[u8], stall: Duration) -> (TcpStream, Protocol, Framed, Arc<Wire>) {
    pair_with(first, Patience { head: LONG, stall }).await
}

async fn pair_with(first: &[u8], patience: Patience) -> (TcpStream, Protocol, Framed, Arc<Wire>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(first).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let wire = Arc::new(Wire::default());
    let (protocol, framed) =
        Framed::accept(Socket::Plain(stream), LIMITS, patience, Arc::clone(&wire)).await.unwrap();
    (client, protocol, framed, wire)
}

fn link() -> HeaderMap {
    HeaderMap::from_iter([(header::LINK, HeaderValue::from_static("</a>"))])
}

const HINT: &[u8] = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";

#[tokio::test]
async fn the_first_bytes_tell_the_protocol_and_are_kept() {
    let (_client, protocol, mut framed, _) = pair(PREFACE, LINGER).await;
    assert_eq!(protocol, Protocol::Http2);
    let mut read = [0; PREFACE.len()];
    framed.read_exact(&mut read).await.unwrap();
    assert_eq!(read, PREFACE);
    let (_client, protocol, ..) = pair(b"PRI / HTTP/1.1", LINGER).await;
    assert_eq!(protocol, Protocol::Http1);
}

#[tokio::test]
async fn a_refused_head_is_replaced_and_noted() {
    let call = b"GET / HTTP/1.1\r\n\r\n";
    let (_client, _, mut framed, wire) =
        pair(&[&call[..], b"GET / HTTP/1.1\r\nA : b\r\n\r\n"].concat(), LINGER).await;
    let mut read = vec![0; call.len() + SUBSTITUTE.len()];
    framed.read_exact(&mut read).await.unwrap();
    assert_eq!(read, [&call[..], SUBSTITUTE].concat());
    assert_eq!(wire.refusal(1), None);
    assert_eq!(wire.refusal(2).map(|(refusal, _)| refusal.code()), Some("validation_error"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up() {
    let (_client, _, mut framed, _) = pair(b"GET", Duration::from_millis(20)).await;
    let piece = vec![0; 1 << 20];
    let error = loop {
        if let Err(error) = framed.write_all(&piece).await {
            break error;
        }
    };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

/// A frame of HTTP/2 with 5 bytes of payload, on stream 1.
fn frame(kind: u8, flags: u8) -> [u8; 14] {
    [0, 0, 5, kind, flags, 0, 0, 0, 1, 0, 1, b'x', 1, b'y']
}

#[tokio::test]
async fn a_head_over_http2_that_does_not_end_is_given_up() {
    let (data, headers, more) = (frame(0, 0), frame(1, 0), frame(9, 0));
    let patience = Patience { head: Duration::from_millis(50), stall: LONG };
    for begun in [&headers[..], &headers[..12], &more, &data[..4]] {
        let first = [PREFACE, &data, begun].concat();
        let (_client, _, mut framed, _) = pair_with(&first, patience).await;
        let mut read = Vec::new();
        let error = framed.read_to_end(&mut read).await.unwrap_err();
        assert_eq!((error.kind(), read), (ErrorKind::TimedOut, first));
    }
}

#[tokio::test]
async fn a_head_over_http2_that_comes_piece_by_piece_is_given_up_too() {
    let patience = Patience { head: Duration::from_millis(50), stall: LONG };
    let (mut client, _, mut framed, _) = pair_with(&[PREFACE, &frame(1, 0)].concat(), patience).await;
    let trickling = tokio::spawn(async move {
        let piece = [0, 0, 1, 9, 0, 0, 0, 0, 1, b'y'];
        while client.write_all(&piece).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert_eq!(framed.read_to_end(&mut Vec::new()).await.unwrap_err().kind(), ErrorKind::TimedOut);
    drop(framed);
    trickling.await.unwrap();
}

#[tokio::test]
async fn a_head_over_http2_that_has_ended_is_waited_for_no_longer() {
    let patience = Patience { head: Duration::from_millis(50), stall: LONG };
    let (mut client, _, mut framed, _) = pair_with(&[PREFACE, &frame(1, 0)].concat(), patience).await;
    let mut read = [0; PREFACE.len() + 14];
    framed.read_exact(&mut read).await.unwrap();
    client.write_all(&frame(9, 4)).await.unwrap();
    framed.read_exact(&mut read[..14]).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(200), framed.read_u8()).await;
    assert!(silent.is_err(), "{silent:?}");
    client.write_all(&frame(0, 0)[..9]).await.unwrap();
    framed.read_exact(&mut read[..9]).await.unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(200), framed.read_u8()).await;
    assert!(silent.is_err(), "the payload of a body is no head: {silent:?}");
}

#[tokio::test]
async fn hints_wait_for_the_end_of_what_is_being_written() {
    let (mut client, _, mut framed, wire) = pair(b"GET", LINGER).await;
    framed.write_all(b"half of answer 1, ").await.unwrap();
    Informational::new(Arc::clone(&wire), 2).send(StatusCode::EARLY_HINTS, &link());
    framed.write_all(b"the other half\r\n").await.unwrap();
    framed.flush().await.unwrap();
    framed.write_all(b"answer 2").await.unwrap();
    drop(framed);
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, [b"half of answer 1, the other half\r\n", HINT, b"answer 2"].concat());
}

#[tokio::test]
async fn hints_that_come_too_late_are_dropped() {
    let (mut client, _, mut framed, wire) = pair(b"GET", LINGER).await;
    framed.write_all(b"answer 1, ").await.unwrap();
    let informational = Informational::new(Arc::clone(&wire), 2);
    informational.send(StatusCode::EARLY_HINTS, &link());
    wire.answered(2, false);
    // The library had the beginning of this answer in its buffer behind the first one.
    framed.write_all(b"answer 2").await.unwrap();
    informational.send(StatusCode::EARLY_HINTS, &link());
    framed.flush().await.unwrap();
    drop(framed);
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert_eq!(String::from_utf8(read).unwrap(), "answer 1, answer 2");
}

//! Checks of what HTTP requests carry against any bytes, for fuzzing.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocket, WebSocketConfig};

use super::console::local_seconds;
use super::form::Form;
use super::frames::{Frames, Kind};
use crate::wire::dpmq::{DATA_FIELD, TOPIC_FIELD, encode_send};
use crate::wire::mended;

/// Bytes that a form may have.
const LIMIT: usize = 1 << 20;

fn read(kind: &[u8], body: &[u8]) -> Option<Form> {
    let request =
        Request::builder().header(header::CONTENT_TYPE, kind).body(Body::from(body.to_vec())).ok()?;
    // The whole body is there: nothing is waited for.
    Form::read(request, LIMIT).now_or_never().expect("nothing to wait for").ok()
}

/// A form: the first line is its type, the rest its body. What our client writes is read as it was meant.
pub(in crate::broker) fn broker_form(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == b'\n').unwrap_or(data.len());
    let (kind, body) = data.split_at(at);
    let body = body.get(1..).unwrap_or_default();
    let form = read(kind, body);
    if let Some(mut form) = form {
        for name in [DATA_FIELD, TOPIC_FIELD, "delayTime", "startTime", "messageCode"] {
            // Three bytes for each bad one are the most that mending makes of it.
            assert!(form.get(name).len() <= body.len() * 3);
            let (value, number) = (form.get(name).to_owned(), form.get(name).parse::<i64>());
            assert_eq!(form.take(name), value);
            assert_eq!(form.get(name), "");
            let _ = (number, local_seconds(&value));
        }
    }
    let text = mended(body);
    let (topic, value) = text.split_once('\n').unwrap_or(("t", &text));
    let form = encode_send(value, topic, || "boundary".to_owned());
    let form = read(form.content_type.as_bytes(), &form.body).filter(|_| form.body.len() <= LIMIT);
    if let Some(form) = form {
        assert_eq!((form.get(TOPIC_FIELD), form.get(DATA_FIELD)), (topic, value));
    }
}

/// Bytes that a WebSocket message may have.
const MOST: usize = 3000;

/// A connection on which these bytes come in pieces of this size, and that takes all that is written.
#[derive(Debug)]
struct Pieces<'a> {
    bytes: &'a [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.size.min(buffer.len());
        self.bytes.read(buffer.get_mut(..size).unwrap_or_default())
    }
}

impl Write for Pieces<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.read(buffer.initialize_unfilled())?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pieces<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Up to the first frame that pings or closes and writes its short length in the long way: that breaks the
/// protocol, which the other reader lets pass.
fn agreed(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    while let Some(&[first, second, ref rest @ ..]) = bytes.get(at..) {
        let (length, head) = match second & 0x7f {
            126 => (rest.first_chunk().map(|length| u64::from(u16::from_be_bytes(*length))), 4),
            127 => (rest.first_chunk().map(|length| u64::from_be_bytes(*length)), 10),
            short => (Some(u64::from(short)), 2),
        };
        if first & 8 != 0 && head > 2 {
            break;
        }
        let next =
            length.and_then(|length| at.checked_add(usize::try_from(length).ok()?)?.checked_add(head + 4));
        let Some(next) = next.filter(|&next| next <= bytes.len()) else { return bytes };
        at = next;
    }
    bytes.get(..at).unwrap_or_default()
}

/// Frames of a client, in pieces of the first byte's size: the messages that another reader finds, whatever the
/// pieces.
pub(in crate::broker) fn ws_frames(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let bytes = agreed(bytes);
    let config = WebSocketConfig::default().max_message_size(Some(MOST)).max_frame_size(Some(MOST));
    let mut theirs =
        WebSocket::from_raw_socket(Pieces { bytes, size: usize::MAX }, Role::Server, Some(config));
    let mut expected = Vec::new();
    loop {
        match theirs.read() {
            Ok(Message::Text(text)) => expected.push((Kind::Text, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => expected.push((Kind::Binary, bytes.to_vec())),
            Ok(Message::Close(_)) | Err(_) => break,
            Ok(_) => {}
        }
    }
    for size in [usize::from(size).max(1), usize::MAX] {
        let mut frames = Frames::over(Pieces { bytes, size }, MOST);
        let mut found = Vec::new();
        // All is there: nothing is waited for.
        while let Ok(kind) = frames.message().now_or_never().expect("nothing to wait for") {
            found.push((kind, frames.payload().to_vec()));
        }
        assert_eq!(found, expected, "in pieces of {size}");
    }
}

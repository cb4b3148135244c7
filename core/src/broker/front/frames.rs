//! The server's side of WebSocket, for connections that carry many small messages: frames are unmasked where
//! they were read and handed out from there, and answers are put down next to each other and written at once.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::socket::{CLOSE_TIMEOUT, End, READ_BYTES};

/// The most that is read at a time, once a connection has shown that it sends much.
const READ_MOST: usize = 128 << 10;
/// What the memory of a buffer is cut down to when it is not needed.
pub(super) const KEPT: usize = 256 << 10;
/// Unwritten bytes beyond which pings are not answered.
const PONGS: usize = 64 << 10;
/// The longest head of a frame.
const HEAD: usize = 14;

const CONTINUED: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const BROKEN: End = End::Closed(1002, "the WebSocket protocol was broken");
const TOO_LARGE: End = End::Closed(1009, "the frame is too large");
const NO_TEXT: End = End::Closed(1007, "invalid UTF-8");

/// A request to speak WebSocket on this connection.
pub(super) struct Handshake {
    answer: HeaderValue,
    upgrade: OnUpgrade,
}

impl<S: Sync> FromRequestParts<S> for Handshake {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Handshake, StatusCode> {
        let named = |name, value: &str| {
            let lines = parts.headers.get_all(name).iter().filter_map(|said| said.to_str().ok());
            lines.flat_map(|said| said.split(',')).any(|word| word.trim().eq_ignore_ascii_case(value))
        };
        let asked = parts.method == Method::GET
            && named(header::CONNECTION, "upgrade")
            && named(header::UPGRADE, "websocket")
            && named(header::SEC_WEBSOCKET_VERSION, "13");
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| asked && is_key(key.as_bytes()));
        let answer = key.and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok());
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let (Some(answer), Some(upgrade)) = (answer, upgrade) else { return Err(StatusCode::BAD_REQUEST) };
        Ok(Handshake { answer, upgrade })
    }
}

/// Whether this is 16 bytes in base64.
fn is_key(key: &[u8]) -> bool {
    let digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && digits.iter().all(digit))
}

impl Handshake {
    /// The answer; `serve` gets the connection once it is written. Messages have at most so many bytes.
    pub(super) fn accept<F>(self, most: usize, serve: impl FnOnce(Frames) -> F + Send + 'static) -> Response
    where
        F: Future<Output = ()> + Send,
    {
        let upgrade = self.upgrade;
        tokio::spawn(async move {
            match upgrade.await {
                Ok(upgraded) => serve(Frames::new(upgraded, most)).await,
                Err(error) => tracing::debug!(%error, "a connection ended before its upgrade"),
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.answer);
        response
    }
}

/// A message that was read; its bytes are [`Frames::payload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is valid UTF-8.
    Text,
    Binary,
}

/// Where the bytes of the last message are.
#[derive(Debug)]
enum Place {
    Input(Range<usize>),
    Parts,
}

/// A connection.
pub(super) struct Frames<S = TokioIo<Upgraded>> {
    stream: S,
    input: Vec<u8>,
    /// What of the input was read and not taken.
    start: usize,
    end: usize,
    /// A message in several frames, so far.
    parts: Vec<u8>,
    /// Its kind, while more of it is to come.
    begun: Option<Kind>,
    last: Place,
    most: usize,
    output: Vec<u8>,
    written: usize,
    close_sent: bool,
    close_read: bool,
}

impl Frames {
    fn new(upgraded: Upgraded, most: usize) -> Frames {
        Frames::over(TokioIo::new(upgraded), most)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    pub(super) fn over(stream: S, most: usize) -> Frames<S> {
        Frames {
            stream,
            input: vec![0; READ_BYTES],
            start: 0,
            end: 0,
            parts: Vec::new(),
            begun: None,
            last: Place::Parts,
            most,
            output: Vec::new(),
            written: 0,
            close_sent: false,
            close_read: false,
        }
    }

    /// Reads the next message. Pings are answered and a close frame is, before the connection counts as gone.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Kind, End>> {
        loop {
            if self.close_read {
                // As far as it goes: nobody waits for it.
                let _ = ready!(self.poll_flush(cx));
                return Poll::Ready(Err(End::Gone));
            }
            match self.parse() {
                Ok(Parsed::Message(kind)) => return Poll::Ready(Ok(kind)),
                Ok(Parsed::Control) => {}
                Ok(Parsed::Incomplete) => match self.poll_fill(cx) {
                    Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Err(End::Gone)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Pending => {
                        // Pongs do not wait for the next answer.
                        return match self.poll_flush(cx) {
                            Poll::Ready(Err(_)) => Poll::Ready(Err(End::Gone)),
                            _ => Poll::Pending,
                        };
                    }
                },
                Err(end) => return Poll::Ready(Err(end)),
            }
        }
    }

    /// See [`Frames::poll_message`].
    pub(super) async fn message(&mut self) -> Result<Kind, End> {
        std::future::poll_fn(|cx| self.poll_message(cx)).await
    }

    /// The bytes of the message read last.
    pub(super) fn payload(&self) -> &[u8] {
        match &self.last {
            Place::Input(range) => self.input.get(range.clone()).unwrap_or_default(),
            Place::Parts => &self.parts,
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.input.len() > KEPT {
                self.input = vec![0; READ_BYTES];
            }
            if self.begun.is_none() && self.parts.capacity() > KEPT {
                // The message in it was taken.
                self.parts = Vec::new();
            }
        } else if self.end == self.input.len() {
            if self.start > 0 {
                self.input.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                // A frame longer than the buffer: never longer than a message may be, see `parse`.
                let length = (self.input.len() * 2).min(self.most.saturating_add(HEAD)).max(READ_BYTES);
                self.input.resize(length, 0);
            }
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        let length = room.len();
        let mut buffer = ReadBuf::new(room);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        self.end += read;
        if read == length && self.start == 0 && self.input.len() < READ_MOST {
            self.input.resize(READ_MOST, 0);
        }
        Poll::Ready(Ok(read))
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        (self.start, self.end) = (0, 0);
        self.poll_fill(cx)
    }

    /// Takes the next frame of what was read.
    fn parse(&mut self) -> Result<Parsed, End> {
        let there = self.input.get(self.start..self.end).unwrap_or_default();
        let &[first, second, ref rest @ ..] = there else { return Ok(Parsed::Incomplete) };
        let (code, is_last) = (first & 0x0f, first & 0x80 != 0);
        // Nothing was agreed to that uses the reserved bits, and a client masks.
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(BROKEN);
        }
        let short = second & 0x7f;
        let (length, head) = match short {
            126 => match rest.first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(Parsed::Incomplete),
            },
            127 => match rest.first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(Parsed::Incomplete),
            },
            length => (u64::from(length), 2),
        };
        match code {
            CONTINUED | TEXT | BINARY => {
                if (code == CONTINUED) != self.begun.is_some() {
                    return Err(BROKEN);
                }
                let before = if code == CONTINUED { self.parts.len() } else { 0 };
                if length > self.most.saturating_sub(before) as u64 {
                    return Err(TOO_LARGE);
                }
            }
            CLOSE | PING | PONG if is_last && short < 126 => {}
            _ => return Err(BROKEN),
        }
        let length = usize::try_from(length).map_err(|_| TOO_LARGE)?;
        let Some(&mask) = there.get(head..).and_then(|rest| rest.first_chunk::<4>()) else {
            return Ok(Parsed::Incomplete);
        };
        let from = self.start + head + mask.len();
        let range = from..from + length;
        if range.end > self.end {
            return Ok(Parsed::Incomplete);
        }
        let payload = self.input.get_mut(range.clone()).unwrap_or_default();
        unmask(payload, mask);
        self.start = range.end;
        match code {
            CLOSE => {
                let payload = payload.to_vec();
                self.closed(&payload)?;
                Ok(Parsed::Control)
            }
            PING => {
                let payload = payload.to_vec();
                if self.output.len() < PONGS {
                    self.push(PONG, &payload);
                }
                Ok(Parsed::Control)
            }
            PONG => Ok(Parsed::Control),
            _ => self.data(code, is_last, range),
        }
    }

    fn data(&mut self, code: u8, is_last: bool, range: Range<usize>) -> Result<Parsed, End> {
        let kind = self.begun.take().unwrap_or(if code == TEXT { Kind::Text } else { Kind::Binary });
        if code == CONTINUED || !is_last {
            if code != CONTINUED {
                self.parts.clear();
                self.parts.shrink_to(KEPT);
            }
            self.parts.extend_from_slice(self.input.get(range).unwrap_or_default());
            if !is_last {
                self.begun = Some(kind);
                return Ok(Parsed::Control);
            }
            self.last = Place::Parts;
        } else {
            self.last = Place::Input(range);
        }
        if kind == Kind::Text && std::str::from_utf8(self.payload()).is_err() {
            return Err(NO_TEXT);
        }
        Ok(Parsed::Message(kind))
    }

    /// The other side closes: it gets its status back.
    fn closed(&mut self, payload: &[u8]) -> Result<(), End> {
        match payload.split_first_chunk() {
            Some((code, reason)) => {
                let allowed = matches!(u16::from_be_bytes(*code), 1000..=1003 | 1007..=1014 | 3000..=4999);
                if !allowed {
                    return Err(BROKEN);
                }
                if std::str::from_utf8(reason).is_err() {
                    return Err(NO_TEXT);
                }
            }
            None if payload.is_empty() => {}
            None => return Err(BROKEN),
        }
        self.close_read = true;
        if !self.close_sent {
            self.close_sent = true;
            self.push(CLOSE, payload);
        }
        Ok(())
    }

    /// Puts a frame down to be written.
    fn push(&mut self, code: u8, payload: &[u8]) {
        self.output.push(0x80 | code);
        match payload.len() {
            length @ 0..=125 => self.output.push(length as u8),
            length => match u16::try_from(length) {
                Ok(length) => {
                    self.output.push(126);
                    self.output.extend_from_slice(&length.to_be_bytes());
                }
                Err(_) => {
                    self.output.push(127);
                    self.output.extend_from_slice(&(length as u64).to_be_bytes());
                }
            },
        }
        self.output.extend_from_slice(payload);
    }

    /// Puts a text down to be written.
    pub(super) fn push_text(&mut self, text: &[u8]) {
        if !self.close_sent {
            self.push(TEXT, text);
        }
    }

    /// Writes what was put down; ready when the last byte is with the kernel.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.output.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(written) => self.written += written,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.written = 0;
        self.output.clear();
        self.output.shrink_to(KEPT);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// See [`Frames::poll_flush`].
    ///
    /// # Errors
    /// That of the connection.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Puts a close frame down, unless one was sent.
    pub(super) fn push_close(&mut self, code: u16, reason: &str) {
        if !self.close_sent {
            self.close_sent = true;
            let mut payload = code.to_be_bytes().to_vec();
            payload.extend_from_slice(reason.as_bytes());
            self.push(CLOSE, &payload);
        }
    }

    /// Ends the connection as said. With a close frame it is read until the other side closed too, so that what
    /// was written before arrives.
    pub(super) async fn finish(&mut self, end: &End) {
        let End::Closed(code, reason) = *end else { return };
        self.push_close(code, reason);
        let goodbye = async {
            if self.flush().await.is_err() {
                return;
            }
            let ended = loop {
                match self.message().await {
                    Ok(_) => {}
                    Err(ended) => break ended,
                }
            };
            // What cannot be understood is read too: a connection that is closed with unread bytes is reset, and
            // the other side may never see the frame.
            if !matches!(ended, End::Gone) {
                while matches!(std::future::poll_fn(|cx| self.poll_discard(cx)).await, Ok(1..)) {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

enum Parsed {
    Message(Kind),
    /// Nothing for the caller.
    Control,
    Incomplete,
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let long = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ long).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;

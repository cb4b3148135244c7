//! A WebSocket client that does as little as it can: frames are encoded once and written many at a time, and
//! answers are compared as bytes. With it the broker is measured, not a client library.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::measure::{Failure, STALLED};

/// What a server answers to each message: a text frame with `ok`.
pub(crate) const OK: &[u8; 4] = b"\x81\x02ok";
/// Every frame has the same mask, which no server knows.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// What is read at a time.
const BUFFER: usize = 256 << 10;
/// Where the body begins in a frame of [`send_frame`] of 126 to 65,535 bytes: at a multiple of the mask.
const BODY_AT: usize = 8 + 16;
/// Digits of a numbered body.
pub(crate) const DIGITS: usize = 10;

/// Appends a payload as a masked text frame.
pub(crate) fn push_frame(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x81);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Appends an empty ping.
pub(crate) fn push_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0x89, 0x80]);
    out.extend_from_slice(&MASK);
}

/// The producer's frame for a body of so many bytes.
pub(crate) fn send_frame(size: usize) -> Vec<u8> {
    let mut payload = br#"{"MessageData":""#.to_vec();
    payload.resize(payload.len() + size, b'x');
    payload.extend_from_slice(br#"","DelayTime":0}"#);
    let mut frame = Vec::new();
    push_frame(&mut frame, &payload);
    frame
}

/// Replaces the first digits of the body by a number.
pub(crate) fn number_frame(frame: &mut [u8], number: u64) {
    let digits = frame.get_mut(BODY_AT..BODY_AT + DIGITS).unwrap_or_default();
    let mut rest = number;
    for (at, digit) in digits.iter_mut().enumerate().rev() {
        *digit = (b'0' + (rest % 10) as u8) ^ MASK.get(at % 4).copied().unwrap_or(0);
        rest /= 10;
    }
}

/// A connection that is logged in.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    /// What of the buffer is read and not taken.
    start: usize,
    end: usize,
    /// To be written, and how much of it is.
    out: Vec<u8>,
    written: usize,
}

impl Raw {
    /// A connection without a handshake.
    pub(crate) fn connect(address: &str) -> Result<Raw, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALLED))?;
        Ok(Raw::over(stream))
    }

    /// A further half of a connection.
    pub(crate) fn over(stream: TcpStream) -> Raw {
        Raw { stream, buffer: vec![0; BUFFER], start: 0, end: 0, out: Vec::new(), written: 0 }
    }

    /// A connection that is upgraded, and logged in where there is a login.
    pub(crate) fn open(address: &str, path: &str, login: bool) -> Result<Raw, Failure> {
        let mut raw = Raw::connect(address)?;
        write!(
            raw.stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )?;
        let head = loop {
            if let Some(at) = raw.there().windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(raw.take(at + 4)).into_owned();
                break head;
            }
            raw.fill()?;
        };
        if !head.starts_with("HTTP/1.1 101") {
            return Err(format!("no upgrade: {}", head.lines().next().unwrap_or_default()).into());
        }
        if login {
            raw.expect(b"Please enter the secret key")?;
            push_frame(&mut raw.out, std::env::var("CEIBA_SECRET")?.as_bytes());
            raw.flush()?;
            raw.expect(b"Secret key matching succeeded")?;
        }
        Ok(raw)
    }

    fn expect(&mut self, text: &[u8]) -> Result<(), Failure> {
        loop {
            if let Some((_, payload)) = self.frame()? {
                return if payload == text { Ok(()) } else { Err("the login failed".into()) };
            }
            self.fill()?;
        }
    }

    /// What was read and not taken.
    pub(crate) fn there(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes so many bytes of what is there.
    pub(crate) fn take(&mut self, bytes: usize) -> &[u8] {
        let from = self.start;
        self.start = (from + bytes).min(self.end);
        self.buffer.get(from..self.start).unwrap_or_default()
    }

    /// Takes the next frame, if it is there: its first byte and its payload. The server does not mask.
    pub(crate) fn frame(&mut self) -> Result<Option<(u8, &[u8])>, Failure> {
        let (first, head, length) = match *self.there() {
            [first, 126, high, low, ..] => (first, 4, usize::from(u16::from_be_bytes([high, low]))),
            [_, 126, ..] => return Ok(None),
            [_, 127..=255, ..] => return Err("a frame that no server sends here".into()),
            [first, length, ..] => (first, 2, usize::from(length)),
            _ => return Ok(None),
        };
        if self.there().len() < head + length {
            return Ok(None);
        }
        Ok(Some((first, self.take(head + length).get(head..).unwrap_or_default())))
    }

    /// Reads what has come, at least a byte; false when nothing has and the connection does not block.
    pub(crate) fn fill(&mut self) -> Result<bool, Failure> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        match self.stream.read(self.buffer.get_mut(self.end..).unwrap_or_default()) {
            Ok(0) => Err("the server closed the connection".into()),
            Ok(read) => {
                self.end += read;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Where bytes to be written are put.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Writes what waits to be written, as far as it goes.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        while self.has_unwritten() {
            match self.stream.write(self.out.get(self.written..).unwrap_or_default()) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        self.written < self.out.len()
    }

    /// Takes the answers to messages that are there and counts them.
    pub(crate) fn answers(&mut self) -> Result<usize, Failure> {
        let whole = self.there().len() / OK.len() * OK.len();
        let answers = self.take(whole);
        if answers.chunks_exact(OK.len()).any(|answer| answer != OK) {
            let text = String::from_utf8_lossy(answers).chars().take(80).collect::<String>();
            return Err(format!("an answer that is no `ok`: {text:?}").into());
        }
        Ok(whole / OK.len())
    }

    /// Waits for one answer.
    pub(crate) fn answer(&mut self) -> Result<(), Failure> {
        while self.there().len() < OK.len() {
            self.fill()?;
        }
        if self.take(OK.len()) == OK { Ok(()) } else { Err("an answer that is no `ok`".into()) }
    }
}

/// Waits until one of the connections can be read, or written where it has something to write.
pub(crate) fn wait_for(connections: &[&Raw]) -> Result<(), Failure> {
    let mut fds: Vec<PollFd<'_>> = connections
        .iter()
        .map(|raw| {
            let write = if raw.has_unwritten() { PollFlags::OUT } else { PollFlags::empty() };
            PollFd::new(&raw.stream, PollFlags::IN | write)
        })
        .collect();
    let most = Timespec { tv_sec: STALLED.as_secs().try_into()?, tv_nsec: 0 };
    if poll(&mut fds, Some(&most))? == 0 {
        return Err("the server stalled".into());
    }
    Ok(())
}

/// Percentiles of times in nanoseconds, as microseconds.
pub(crate) fn percentiles(mut times: Vec<u64>) -> serde_json::Value {
    times.sort_unstable();
    let at = |part: usize| {
        times.get(times.len().saturating_sub(1) * part / 1000).map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    serde_json::json!({"p50_us": at(500), "p90_us": at(900), "p99_us": at(990), "p999_us": at(999), "max_us": at(1000)})
}

/// Nanoseconds since then.
pub(crate) fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

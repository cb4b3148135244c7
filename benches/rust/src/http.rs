//! Sends by HTTP on connections that are kept, one request at a time on each.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Arguments;
use crate::measure::{Failure, Stopwatch};
use crate::raw::{Raw, wait_for};

const LENGTH: &[u8] = b"content-length: ";

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let body = format!("messageData={}&topic={}&delayTime=0", "x".repeat(arguments.size), arguments.topic);
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nsecretKey: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{body}",
        arguments.path,
        arguments.addr,
        std::env::var("CEIBA_SECRET")?,
        body.len(),
    );
    let wanted = Wanted { status: b"http/1.1 200", part: br#""code":0"# };
    rounds(arguments, "http", request.as_bytes(), &wanted)
}

/// What an answer must have.
pub(crate) struct Wanted {
    /// Its first bytes, in small letters.
    pub(crate) status: &'static [u8],
    /// A part of it.
    pub(crate) part: &'static [u8],
}

/// The same request again and again, one at a time on each connection.
pub(crate) fn rounds(
    arguments: &Arguments,
    mode: &str,
    request: &[u8],
    wanted: &Wanted,
) -> Result<Value, Failure> {
    let mut connections = Vec::new();
    for _ in 0..arguments.clients {
        let raw = Raw::connect(&arguments.addr)?;
        raw.stream.set_nonblocking(true)?;
        connections.push((raw, false));
    }
    let watch = Stopwatch::start();
    let until = watch.start + Duration::from_secs_f64(arguments.seconds);
    let mut messages = 0;
    loop {
        let over = Instant::now() >= until;
        let mut moved = false;
        for (raw, asked) in &mut connections {
            if *asked && raw.fill()? && answered(raw, wanted)? {
                (*asked, moved) = (false, true);
                messages += 1;
            }
            if !*asked && !over {
                raw.out().extend_from_slice(request);
                *asked = true;
            }
            raw.flush()?;
        }
        if over && connections.iter().all(|(_, asked)| !asked) {
            break;
        }
        if !moved {
            wait_for(&connections.iter().map(|(raw, _)| raw).collect::<Vec<_>>())?;
        }
    }
    Ok(watch.line(arguments, mode, messages, Instant::now()))
}

/// Takes the answer, if all of it is there.
fn answered(raw: &mut Raw, wanted: &Wanted) -> Result<bool, Failure> {
    let there = raw.there();
    let Some(end) = there.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(false) };
    let head = there.get(..end).unwrap_or_default().to_ascii_lowercase();
    let at =
        head.windows(LENGTH.len()).position(|bytes| bytes == LENGTH).ok_or("an answer without a length")?;
    let digits = head.get(at + LENGTH.len()..).unwrap_or_default();
    let length = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let length = length.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    let whole = end + 4 + length;
    if there.len() < whole {
        return Ok(false);
    }
    let answer = raw.take(whole);
    let there = answer.windows(wanted.part.len()).any(|bytes| bytes == wanted.part);
    if !head.starts_with(wanted.status) || !there {
        return Err(format!("a send was refused: {}", String::from_utf8_lossy(answer)).into());
    }
    Ok(true)
}

//! How long one message takes: a serial send until its answer, and a delivery at an even rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};

use crate::Arguments;
use crate::measure::Failure;
use crate::raw::{DIGITS, Raw, nanoseconds, number_frame, percentiles, push_frame, send_frame};

/// Messages before the first that counts.
const WARM_UP: u64 = 200;
/// Fewer times than this have no percentiles that mean anything.
const LEAST: usize = 200;
/// Without a delivery for this long after the last send, the rest is lost.
const SILENT: Duration = Duration::from_secs(2);
/// How long one measurement goes on for that.
const LONGEST: Duration = Duration::from_secs(20);
const CODE: std::ops::Range<usize> = 16..48;
/// What precedes the number in a push, and in an echo.
const IN_PUSH: usize = 65;
const IN_ECHO: usize = 16;

/// One message at a time, on a broker or (without a handshake) the bare server.
pub(crate) fn serial(arguments: &Arguments, bare: bool) -> Result<Value, Failure> {
    let frame = send_frame(arguments.size);
    let mut raw = if bare {
        Raw::connect(&arguments.addr)?
    } else {
        Raw::open(&arguments.addr, &format!("/Producers/Conn/{}/p", arguments.topic), true)?
    };
    let mut times = Vec::new();
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(arguments.seconds);
    let mut number = 0;
    // On a slow disk as long as it takes to have enough of them, within a bound.
    while Instant::now() < until || (times.len() < LEAST && start.elapsed() < LONGEST) {
        let sent = Instant::now();
        raw.out().extend_from_slice(&frame);
        raw.flush()?;
        raw.answer()?;
        number += 1;
        if number > WARM_UP {
            times.push(nanoseconds(sent));
        }
    }
    line("serial", times, start)
}

/// Messages at an even rate, from the write of a send to the read of its delivery, or of its echo.
pub(crate) fn delivery(arguments: &Arguments, echo: bool) -> Result<Value, Failure> {
    let topic = &arguments.topic;
    let (mut receiver, sender) = if echo {
        let raw = Raw::open(&arguments.addr, "/", false)?;
        let sender = raw.stream.try_clone()?;
        (raw, Raw::over(sender))
    } else {
        let consumer = Raw::open(&arguments.addr, &format!("/Consumers/Conn/{topic}/c"), true)?;
        (consumer, Raw::open(&arguments.addr, &format!("/Producers/Conn/{topic}/p"), true)?)
    };
    let count = (arguments.seconds * arguments.rate) as u64 + WARM_UP;
    let sent: Arc<Vec<AtomicU64>> = Arc::new((0..count).map(|_| AtomicU64::new(0)).collect());
    let start = Instant::now();
    let sending = std::thread::spawn({
        let (sent, size, rate) = (Arc::clone(&sent), arguments.size, arguments.rate);
        move || send_evenly(sender, &sent, size, rate, start, !echo)
    });
    receiver.stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut times = Vec::new();
    let mut come = 0;
    let mut last = Instant::now();
    while come < count && !(sending.is_finished() && last.elapsed() > SILENT) {
        let now = nanoseconds(start);
        let mut codes = Vec::new();
        while let Some((_, payload)) = receiver.frame()? {
            let at = if echo { IN_ECHO } else { IN_PUSH };
            let digits = payload.get(at..at + DIGITS).ok_or("a short frame")?;
            let number =
                digits.iter().fold(0, |number, digit| number * 10 + usize::from(digit.wrapping_sub(b'0')));
            let sent = sent.get(number).ok_or("a number that was not sent")?.load(Ordering::Acquire);
            if come >= WARM_UP {
                times.push(now - sent);
            }
            come += 1;
            last = Instant::now();
            if !echo {
                push_frame(&mut codes, payload.get(CODE).ok_or("a short frame")?);
            }
        }
        receiver.out().extend_from_slice(&codes);
        receiver.flush()?;
        if come < count {
            receiver.fill()?;
        }
    }
    sending.join().map_err(|_| "the sender failed")??;
    let mut line = line("delivery", times, start)?;
    if let Some(line) = line.as_object_mut() {
        line.insert("lost".to_owned(), (count - come).into());
    }
    Ok(line)
}

fn send_evenly(
    mut raw: Raw,
    sent: &[AtomicU64],
    size: usize,
    rate: f64,
    start: Instant,
    answered: bool,
) -> Result<(), Failure> {
    let mut frame = send_frame(size);
    for (number, (place, at)) in sent.iter().zip(0u32..).enumerate() {
        let due = start + Duration::from_secs_f64(f64::from(at) / rate);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        number_frame(&mut frame, number as u64);
        raw.out().extend_from_slice(&frame);
        place.store(nanoseconds(start), Ordering::Release);
        raw.flush()?;
        // A client that has its answers waiting is slowed down by none of them.
        if answered && number % 64 == 63 {
            for _ in 0..64 {
                raw.answer()?;
            }
        }
    }
    Ok(())
}

/// Sends every message back: WebSocket, and nothing else. Prints its address and serves one connection.
pub(crate) fn echo_server() -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let messages = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {}", listener.local_addr()?);
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut socket = tokio_tungstenite::accept_async(stream).await?;
        let mut messages = 0u64;
        while let Some(Ok(message)) = socket.next().await {
            if socket.send(message).await.is_err() {
                break;
            }
            messages += 1;
        }
        Ok::<u64, Failure>(messages)
    })?;
    Ok(json!({"mode": "echo-server", "messages": messages}))
}

fn line(mode: &str, times: Vec<u64>, start: Instant) -> Result<Value, Failure> {
    let messages = times.len();
    if messages < LEAST {
        return Err(format!("{messages} messages are too few for percentiles: measure longer").into());
    }
    let mut line = json!({
        "mode": mode,
        "messages": messages,
        "rate": messages as f64 / start.elapsed().as_secs_f64(),
    });
    if let (Some(line), Value::Object(times)) = (line.as_object_mut(), percentiles(times)) {
        line.extend(times);
    }
    Ok(line)
}

//! Sends with so many unanswered on each connection, without a client library.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Arguments;
use crate::measure::{Failure, Stopwatch};
use crate::raw::{Raw, send_frame, wait_for};

struct Producer {
    raw: Raw,
    sent: u64,
    answered: u64,
}

/// On a broker, or (without a handshake) the bare server.
pub(crate) fn run(arguments: &Arguments, bare: bool) -> Result<Value, Failure> {
    let frame = send_frame(arguments.size);
    let block = frame.repeat(arguments.window);
    let mut producers = Vec::new();
    for index in 0..arguments.clients {
        let path = format!("/Producers/Conn/{}/p{index}", arguments.topic);
        let raw =
            if bare { Raw::connect(&arguments.addr)? } else { Raw::open(&arguments.addr, &path, true)? };
        raw.stream.set_nonblocking(true)?;
        producers.push(Producer { raw, sent: 0, answered: 0 });
    }
    let limit = if arguments.limit == 0 { u64::MAX } else { arguments.limit };
    let watch = Stopwatch::start();
    let until = watch.start + Duration::from_secs_f64(arguments.seconds);
    let mut total = 0;
    loop {
        let over = Instant::now() >= until || total >= limit;
        let mut moved = false;
        for producer in &mut producers {
            if producer.raw.fill()? {
                producer.answered += producer.raw.answers()? as u64;
                moved = true;
            }
            if producer.raw.has_unwritten() {
                producer.raw.flush()?;
                continue;
            }
            let free = (arguments.window as u64).saturating_sub(producer.sent - producer.answered);
            let free = free.min(limit - total);
            if over || free == 0 {
                continue;
            }
            // All that may go goes with one write.
            let bytes = usize::try_from(free)? * frame.len();
            producer.raw.out().extend_from_slice(block.get(..bytes).unwrap_or_default());
            producer.raw.flush()?;
            producer.sent += free;
            total += free;
        }
        if over && producers.iter().all(|producer| producer.sent == producer.answered) {
            break;
        }
        if !moved {
            wait_for(&producers.iter().map(|producer| &producer.raw).collect::<Vec<_>>())?;
        }
    }
    Ok(watch.line(arguments, "window", total, Instant::now()))
}

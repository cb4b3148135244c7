//! A producer and a consumer that acknowledges, without a client library. Bodies are numbered: each message must
//! come exactly once.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Arguments;
use crate::measure::{Failure, Stopwatch};
use crate::raw::{DIGITS, Raw, number_frame, push_frame, push_ping, send_frame, wait_for};

const BEFORE_CODE: &[u8] = br#"{"MessageCode":""#;
const BEFORE_DATA: &[u8] = br#"","MessageData":""#;
const CODE: usize = 32;
const PONG: u8 = 0x8a;

/// What came of the messages that were sent.
#[derive(Default)]
struct Seen {
    bits: Vec<u64>,
    distinct: u64,
    again: u64,
}

impl Seen {
    fn note(&mut self, number: u64) {
        let (word, bit) = ((number / 64) as usize, 1u64 << (number % 64));
        if self.bits.len() <= word {
            self.bits.resize((word + 1).next_power_of_two(), 0);
        }
        let Some(word) = self.bits.get_mut(word) else { return };
        if *word & bit == 0 {
            *word |= bit;
            self.distinct += 1;
        } else {
            self.again += 1;
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let template = send_frame(arguments.size);
    let topic = &arguments.topic;
    let mut consumer = Raw::open(&arguments.addr, &format!("/Consumers/Conn/{topic}/c"), true)?;
    let mut producer = Raw::open(&arguments.addr, &format!("/Producers/Conn/{topic}/p"), true)?;
    consumer.stream.set_nonblocking(true)?;
    producer.stream.set_nonblocking(true)?;
    let watch = Stopwatch::start();
    let until = watch.start + Duration::from_secs_f64(arguments.seconds);
    let (mut sent, mut answered, mut seen) = (0u64, 0u64, Seen::default());
    // All is over when the pong comes to a ping that was sent after the last ack.
    let (mut pinged, mut ended) = (false, false);
    while !ended {
        let over = Instant::now() >= until;
        let mut moved = false;
        if producer.fill()? {
            answered += producer.answers()? as u64;
            moved = true;
        }
        let free = (arguments.window as u64).saturating_sub(sent - answered);
        if !over && free > 0 && !producer.has_unwritten() {
            for _ in 0..free {
                let out = producer.out();
                let at = out.len();
                out.extend_from_slice(&template);
                number_frame(out.get_mut(at..).unwrap_or_default(), sent);
                sent += 1;
            }
        }
        producer.flush()?;
        if consumer.fill()? {
            moved = true;
            ended = take(&mut consumer, &mut seen)?;
        }
        if over && !pinged && answered == sent && seen.distinct == sent {
            pinged = true;
            push_ping(consumer.out());
        }
        consumer.flush()?;
        if !moved && !ended {
            wait_for(&[&producer, &consumer])?;
        }
    }
    let end = Instant::now();
    if seen.again > 0 {
        return Err(format!("{} messages came twice", seen.again).into());
    }
    Ok(watch.line(arguments, "flow", sent, end))
}

/// Takes all pushes that are there and puts their acks down to be written; says whether the pong came.
fn take(consumer: &mut Raw, seen: &mut Seen) -> Result<bool, Failure> {
    let mut acks = std::mem::take(consumer.out());
    let mut ponged = false;
    while let Some((first, payload)) = consumer.frame()? {
        if first == PONG {
            ponged = true;
            continue;
        }
        let code = payload.strip_prefix(BEFORE_CODE).and_then(|rest| rest.split_at_checked(CODE));
        let number = code.and_then(|(_, rest)| rest.strip_prefix(BEFORE_DATA)?.get(..DIGITS));
        let (Some((code, _)), Some(digits)) = (code, number) else {
            return Err("a push that is none".into());
        };
        seen.note(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0'))));
        push_frame(&mut acks, code);
    }
    *consumer.out() = acks;
    Ok(ponged)
}

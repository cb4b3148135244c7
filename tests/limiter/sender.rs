//! One of several processes that send under one limit. It is told the limit as JSON, how many tasks send, how long
//! each send takes, how long it goes on and the deadline of a send; it prints a line for each grant: the microseconds before and after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[expect(dead_code, reason = "the test uses the rest")]
#[path = "inner.rs"]
mod inner;

use std::io::Write;
use std::time::{Duration, Instant};

use ceiba_core::error::Kind;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let config = serde_json::from_str(&arguments[1]).unwrap();
    let number = |place: usize| arguments[place].parse::<u64>().unwrap();
    let tasks = number(2);
    let [takes, lasts, within] = [3, 4, 5].map(|place| Duration::from_micros(number(place)));
    let below = inner::Inner::new(takes);
    let producer = inner::limited(&config, &below);
    let started = Instant::now();
    let senders: Vec<_> = (0..tasks)
        .map(|_| {
            let producer = producer.clone();
            tokio::spawn(async move {
                let (mut grants, mut limited) = (Vec::new(), 0_u64);
                while started.elapsed() < lasts {
                    let before = inner::micros();
                    match inner::send(&producer, within).await {
                        Ok(()) => grants.push((before, inner::micros())),
                        // The deadline may also pass while Redis is asked.
                        Err(error) if [Kind::Limited, Kind::Timeout].contains(&error.kind()) => limited += 1,
                        Err(error) => panic!("{error:?}"),
                    }
                }
                (grants, limited)
            })
        })
        .collect();
    let mut refused = 0;
    let mut out = std::io::stdout().lock();
    for sender in senders {
        let (grants, limited) = sender.await.unwrap();
        refused += limited;
        for (before, after) in grants {
            writeln!(out, "grant {before} {after}").unwrap();
        }
    }
    for (begin, end) in below.runs() {
        writeln!(out, "run {begin} {end}").unwrap();
    }
    writeln!(out, "limited {refused}").unwrap();
    let ctx = ceiba_core::client::Context::within(Duration::from_secs(5));
    producer.close(&ctx).await.unwrap();
}

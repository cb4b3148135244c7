//! A process with an outbox, to be killed. Its arguments are the outbox's section as JSON, the file that stands for the
//! other side, the number of the first message, how many to send, and how many bytes each has at least; then it waits
//! until nothing is left.
//!
//! The other side's file has a line when a send begins, `begin MESSAGE NUMBER PID`, and when it ends, `end …` or
//! `fail …`. Standard output has `accepted MESSAGE` when a receipt says so, and at last `empty`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ceiba_core::client::{BoxFuture, Capability, Context, Producer};
use ceiba_core::clock::Clock;
use ceiba_core::error::{Error, Kind, Outcome, Result};
use ceiba_core::message::{Message, Receipt};
use ceiba_core::outbox::{Section, Setup};
use ceiba_core::random::Random;
use serde_json::{Value, json};

/// How long a send may take.
const DEADLINE: Duration = Duration::from_millis(300);

/// The other side. Every third message fails at its first attempt in each process.
struct OtherSide {
    file: File,
    tried: Mutex<HashSet<u64>>,
}

impl OtherSide {
    // In one write each, so that the lines of two processes do not mix.
    fn note(&self, what: &str, message: &Message) {
        let line = format!("{what} {} {} {}\n", number_of(message), message.number(), std::process::id());
        (&self.file).write_all(line.as_bytes()).unwrap();
    }
}

fn number_of(message: &Message) -> u64 {
    std::str::from_utf8(message.body()).unwrap().trim_end().parse().unwrap()
}

impl Producer for OtherSide {
    fn provider(&self) -> &'static str {
        "file"
    }

    fn capability(&self) -> Capability {
        Capability::default()
    }

    fn send<'a>(&'a self, _ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move {
            let number = number_of(&message);
            let first = self.tried.lock().unwrap().insert(number);
            self.note("begin", &message);
            tokio::time::sleep(Duration::from_micros(number % 7 * 300)).await;
            if number.is_multiple_of(3) && first {
                self.note("fail", &message);
                return Err(
                    Error::new(Kind::Unavailable, "the first attempt fails").outcome_is(Outcome::NotSent)
                );
            }
            self.note("end", &message);
            Ok(Receipt::sent("file"))
        })
    }

    fn flush<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn status(&self) -> Value {
        json!({})
    }

    fn close<'a>(&'a self, _ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let section: Value = serde_json::from_str(&arguments[1]).unwrap();
    let file = File::options().append(true).create(true).open(&arguments[2]).unwrap();
    let [first, count, bytes] = [3, 4, 5].map(|place| arguments[place].parse::<u64>().unwrap());
    let inner = Arc::new(OtherSide { file, tried: Mutex::default() });
    let setup = Setup {
        id: "orders".into(),
        deadline: DEADLINE,
        clock: Clock::from_system(),
        random: Random::from_system(),
        notifier: None,
    };
    let section = Section::parse(section.as_object().unwrap().clone(), DEADLINE).unwrap();
    let outbox = section.wrap(setup, inner).await.unwrap();
    // The MongoDB of the tests takes one command at a time, and reads all rows for each.
    let ctx = || Context::within(Duration::from_secs(60));
    let next = Arc::new(std::sync::atomic::AtomicU64::new(first));
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (next, outbox) = (next.clone(), outbox.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if number >= first + count {
                        return;
                    }
                    let mut body = number.to_string();
                    body.push_str(&" ".repeat((bytes as usize).saturating_sub(body.len())));
                    outbox.send(&ctx(), Arc::new(Message::new(body))).await.unwrap();
                    let line = format!("accepted {number}\n");
                    std::io::stdout().write_all(line.as_bytes()).unwrap();
                    std::io::stdout().flush().unwrap();
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    loop {
        let asked = Instant::now();
        match outbox.desk().stats(&ctx(), json!({})).await {
            Ok(stats) => {
                let of = |state: &str| stats["producers"][0][state].as_u64().unwrap();
                if of("pending") + of("leased") == 0 {
                    assert_eq!(of("dead"), 0, "none is given up");
                    break;
                }
            }
            Err(error) => eprintln!("the rows were not counted: {error}"),
        }
        // A store that takes long to count has other things to do.
        let pause = (asked.elapsed() * 10).clamp(Duration::from_millis(10), Duration::from_secs(5));
        tokio::time::sleep(pause).await;
    }
    println!("empty");
    outbox.close(&ctx()).await.unwrap();
}

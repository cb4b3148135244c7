//! Measures ceiba from Rust and prints one line of JSON.
//!
//! `acked` and `e2e` talk to a broker whose address is given; `submit` and `limiter` need no network, and
//! `redis_limiter` starts the server that it needs.
//! The secret is read from the environment variable `CEIBA_SECRET`.

mod acked;
mod consume;
mod disk;
mod e2e;
mod flow;
mod http;
mod latency;
mod limiter;
mod measure;
mod mns;
mod mns_floor;
mod outbox;
mod produce;
mod raw;
mod redis_limiter;
mod strategies;
mod submit;
mod window;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

#[derive(Debug, Clone, Copy, ValueEnum, PartialEq, Eq)]
enum Mode {
    /// Submits to a broker until each has its receipt.
    Acked,
    /// The same, with as many consumers that acknowledge what they receive.
    E2e,
    /// What a submit costs its caller, in bursts, without a network.
    Submit,
    /// What strategies cost a send.
    Strategies,
    /// What a rate limit costs a send.
    Limiter,
    /// How many sends a limit in Redis lets through, beside redis-benchmark; both programs are started.
    #[value(name = "redis_limiter")]
    RedisLimiter,
    /// How fast rows go into an outbox and are claimed, beside bare SQLite.
    Outbox,
    /// Sends with a window on each connection, without a client library.
    Window,
    /// The same against `floor-server`.
    FloorWindow,
    /// The same with a consumer that acknowledges.
    Flow,
    /// One send after the other.
    Serial,
    /// The same against `floor-server`.
    Floor,
    /// Deliveries at an even rate.
    Delivery,
    /// The same against `echo-server`.
    Echo,
    /// Sends by HTTP.
    Http,
    /// Sends to an MNS queue, one message in a request.
    #[value(name = "mns_send")]
    MnsSend,
    /// The same, sixteen in a request.
    #[value(name = "mns_batch")]
    MnsBatch,
    /// Receives and acknowledges what was sent to an MNS queue before.
    #[value(name = "mns_take")]
    MnsTake,
    /// Sends to an MNS queue without a client library: requests that were signed before.
    #[value(name = "mns_raw")]
    MnsRaw,
    /// The same against `mns-floor-server`.
    #[value(name = "mns_floor")]
    MnsFloor,
    /// Appends to a file without a broker: one sync for each window of messages.
    Limit,
    /// Writes and syncs each message before it answers.
    FloorServer,
    /// Sends every WebSocket message back.
    EchoServer,
    /// Answers each request with the bytes that the front of MNS answers a send with.
    MnsFloorServer,
}

#[derive(Debug, Clone, Parser)]
struct Arguments {
    #[arg(long, value_enum)]
    mode: Mode,
    /// HOST:PORT of the broker.
    #[arg(long, default_value = "127.0.0.1:8011")]
    addr: String,
    #[arg(long, default_value = "bench")]
    topic: String,
    /// Producer ids, each with a connection and a thread of its own.
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Bytes of a body.
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// How long to submit.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Messages after which to stop before that; 0 for none.
    #[arg(long, default_value_t = 0)]
    limit: u64,
    /// Sends without an answer on each connection.
    #[arg(long, default_value_t = 64)]
    window: usize,
    /// Messages per second, where they are sent at an even rate.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Where messages are sent by HTTP.
    #[arg(long, default_value = "/ProducerSend")]
    path: String,
    /// Folder of the files that `limit`, `floor-server` and `outbox` write to.
    #[arg(long)]
    data: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let line = match arguments.mode {
        Mode::Acked => acked::run(&arguments),
        Mode::E2e => e2e::run(&arguments),
        Mode::Submit => submit::run(&arguments),
        Mode::Strategies => strategies::run(&arguments),
        Mode::Limiter => limiter::run(&arguments),
        Mode::RedisLimiter => redis_limiter::run(&arguments),
        Mode::Outbox => outbox::run(&arguments),
        Mode::Window => window::run(&arguments, false),
        Mode::FloorWindow => window::run(&arguments, true),
        Mode::Flow => flow::run(&arguments),
        Mode::Serial => latency::serial(&arguments, false),
        Mode::Floor => latency::serial(&arguments, true),
        Mode::Delivery => latency::delivery(&arguments, false),
        Mode::Echo => latency::delivery(&arguments, true),
        Mode::Http => http::run(&arguments),
        Mode::Limit => disk::limit(&arguments),
        Mode::FloorServer => disk::floor_server(&arguments),
        Mode::EchoServer => latency::echo_server(),
        Mode::MnsSend => mns::send(&arguments, 1),
        Mode::MnsBatch => mns::send(&arguments, mns::BATCH),
        Mode::MnsTake => mns::take(&arguments),
        Mode::MnsRaw => mns_floor::run(&arguments, "mns_raw"),
        Mode::MnsFloor => mns_floor::run(&arguments, "mns_floor"),
        Mode::MnsFloorServer => mns_floor::serve(),
    };
    match line {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("ceiba-benches: {error}");
            ExitCode::FAILURE
        }
    }
}

//! Measures ceiba from Rust and prints one line of JSON.
//!
//! `acked` and `e2e` talk to a broker whose address is given; `submit` and `limiter` need no network, and
//! `redis_limiter` starts the server that it needs.
//! The secret is read from the environment variable `CEIBA_SECRET`.

mod acked;
mod consume;
mod e2e;
mod limiter;
mod measure;
mod produce;
mod redis_limiter;
mod submit;

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
    /// What a rate limit costs a send.
    Limiter,
    /// How many sends a limit in Redis lets through, beside redis-benchmark; both programs are started.
    #[value(name = "redis_limiter")]
    RedisLimiter,
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
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let line = match arguments.mode {
        Mode::Acked => acked::run(&arguments),
        Mode::E2e => e2e::run(&arguments),
        Mode::Submit => submit::run(&arguments),
        Mode::Limiter => limiter::run(&arguments),
        Mode::RedisLimiter => redis_limiter::run(&arguments),
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

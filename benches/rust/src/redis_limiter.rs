//! How many sends a second a limit in Redis lets through, beside `redis-benchmark` with the same script on the same
//! server.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ceiba_core::client::{Context, Producer};
use ceiba_core::error::Error;
use ceiba_core::message::Message;
use ceiba_core::runtime;
use serde_json::{Map, Value, json};

use crate::Arguments;
use crate::limiter::{Nothing, limited};
use crate::measure::{Failure, median};

const SCRIPT: &str = include_str!("../../../core/src/strategy/rate_limit/store/sliding_window.lua");
/// Sends under way at once.
const AT_ONCE: [usize; 2] = [1, 50];
/// As many as nobody can send: each is granted.
const RATE: u64 = 1000;

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Server, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .current_dir(std::env::temp_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("redis-server does not start: {error}"))?;
        let server = Server { child, port };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if Instant::now() > until {
                return Err("redis-server does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Tells it the script; its name there.
    fn load(&self) -> Result<String, Failure> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        write!(stream, "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n${}\r\n{SCRIPT}\r\n", SCRIPT.len())?;
        let mut lines = BufReader::new(stream).lines();
        let (length, name) = (lines.next().transpose()?, lines.next().transpose()?);
        match (length.as_deref(), name) {
            (Some("$40"), Some(name)) => Ok(name),
            (length, _) => Err(format!("redis-server does not take the script: {length:?}").into()),
        }
    }

    fn benchmark(&self, script: &str, at_once: usize, requests: u64) -> Result<f64, Failure> {
        let done = Command::new("redis-benchmark")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--csv"])
            .args(["-c", &at_once.to_string(), "-n", &requests.to_string()])
            // Each call has another name, as ours have.
            .args(["-r", "1000000000000"])
            .args(["EVALSHA", script, "1", "benchmark", &RATE.to_string(), "1000", "1001", "__rand_int__"])
            .output()?;
        let text = String::from_utf8(done.stdout)?;
        let line = text.lines().last().unwrap_or_default();
        let rate = line.rsplit("\",\"").nth(6).and_then(|rate| rate.parse().ok());
        rate.ok_or_else(|| format!("redis-benchmark says {line:?}").into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let server = Server::start()?;
    let script = server.load()?;
    let runtime = runtime::handle()?;
    let mut line = Map::new();
    line.insert("name".into(), json!("rust"));
    line.insert("mode".into(), json!("redis_limiter"));
    let mut all = 0;
    for at_once in AT_ONCE {
        let config = json!({
            "limiter": "sliding_window", "rate": RATE, "per": "1ms", "key": format!("bench-{at_once}"),
            "url": format!("redis://127.0.0.1:{}", server.port), "store_timeout": "10s",
        });
        let producer = {
            let _entered = runtime.enter();
            limited(config, Arc::new(Nothing))?
        };
        // In turns, so that a change of the machine meets both.
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let turns = 6;
        let lasts = Duration::from_secs_f64(arguments.seconds / f64::from(turns * 2));
        sending(runtime, &producer, at_once, Duration::from_millis(200))?;
        for _ in 0..turns {
            let (sent, took) = sending(runtime, &producer, at_once, lasts)?;
            ours.push(sent as f64 / took.as_secs_f64());
            theirs.push(server.benchmark(&script, at_once, sent.max(1000))?);
            all += sent;
        }
        let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        let seen = json!({
            "rate": median(&mut ours), "redis_benchmark": median(&mut theirs), "ratio": median(&mut ratios),
        });
        line.insert(format!("at_once_{at_once}"), seen);
    }
    line.insert("messages".into(), json!(all));
    Ok(Value::Object(line))
}

fn sending(
    runtime: &tokio::runtime::Handle,
    producer: &Arc<dyn Producer>,
    at_once: usize,
    lasts: Duration,
) -> Result<(u64, Duration), Failure> {
    let sent = Arc::new(AtomicU64::new(0));
    let start = Instant::now();
    let tasks: Vec<_> = (0..at_once)
        .map(|_| {
            let (producer, sent) = (producer.clone(), sent.clone());
            runtime.spawn(async move {
                let message = Arc::new(Message::new("text"));
                while start.elapsed() < lasts {
                    producer.send(&Context::within(Duration::from_secs(30)), message.clone()).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for task in tasks {
        runtime.block_on(task)??;
    }
    Ok((sent.load(Ordering::Relaxed), start.elapsed()))
}

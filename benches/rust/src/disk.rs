//! What the disk and the machine can do without a broker: appends with one sync for each batch, and a server that
//! writes and syncs each message before it answers.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Arguments;
use crate::measure::Failure;
use crate::raw::{OK, nanoseconds, percentiles, send_frame};

/// As large as a file of the broker's log.
const FILE: u64 = 32 << 20;
/// Bytes of the broker's record beside the body, before they are rounded up to whole words.
const AROUND: usize = 32;

/// Bytes that a message of this size takes in the log.
fn record(size: usize) -> usize {
    (size + AROUND).next_multiple_of(8)
}

/// The file that is appended to: filled with zeros before, and written from the start again at its end, as the
/// broker's log does with its files. It is kept for the next measurement.
struct Target {
    file: File,
    offset: u64,
}

impl Target {
    fn open(folder: &Path) -> Result<Target, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(folder.join("limit"))?;
        if file.metadata()?.len() < FILE {
            let zeros = vec![0; 1 << 20];
            for at in (0..FILE).step_by(zeros.len()) {
                file.write_all_at(&zeros, at)?;
            }
            file.sync_all()?;
        }
        Ok(Target { file, offset: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.offset + bytes.len() as u64 > FILE {
            self.offset = 0;
        }
        self.file.write_all_at(bytes, self.offset)?;
        self.file.sync_data()?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

/// The limit L(n): batches of n records, written and synced one after the other.
pub(crate) fn limit(arguments: &Arguments) -> Result<Value, Failure> {
    let folder = arguments.data.as_deref().ok_or("--data is missing")?;
    let mut target = Target::open(folder)?;
    let batch = vec![b'x'; record(arguments.size) * arguments.window];
    let start = Instant::now();
    let until = start + Duration::from_secs_f64(arguments.seconds);
    let mut times = Vec::new();
    let mut before = start;
    while before < until {
        target.append(&batch)?;
        times.push(nanoseconds(before));
        before = Instant::now();
    }
    let messages = times.len() * arguments.window;
    let mut line = json!({
        "mode": "limit",
        "window": arguments.window,
        "size": arguments.size,
        "messages": messages,
        "rate": messages as f64 / start.elapsed().as_secs_f64(),
    });
    if let (Some(line), Value::Object(times)) = (line.as_object_mut(), percentiles(times)) {
        line.extend(times);
    }
    Ok(line)
}

/// Reads the frames that are there, writes and syncs their records at once, answers: one connection, nothing in
/// between. Prints its address.
pub(crate) fn floor_server(arguments: &Arguments) -> Result<Value, Failure> {
    let folder = arguments.data.as_deref().ok_or("--data is missing")?;
    let mut target = Target::open(folder)?;
    let most = arguments.window.max(1);
    let records = vec![b'x'; record(arguments.size) * most];
    let answers = OK.repeat(most);
    let frame = send_frame(arguments.size).len();
    let mut buffer = vec![0; frame * most];
    let mut stream = only_connection()?;
    let (mut there, mut messages) = (0, 0u64);
    while let Ok(read @ 1..) = stream.read(buffer.get_mut(there..).unwrap_or_default()) {
        there += read;
        let whole = there / frame;
        if whole == 0 {
            continue;
        }
        target.append(records.get(..whole * record(arguments.size)).unwrap_or_default())?;
        stream.write_all(answers.get(..whole * OK.len()).unwrap_or_default())?;
        buffer.copy_within(whole * frame..there, 0);
        there -= whole * frame;
        messages += whole as u64;
    }
    Ok(json!({"mode": "floor-server", "messages": messages}))
}

fn only_connection() -> Result<std::net::TcpStream, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening on {}", listener.local_addr()?);
    let (stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

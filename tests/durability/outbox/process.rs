//! A process with an outbox, that can be killed, and what the other side saw of it.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ceiba_core::client::Context;
use ceiba_core::outbox::{Address, open_store};
use serde_json::json;

/// Sends under way at once.
pub(super) const PLACES: usize = 8;

/// How long a process may take to its end, once nothing is added any more.
const PATIENCE: Duration = Duration::from_secs(600);

/// Where the rows are, and what goes with it.
pub(super) struct Place {
    pub(super) url: String,
    pub(super) other_side: PathBuf,
    pub(super) lease: &'static str,
    pub(super) poll: &'static str,
    pub(super) places: usize,
    /// Bytes of a body, at least.
    pub(super) bytes: usize,
}

impl Place {
    pub(super) fn file(folder: &Path) -> Place {
        let url = format!("sqlite:{}/outbox.db", folder.display());
        Place {
            url,
            other_side: folder.join("other-side"),
            lease: "700ms",
            poll: "20ms",
            places: PLACES,
            bytes: 0,
        }
    }
}

pub(super) struct Process {
    pub(super) child: Child,
    lines: Receiver<String>,
    url: String,
}

impl Process {
    pub(super) fn start(place: &Place, when: &str, first: u64, count: u64) -> Process {
        let section = json!({
            "type": "outbox", "url": place.url, "when": when, "schedule": "40ms", "lease": place.lease,
            "poll": place.poll, "concurrency": place.places, "max_attempts": 10_000,
        });
        let mut child = Command::new(env!("CARGO_BIN_EXE_ceiba-outbox-sender"))
            .arg(section.to_string())
            .arg(&place.other_side)
            .args([first.to_string(), count.to_string(), place.bytes.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (lines, told) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        Process { child, lines: told, url: place.url.clone() }
    }

    pub(super) fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(super) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }

    pub(super) fn end(mut self) -> Vec<String> {
        let since = Instant::now();
        let ended = loop {
            match self.child.try_wait().unwrap() {
                Some(ended) => break ended,
                None if since.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
                None => panic!("it does not end: {}", self.left()),
            }
        };
        assert!(ended.success(), "{ended}: {}", self.left());
        self.lines.iter().collect()
    }

    // What is in its store.
    fn left(&self) -> String {
        let ctx = Context::within(Duration::from_secs(60));
        crate::broker::runtime().block_on(async {
            match open_store(&Address::parse(&self.url).unwrap(), true).await {
                Ok(store) => format!("{:?}", store.stats(&ctx, None).await),
                Err(error) => error.to_string(),
            }
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the other side saw.
#[derive(Default)]
pub(super) struct Seen {
    /// By message: who sent it, each time, and the numbers it bore.
    pub(super) arrived: HashMap<u64, (Vec<String>, HashSet<String>)>,
}

impl Seen {
    /// How many came once more because this process, which was killed, had not noted that it had sent them.
    pub(super) fn again(&self) -> HashMap<&str, usize> {
        let mut again = HashMap::new();
        for (senders, _) in self.arrived.values() {
            for sender in senders.iter().rev().skip(1) {
                *again.entry(&**sender).or_default() += 1;
            }
        }
        again
    }
}

pub(super) fn note(lines: &[String], accepted: &mut HashSet<u64>) {
    let numbers = lines.iter().filter_map(|line| line.strip_prefix("accepted "));
    accepted.extend(numbers.map(|number| number.parse::<u64>().unwrap()));
}

pub(super) fn all_arrived(seen: &Seen, accepted: &HashSet<u64>) {
    let missing: Vec<&u64> = accepted.iter().filter(|body| !seen.arrived.contains_key(body)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} accepted messages never arrived: {missing:?}",
        missing.len(),
        accepted.len()
    );
}

/// Where processes were killed.
pub(super) fn read(path: &Path) -> Seen {
    read_of(path, true)
}

/// Where all processes lived.
pub(super) fn read_living(path: &Path) -> Seen {
    read_of(path, false)
}

fn read_of(path: &Path, killed: bool) -> Seen {
    let mut seen = Seen::default();
    let mut under_way: HashMap<u64, String> = HashMap::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let [what, body, number, process] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let body: u64 = body.parse().unwrap();
        if what == "begin" {
            if let Some(before) = under_way.insert(body, process.to_owned()) {
                // It was killed meanwhile, or two had it at once.
                assert!(killed && before != process, "{body} was sent twice at once");
            }
            continue;
        }
        let owner = under_way.remove(&body);
        assert_eq!(owner.as_deref(), Some(process), "{body} was sent by two at once");
        if what == "end" {
            let (senders, numbers) = seen.arrived.entry(body).or_default();
            senders.push(process.to_owned());
            numbers.insert(number.to_owned());
        }
    }
    seen
}

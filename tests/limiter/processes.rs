//! Several processes that send under one limit at once.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

/// What they did in all.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) grants: Vec<(u64, u64)>,
    pub(crate) runs: Vec<(u64, u64)>,
    pub(crate) limited: u64,
}

/// What each of them does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) tasks: u32,
    /// The deadline of each send.
    pub(crate) within: Duration,
    /// How long each send takes.
    pub(crate) takes: Duration,
    /// How long it goes on.
    pub(crate) lasts: Duration,
}

pub(crate) const LOAD: Load =
    Load { tasks: 1, within: Duration::from_secs(10), takes: Duration::ZERO, lasts: Duration::from_secs(1) };

pub(crate) fn start(config: &Value, load: Load) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ceiba-limited-sender"))
        .arg(config.to_string())
        .arg(load.tasks.to_string())
        .args([load.takes, load.lasts, load.within].map(|span| span.as_micros().to_string()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs so many to their end. Blocks.
pub(crate) fn run(processes: usize, config: &Value, load: Load) -> Traffic {
    let children: Vec<Child> = (0..processes).map(|_| start(config, load)).collect();
    let mut traffic = Traffic::default();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |place: usize| words[place].parse::<u64>().unwrap();
            match words[0] {
                "grant" => traffic.grants.push((number(1), number(2))),
                "run" => traffic.runs.push((number(1), number(2))),
                _ => traffic.limited += number(1),
            }
        }
    }
    traffic
}

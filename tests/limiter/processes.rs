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

pub(crate) fn start(config: &Value, tasks: u32, takes: Duration, lasts: Duration) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ceiba-limited-sender"))
        .arg(config.to_string())
        .args([tasks.to_string(), takes.as_micros().to_string(), lasts.as_millis().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs so many to their end. Blocks.
pub(crate) fn run(processes: usize, config: &Value, tasks: u32, takes: Duration, lasts: Duration) -> Traffic {
    let children: Vec<Child> = (0..processes).map(|_| start(config, tasks, takes, lasts)).collect();
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

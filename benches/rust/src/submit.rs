//! What a submit by id costs its caller: bursts into a producer that accepts and forgets, with its task on
//! another core. Taking the completions is not timed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::completion::CompletionQueue;
use ceiba_core::config::ClientConfig;
use ceiba_core::runtime::{self, block_on};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::Arguments;
use crate::measure::{Failure, STALLED};

const BURST: usize = 1024;
/// Bursts before the first that counts.
const WARM_UP: usize = 100;
/// Time for the task to fall asleep between bursts, so that each starts alike.
const REST: Duration = Duration::from_micros(200);

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let cores = allowed_cores()?;
    let (Some(own), Some(other)) = (cores.first(), cores.get(1)) else {
        return Err("the measurement needs two cores".into());
    };
    // Threads inherit the core of the one that starts them.
    pin(*other)?;
    runtime::configure_workers(1)?;
    let queue = Arc::new(CompletionQueue::new(BURST)?);
    let config =
        ClientConfig::from_json(json!({"provider": {"type": "memory", "topic": "bench", "discard": true}}))?;
    block_on(calls::producer_open(Some("bench"), config, Some(queue.clone())))?;
    pin(*own)?;

    let body = vec![b'x'; arguments.size];
    let until = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let mut samples = Vec::new();
    let mut taken = Vec::new();
    let mut bursts = 0;
    while samples.is_empty() || Instant::now() < until {
        let start = Instant::now();
        for token in 0..BURST {
            calls::producer_submit("bench", token as u64, &body, Duration::ZERO)?;
        }
        let took = start.elapsed();
        bursts += 1;
        if bursts > WARM_UP {
            samples.push(took.as_nanos() as f64 / BURST as f64);
        }
        let mut ended = 0;
        while ended < BURST {
            taken.clear();
            let count = queue.wait(BURST, Some(STALLED), &mut taken);
            if count == 0 || taken.iter().any(|completion| completion.result.is_err()) {
                return Err("a submit failed".into());
            }
            ended += count;
        }
        std::thread::sleep(REST);
    }
    samples.sort_by(f64::total_cmp);
    let at = |part: usize| samples.get(samples.len() * part / 100).copied().unwrap_or(f64::NAN);
    Ok(json!({
        "name": "rust",
        "mode": "submit",
        "size": arguments.size,
        "messages": samples.len() * BURST,
        "ns_min": at(0),
        "ns_median": at(50),
        "ns_p90": at(90),
    }))
}

fn allowed_cores() -> Result<Vec<usize>, Failure> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect())
}

fn pin(core: usize) -> Result<(), Failure> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

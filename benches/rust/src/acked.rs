//! Sends that are pipelined and each acknowledged by the broker.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Arguments;
use crate::measure::{Failure, Stopwatch};
use crate::produce::{Producer, Work};

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let producers = (0..arguments.clients)
        .map(|index| Producer::open(arguments, index))
        .collect::<Result<Vec<_>, _>>()?;
    let watch = Stopwatch::start();
    let (messages, end) = produce(arguments, &watch, &producers, false)?;
    Ok(watch.line(arguments, "acked", messages, end))
}

/// Runs all producers, each on its thread: how many messages, and when the last was acknowledged.
pub(crate) fn produce(
    arguments: &Arguments,
    watch: &Stopwatch,
    producers: &[Producer],
    labelled: bool,
) -> Result<(u64, Instant), Failure> {
    let share = match arguments.limit {
        0 => u64::MAX,
        limit => limit.div_ceil(producers.len() as u64),
    };
    let until = watch.start + Duration::from_secs_f64(arguments.seconds);
    let outcomes: Vec<Result<(u64, Instant), Failure>> = std::thread::scope(|scope| {
        let threads: Vec<_> = producers
            .iter()
            .enumerate()
            .map(|(index, producer)| {
                let label = labelled.then_some(index);
                let work = Work { until, limit: share, size: arguments.size, label };
                scope.spawn(move || producer.run(&work))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a producer's thread failed".into())))
            .collect()
    });
    let (mut messages, mut end) = (0, watch.start);
    for outcome in outcomes {
        let (sent, last) = outcome?;
        messages += sent;
        end = end.max(last);
    }
    Ok((messages, end))
}

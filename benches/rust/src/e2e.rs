//! Produce, consume, acknowledge: as many consumers as producers, until the last message is acknowledged.

use serde_json::{Value, json};

use crate::Arguments;
use crate::acked::produce;
use crate::consume::{self, Tally};
use crate::measure::{Failure, Stopwatch};
use crate::produce::Producer;

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let consumers =
        (0..arguments.clients).map(|index| consume::open(arguments, index)).collect::<Result<Vec<_>, _>>()?;
    let producers = (0..arguments.clients)
        .map(|index| Producer::open(arguments, index))
        .collect::<Result<Vec<_>, _>>()?;
    let tally = Tally::default();
    let watch = Stopwatch::start();
    let messages = std::thread::scope(|scope| {
        let threads: Vec<_> = consumers
            .iter()
            .map(|id| {
                scope.spawn(|| {
                    let result = consume::run(id, &tally);
                    if result.is_err() {
                        tally.fail();
                    }
                    result
                })
            })
            .collect();
        let produced = produce(arguments, &watch, &producers, true);
        match &produced {
            Ok((messages, _)) => tally.sent(*messages),
            Err(_) => tally.fail(),
        }
        for thread in threads {
            thread.join().unwrap_or_else(|_| Err("a consumer's thread failed".into()))?;
        }
        produced.map(|(messages, _)| messages)
    })?;
    let (duplicates, last) = tally.result();
    let mut line = watch.line(arguments, "e2e", messages, last.ok_or("nothing was received")?);
    if let Some(line) = line.as_object_mut() {
        line.insert("duplicates".into(), json!(duplicates));
    }
    Ok(line)
}

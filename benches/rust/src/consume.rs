//! Consumers: each has an id, a connection and a thread, and acknowledges all it receives.

use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::runtime::block_on;
use parking_lot::Mutex;

use crate::Arguments;
use crate::measure::{Failure, STALLED};

/// Deliveries taken at once.
const BATCH: usize = 1024;
/// How often a consumer without deliveries looks whether it is over.
const PAUSE: Duration = Duration::from_millis(20);

/// What all consumers of a measurement have received.
#[derive(Default)]
pub(crate) struct Tally(Mutex<State>);

#[derive(Default)]
struct State {
    /// A bit for each message of each producer, grown as numbers come.
    seen: Vec<Vec<u64>>,
    distinct: u64,
    duplicates: u64,
    last: Option<Instant>,
    /// Messages sent, once that is known.
    sent: Option<u64>,
    failed: bool,
}

impl State {
    fn note(&mut self, label: usize, number: usize) {
        if self.seen.len() <= label {
            self.seen.resize_with(label + 1, Vec::new);
        }
        let Some(bits) = self.seen.get_mut(label) else { return };
        if bits.len() <= number / 64 {
            bits.resize((number / 64 + 1).next_power_of_two(), 0);
        }
        let Some(word) = bits.get_mut(number / 64) else { return };
        let bit = 1 << (number % 64);
        if *word & bit == 0 {
            *word |= bit;
            self.distinct += 1;
        } else {
            self.duplicates += 1;
        }
    }
}

impl Tally {
    /// No message comes beyond these: consumers stop when they have them all.
    pub(crate) fn sent(&self, messages: u64) {
        self.0.lock().sent = Some(messages);
    }

    /// Consumers stop.
    pub(crate) fn fail(&self) {
        self.0.lock().failed = true;
    }

    fn over(&self) -> bool {
        let state = self.0.lock();
        state.failed || state.sent.is_some_and(|sent| state.distinct >= sent)
    }

    /// Duplicates, and when the last new message was acknowledged.
    pub(crate) fn result(&self) -> (u64, Option<Instant>) {
        let state = self.0.lock();
        (state.duplicates, state.last)
    }
}

/// Opens a consumer against the broker of the arguments, and returns its id.
pub(crate) fn open(arguments: &Arguments, index: usize) -> Result<String, Failure> {
    let config = ClientConfig::from_json(serde_json::json!({"provider": {
        "type": "kapokmq",
        "url": format!("ws://{}", arguments.addr),
        "topic": arguments.topic,
        "secret_key": {"env": "CEIBA_SECRET"},
    }}))?;
    let id = format!("bench-c{index}");
    block_on(calls::consumer_open(Some(&id), config))?;
    Ok(id)
}

/// Receives and acknowledges until all have all.
pub(crate) fn run(id: &str, tally: &Tally) -> Result<(), Failure> {
    let mut heard = Instant::now();
    let mut names = Vec::new();
    while !tally.over() {
        let deliveries = block_on(calls::consumer_receive(id, BATCH, Some(PAUSE)))?;
        if deliveries.is_empty() {
            if heard.elapsed() > STALLED {
                return Err("nothing was delivered for a minute".into());
            }
            continue;
        }
        heard = Instant::now();
        names.clear();
        for delivery in &deliveries {
            names.push(name(delivery.message.body()).ok_or("a delivery with a body that was not sent")?);
        }
        let codes = deliveries.into_iter().map(|delivery| delivery.code).collect();
        for result in block_on(calls::consumer_ack(id, codes))? {
            result?;
        }
        let mut state = tally.0.lock();
        for (label, number) in &names {
            state.note(*label, *number);
        }
        state.last = Some(Instant::now());
    }
    Ok(())
}

/// The `label-number ` at the front of a body.
fn name(body: &[u8]) -> Option<(usize, usize)> {
    let text = body.split(|byte| *byte == b' ').next()?;
    let (label, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
    // Both index memory: a body that was not sent must not ask for much of it.
    let bounded = |text: &str, bound: usize| text.parse().ok().filter(|value| *value < bound);
    Some((bounded(label, 1024)?, bounded(number, 1 << 32)?))
}

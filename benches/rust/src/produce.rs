//! Producers: each has an id, a connection, a completion queue and a thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::calls;
use ceiba_core::completion::{Completion, CompletionQueue};
use ceiba_core::config::ClientConfig;
use ceiba_core::runtime::block_on;

use crate::Arguments;
use crate::measure::{Failure, STALLED};

/// Submits that one producer may have under way.
const OUTSTANDING: usize = 8192;
/// Submits between two looks at the completions.
const BURST: usize = 256;

/// One producer of a measurement.
pub(crate) struct Producer {
    id: String,
    queue: Arc<CompletionQueue>,
}

/// When a producer stops, and what it sends.
pub(crate) struct Work {
    pub(crate) until: Instant,
    /// Messages at most.
    pub(crate) limit: u64,
    pub(crate) size: usize,
    /// In front of each body, with the number of the message; `None`: all bodies are the same.
    pub(crate) label: Option<usize>,
}

impl Producer {
    /// Opens one against the broker of the arguments.
    pub(crate) fn open(arguments: &Arguments, index: usize) -> Result<Producer, Failure> {
        let config = ClientConfig::from_json(serde_json::json!({"provider": {
            "type": "kapokmq",
            "url": format!("ws://{}", arguments.addr),
            "topic": arguments.topic,
            "secret_key": {"env": "CEIBA_SECRET"},
        }}))?;
        let id = format!("bench-p{index}");
        let queue = Arc::new(CompletionQueue::new(OUTSTANDING)?);
        block_on(calls::producer_open(Some(&id), config, Some(queue.clone())))?;
        Ok(Producer { id, queue })
    }

    /// Sends until the work ends and every send has its receipt. Returns how many, and when the last came.
    pub(crate) fn run(&self, work: &Work) -> Result<(u64, Instant), Failure> {
        let mut body = vec![b'x'; work.size];
        let mut taken = Vec::new();
        let (mut sent, mut ended) = (0u64, 0u64);
        while sent < work.limit && Instant::now() < work.until {
            let burst = (BURST as u64).min(work.limit - sent);
            for _ in 0..burst {
                if let Some(label) = work.label {
                    number(&mut body, label, sent, work.size);
                }
                calls::producer_submit(&self.id, sent, &body, Duration::ZERO)?;
                sent += 1;
            }
            ended += self.completions(&mut taken, Duration::ZERO)?;
            while (sent - ended) as usize + BURST > OUTSTANDING {
                ended += self.completions(&mut taken, STALLED)?;
            }
        }
        while ended < sent {
            ended += self.completions(&mut taken, STALLED)?;
        }
        Ok((sent, Instant::now()))
    }

    fn completions(&self, taken: &mut Vec<Completion>, wait: Duration) -> Result<u64, Failure> {
        taken.clear();
        if wait.is_zero() {
            self.queue.poll(usize::MAX, taken);
        } else if self.queue.wait(usize::MAX, Some(wait), taken) == 0 {
            return Err("the broker stalled".into());
        }
        for completion in taken.iter() {
            if let Err(error) = &completion.result {
                return Err(error.to_string().into());
            }
        }
        Ok(taken.len() as u64)
    }
}

/// Writes `label-number ` at the front of the body, and keeps its size where it can.
fn number(body: &mut Vec<u8>, label: usize, number: u64, size: usize) {
    let text = format!("{label}-{number} ");
    body.clear();
    body.extend_from_slice(text.as_bytes());
    body.resize(size.max(text.len()), b'x');
}

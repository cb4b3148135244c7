//! Wall time, processor time and the printed line.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::Arguments;

/// A failed measurement: nothing is printed then.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A silence of the broker after which a measurement fails.
pub(crate) const STALLED: Duration = Duration::from_secs(60);

/// Started before the first submit.
pub(crate) struct Stopwatch {
    pub(crate) start: Instant,
    cpu: Duration,
}

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        Stopwatch { start: Instant::now(), cpu: cpu() }
    }

    /// The line for `messages` that had all ended at `end`.
    pub(crate) fn line(&self, arguments: &Arguments, mode: &str, messages: u64, end: Instant) -> Value {
        let used = cpu().saturating_sub(self.cpu).as_secs_f64();
        let seconds = end.duration_since(self.start).as_secs_f64();
        json!({
            "name": "rust",
            "mode": mode,
            "clients": arguments.clients,
            "size": arguments.size,
            "messages": messages,
            "seconds": seconds,
            "cpu_seconds": used,
            "rate": messages as f64 / seconds,
        })
    }
}

/// The middle one; sorts them.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// User and system time of this process.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

//! The configuration of a topic as its queue takes it.

use std::time::Duration;

use super::config::{BrokerConfig, DeliveryMode, WhenFull};
use super::delay::{NEVER, ticks};
use super::queue::{KeyWindow, Rate, Terms};

/// What the name of a topic's dead letters ends in.
pub(super) const DEAD: &str = ".dead";
/// The most keys that a topic remembers.
const KEYS: usize = 1_000_000;

/// The terms of the topic of this name.
pub(super) fn of(config: &BrokerConfig, name: &str, mode: DeliveryMode) -> Terms {
    let topic = config.topics.get(name).unwrap_or(&config.topic);
    // Dead letters wait for a person: they neither die again nor are they refused.
    let dies = !name.ends_with(DEAD);
    let expiry_ms = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1);
    let interval = topic.push_interval.map(ticks).filter(|interval| (1..NEVER).contains(interval));
    Terms {
        mode,
        compat: topic.compat,
        redeliver_after: ticks(config.redeliver_after).max(1),
        unacked: config.limits.unacked.max(1),
        unacked_bytes: config.limits.unacked_bytes,
        max_attempts: topic.max_attempts.filter(|_| dies).unwrap_or(0),
        expiry_ms: topic.expire_after.filter(|_| dies).map_or(0, expiry_ms),
        rate: interval.map(|interval| Rate { interval, burst: topic.push_burst.max(1) }),
        depth: topic.max_messages.filter(|_| dies).unwrap_or(usize::MAX),
        bytes: topic.max_bytes.filter(|_| dies).unwrap_or(usize::MAX),
        refuse: topic.when_full == WhenFull::Refuse,
        // Two of one key may die, and both are to be found.
        keys: topic.deduplicate.filter(|_| dies).map(|time| KeyWindow { time: ticks(time), keys: KEYS }),
    }
}

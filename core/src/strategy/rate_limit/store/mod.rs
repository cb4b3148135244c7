//! Limits that many processes keep together, in Redis: one script, and one round trip, for each send.
//!
//! Time is the server's. One that is set back neither lets more through nor holds sends up for longer; one that is
//! set forward ages what was granted before.

mod leases;
mod link;
mod request;
mod returned;
mod target;
mod window;

pub(super) use leases::Leases;
pub(super) use target::Target;
pub(super) use window::Window;

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::config::{Counting, Settings, StoreSettings};
use crate::strategy::Setup;

/// The name of the state in Redis. The settings are part of it: two processes that disagree about them, as while a
/// new config is rolled out, have a limit each rather than one that holds neither.
fn name(setup: &Setup, settings: &Settings, store: &StoreSettings, key: Option<&str>) -> String {
    let of = match key {
        Some(key) => format!("key:{key}"),
        None => format!("client:{}/{}", setup.id, setup.name),
    };
    // Another format of the state is another state: a server would refuse the one where it has the other.
    let format = match settings.counting {
        Counting::SlidingWindow => "sliding_window/2",
        other => other.name(),
    };
    let span = if settings.per.is_zero() { store.lease } else { settings.per };
    format!("ceiba:limit:{of}:{format}:{}:{}us", settings.rate, span.as_micros())
}

/// What the sends counted.
#[derive(Debug, Default)]
struct Counts {
    granted: AtomicU64,
    limited: AtomicU64,
    // Sends for which the policy decided, because Redis did not.
    without_store: AtomicU64,
}

impl Counts {
    fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn state(&self, waiting: u64) -> Value {
        json!({
            "granted": self.granted.load(Ordering::Relaxed),
            "limited": self.limited.load(Ordering::Relaxed),
            "without_store": self.without_store.load(Ordering::Relaxed),
            "waiting": waiting,
        })
    }
}

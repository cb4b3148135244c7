//! What the core logs, on stderr.

use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing_subscriber::filter::{FilterExt, dynamic_filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

static OPEN: AtomicBool = AtomicBool::new(false);

/// Starts the log: what `CEIBA_LOG` filters, such as `info` or `ceiba_core::broker=debug`. Without it, errors,
/// and warnings from [`opened`] on.
pub(crate) fn start() {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let filter = match EnvFilter::try_from_env("CEIBA_LOG") {
        Ok(filter) => FilterExt::boxed(filter),
        Err(_) => FilterExt::boxed(dynamic_filter_fn(|about, _| match *about.level() {
            Level::ERROR => true,
            Level::WARN => OPEN.load(Ordering::Relaxed),
            _ => false,
        })),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
}

/// The client or the broker is open: until here its warnings lead to the one error that is shown.
pub(crate) fn opened() {
    OPEN.store(true, Ordering::Relaxed);
}

//! What the core logs, on stderr.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use ceiba_core::log_line::LogLine;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{FilterExt, dynamic_filter_fn};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

static OPEN: AtomicBool = AtomicBool::new(false);

/// Time, level, place and text of an event, on one line.
struct OneLine;

impl<S, N> FormatEvent<S, N> for OneLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        let about = event.metadata();
        writeln!(writer, " {:>5} {}: {}", about.level(), about.target(), LogLine::of(event))
    }
}

/// Starts the log: what `CEIBA_LOG` filters, such as `info` or `ceiba_core::broker=debug`. Without it, errors,
/// and warnings from [`opened`] on.
pub(crate) fn start() {
    let lines = tracing_subscriber::fmt::layer().event_format(OneLine).with_writer(std::io::stderr);
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

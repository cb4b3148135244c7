//! Log records, handed to one function of the host.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::OnceLock;

use arc_swap::ArcSwapOption;
use ceiba_core::error::{Error, Kind, Result};
use ceiba_core::log_line::LogLine;
use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::boundary::{Release, User, invalid};
use crate::callback::{self, Registration};
use crate::error::ceiba_error;
use crate::text::ceiba_slice;

/// Something failed.
pub const CEIBA_LOG_ERROR: i32 = 1;
/// Something is odd, or was mended.
pub const CEIBA_LOG_WARN: i32 = 2;
/// What an operator wants to know: connections, brokers.
pub const CEIBA_LOG_INFO: i32 = 3;
/// What a developer wants to know.
pub const CEIBA_LOG_DEBUG: i32 = 4;
/// Every step.
pub const CEIBA_LOG_TRACE: i32 = 5;

/// A function that takes log records. `target` names the part of the library and `message` is one line, both
/// UTF-8 and valid for the time of the call.
pub type ceiba_log_fn =
    Option<extern "C" fn(user: *mut c_void, level: i32, target: ceiba_slice, message: ceiba_slice)>;

/// Records that may wait for the host's function; later ones are dropped and counted.
const WAITING: usize = 4096;

struct LogRecord {
    level: i32,
    target: &'static str,
    message: String,
}

#[derive(Default)]
struct Waiting {
    records: VecDeque<LogRecord>,
    dropped: u64,
}

struct Sink {
    level: i32,
    waiting: Arc<Mutex<Waiting>>,
    registration: Arc<Registration>,
}

static SINK: ArcSwapOption<Sink> = ArcSwapOption::const_empty();
static SETTING: Mutex<()> = Mutex::new(());

/// Has every log record up to `max_level` (CEIBA_LOG_*) handed to `function`, in place of the function set
/// before. NULL turns logging off, as it is at first.
///
/// `function` is called on a thread of the library's own, by one thread at a time; it may call any ceiba
/// function. Up to 4096 records wait for it; what comes on top is dropped, and the next record says how
/// many. `release` (may be NULL) is called once with `user` when no call of `function` can follow: soon
/// after another function is set, and also when this call fails. Records never hold secrets.
///
/// Any thread; does not block. CEIBA_ERR_INVALID_ARGUMENT: the level is none of CEIBA_LOG_*.
#[unsafe(no_mangle)]
pub extern "C" fn ceiba_log_set(
    function: ceiba_log_fn,
    user: *mut c_void,
    release: Option<extern "C" fn(user: *mut c_void)>,
    max_level: i32,
    error: *mut *mut ceiba_error,
) -> i32 {
    ffi_call!(error, {
        let release = Release::new(release, user);
        let sink = match function {
            Some(function) => {
                if !(CEIBA_LOG_ERROR..=CEIBA_LOG_TRACE).contains(&max_level) {
                    return Err(invalid(format!("`max_level` is {max_level}: it must be 1 to 5")));
                }
                callback::ready()?;
                Some(Arc::new(sink(function, User(user), release, max_level)))
            }
            None => {
                drop(release);
                None
            }
        };
        set(sink)
    })
}

fn sink(
    function: extern "C" fn(*mut c_void, i32, ceiba_slice, ceiba_slice),
    user: User,
    release: Release,
    level: i32,
) -> Sink {
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let from = waiting.clone();
    let own = Arc::new(OnceLock::<std::sync::Weak<Registration>>::new());
    let me = own.clone();
    let work = move || {
        let closed = || me.get().and_then(std::sync::Weak::upgrade).is_some_and(|me| me.is_closed());
        let user = user;
        while !closed() {
            let (record, dropped) = {
                let mut from = from.lock();
                (from.records.pop_front(), std::mem::take(&mut from.dropped))
            };
            if dropped > 0 {
                let text = format!("{dropped} log records were dropped: the log function is too slow");
                function(user.0, CEIBA_LOG_WARN, ceiba_slice::of("ceiba"), ceiba_slice::of(&text));
            }
            let Some(record) = record else { break };
            let target = ceiba_slice::of(record.target);
            function(user.0, record.level, target, ceiba_slice::of(&record.message));
        }
    };
    let registration = Registration::new(work, release);
    let _ = own.set(Arc::downgrade(&registration));
    Sink { level, waiting, registration }
}

fn set(sink: Option<Arc<Sink>>) -> Result<()> {
    match swap(sink) {
        Ok(None) => Ok(()),
        Ok(Some(before)) => {
            // Outside of the lock: the release function may set another log function.
            if before.registration.is_own() {
                before.registration.close();
            } else {
                // The parent's, in a forked child: it is the parent that releases it.
                std::mem::forget(before);
            }
            Ok(())
        }
        Err((error, refused)) => {
            if let Some(refused) = refused {
                refused.registration.close();
            }
            Err(error)
        }
    }
}

type Refused = (Error, Option<Arc<Sink>>);

// Puts a sink in the place of the one before, which comes back; one that is refused comes back too.
fn swap(sink: Option<Arc<Sink>>) -> Result<Option<Arc<Sink>>, Refused> {
    // In a forked child the lock may be held for ever by a thread of the parent.
    let Some(_setting) = SETTING.try_lock_for(std::time::Duration::from_secs(5)) else {
        return Err((Error::new(Kind::Internal, "another thread is setting the log function"), sink));
    };
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    let installed = *INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(Records).is_ok());
    if !installed {
        return Err((Error::new(Kind::Internal, "something else takes this library's log records"), sink));
    }
    let before = SINK.swap(sink);
    tracing::callsite::rebuild_interest_cache();
    Ok(before)
}

fn number(level: &Level) -> i32 {
    match *level {
        Level::ERROR => CEIBA_LOG_ERROR,
        Level::WARN => CEIBA_LOG_WARN,
        Level::INFO => CEIBA_LOG_INFO,
        Level::DEBUG => CEIBA_LOG_DEBUG,
        Level::TRACE => CEIBA_LOG_TRACE,
    }
}

// Other crates may log what they please, also what is secret: only our own records go out.
fn ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("ceiba")
}

struct Records;

impl Subscriber for Records {
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match SINK.load().as_ref().map_or(0, |sink| sink.level) {
            CEIBA_LOG_ERROR => LevelFilter::ERROR,
            CEIBA_LOG_WARN => LevelFilter::WARN,
            CEIBA_LOG_INFO => LevelFilter::INFO,
            CEIBA_LOG_DEBUG => LevelFilter::DEBUG,
            CEIBA_LOG_TRACE => LevelFilter::TRACE,
            _ => LevelFilter::OFF,
        })
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        ours(metadata) && SINK.load().as_ref().is_some_and(|sink| number(metadata.level()) <= sink.level)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let sink = SINK.load();
        let Some(sink) = sink.as_ref().filter(|sink| sink.registration.is_own()) else { return };
        let metadata = event.metadata();
        let record = LogRecord {
            level: number(metadata.level()),
            target: metadata.target(),
            message: LogLine::of(event).cut(),
        };
        {
            let mut waiting = sink.waiting.lock();
            if waiting.records.len() >= WAITING {
                waiting.dropped = waiting.dropped.saturating_add(1);
                return;
            }
            waiting.records.push_back(record);
        }
        sink.registration.notify();
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
    use std::time::Duration;

    struct Host {
        records: Mutex<Vec<(i32, String)>>,
        // The first call waits until the test lets it go on.
        gate: Mutex<Option<Receiver<()>>>,
        released: SyncSender<()>,
    }

    extern "C" fn take(user: *mut c_void, level: i32, _target: ceiba_slice, message: ceiba_slice) {
        HOST.with_host(user, |host| {
            let gate = host.gate.lock().take();
            if let Some(gate) = gate {
                gate.recv_timeout(Duration::from_secs(10)).unwrap();
            }
            let text = crate::boundary::bytes("message", message.data.cast(), message.len).unwrap();
            host.records.lock().push((level, String::from_utf8(text.to_vec()).unwrap()));
        });
    }

    extern "C" fn release(user: *mut c_void) {
        HOST.with_host(user, |host| host.released.send(()).unwrap());
    }

    // One host for the one test: its `user` is NULL.
    struct TheHost(OnceLock<Host>);

    impl TheHost {
        fn with_host(&self, user: *mut c_void, with: impl FnOnce(&Host)) {
            assert!(user.is_null());
            with(self.0.get().unwrap());
        }
    }

    static HOST: TheHost = TheHost(OnceLock::new());

    fn until(what: impl Fn() -> bool) {
        let start = std::time::Instant::now();
        while !what() {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_slow_function_loses_records_and_is_told_how_many() {
        let (open, gate) = sync_channel(1);
        let (released, was_released) = sync_channel(4);
        let host = Host { records: Mutex::default(), gate: Mutex::new(Some(gate)), released };
        assert!(HOST.0.set(host).is_ok());
        let none = std::ptr::null_mut;
        assert_eq!(ceiba_log_set(Some(take), none(), Some(release), CEIBA_LOG_INFO, std::ptr::null_mut()), 0);
        tracing::debug!("too fine");
        tracing::info!(target: "other", "not ours");
        tracing::info!(name = "n\r\nforged", count = 3, "first\n{}line", '\u{202e}');
        // The function has the first record and waits; the others wait for it.
        until(|| HOST.0.get().unwrap().gate.lock().is_none());
        for _ in 0..WAITING + 5 {
            tracing::warn!("{}", "x".repeat(10));
        }
        open.send(()).unwrap();
        let host = HOST.0.get().unwrap();
        until(|| host.records.lock().len() >= WAITING + 2);
        assert_eq!(ceiba_log_set(None, none(), None, 0, std::ptr::null_mut()), 0);
        was_released.recv_timeout(Duration::from_secs(10)).unwrap();
        tracing::error!("nobody hears");
        let records = host.records.lock();
        assert_eq!(records[0], (CEIBA_LOG_INFO, "first\\n\\u202eline name=n\\r\\nforged count=3".to_owned()));
        assert!(records[1].1.starts_with("5 log records were dropped"), "{:?}", records[1]);
        assert!(records[2..].iter().all(|record| *record == (CEIBA_LOG_WARN, "x".repeat(10))));
        assert_eq!(records.len(), WAITING + 2);
        assert!(was_released.try_recv().is_err());
    }
}

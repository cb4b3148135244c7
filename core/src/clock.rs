//! The time of day that is given to the providers: the system's, or a test's.
//!
//! What has to do with deadlines and waits goes by tokio's clock. This one is for what others read: the times of
//! signatures, and dates.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Tells the time of day, from any thread; clones are the same.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl Clock {
    /// The system's.
    pub fn from_system() -> Clock {
        Clock(Arc::new(SystemTime::now))
    }

    /// One that tells what `now` says.
    pub fn from_fn(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// The time since 1970, zero before that.
    pub fn unix_time(&self) -> Duration {
        self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

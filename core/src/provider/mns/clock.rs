//! The time that requests are signed with: this machine's, put right by the service's.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use crate::clock::Clock;

/// A difference that the seconds of a header `Date` and the time on the way explain.
const NEAR: i64 = 3_000;

/// See the module.
#[derive(Debug)]
pub(super) struct ServiceClock {
    own: Clock,
    // Milliseconds that the service is ahead.
    ahead: AtomicI64,
}

impl ServiceClock {
    pub(super) fn new(own: Clock) -> ServiceClock {
        ServiceClock { own, ahead: AtomicI64::new(0) }
    }

    /// The time of the service, as far as it is known.
    pub(super) fn now(&self) -> SystemTime {
        self.at(self.own.now())
    }

    fn at(&self, own: SystemTime) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let by = Duration::from_millis(ahead.unsigned_abs());
        let shifted = if ahead < 0 { own.checked_sub(by) } else { own.checked_add(by) };
        shifted.unwrap_or(own)
    }

    /// Puts it right by what the service said a moment ago; whether that changed it.
    pub(super) fn correct(&self, told: SystemTime) -> bool {
        self.corrected(self.own.now(), told)
    }

    fn corrected(&self, own: SystemTime, told: SystemTime) -> bool {
        let ahead = match told.duration_since(own) {
            Ok(ahead) => millis(ahead),
            Err(behind) => -millis(behind.duration()),
        };
        let before = self.ahead.load(Ordering::Relaxed);
        let far = ahead.saturating_sub(before).saturating_abs() > NEAR;
        if far {
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        far
    }

    /// Milliseconds that the service is ahead.
    pub(super) fn ahead_ms(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_matters_is_taken() {
        let clock = ServiceClock::new(Clock::from_system());
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert!(!clock.corrected(now, now + Duration::from_secs(3)));
        assert!(clock.corrected(now, now + Duration::from_secs(3600)));
        assert_eq!(clock.at(now), now + Duration::from_secs(3600));
        // The same again changes nothing: another try would end alike.
        assert!(!clock.corrected(now, now + Duration::from_secs(3601)));
        assert!(clock.corrected(now, now - Duration::from_secs(60)));
        assert_eq!((clock.at(now), clock.ahead_ms()), (now - Duration::from_secs(60), -60_000));
        assert_eq!(clock.at(SystemTime::UNIX_EPOCH), SystemTime::UNIX_EPOCH - Duration::from_secs(60));
    }
}

//! A robot takes 20 messages a minute, and is mute for ten minutes after more: so no more are sent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Messages in a minute.
pub(super) const MOST: usize = 20;
const PERIOD: Duration = Duration::from_secs(60);

/// When the last messages were sent: exactly, so that no minute has more, wherever it begins.
#[derive(Default)]
pub(super) struct Window(Mutex<VecDeque<Instant>>);

/// A place in the window. It is given back when this is dropped before a request was made for it.
pub(super) struct Place<'a> {
    window: &'a Window,
    at: Option<Instant>,
    used: Arc<AtomicBool>,
}

impl Place<'_> {
    /// Set once a request is made: then the place is gone, whatever becomes of the call.
    pub(super) fn used(&self) -> Arc<AtomicBool> {
        self.used.clone()
    }

    /// Nothing was sent after all.
    pub(super) fn give_back(&mut self) {
        if let Some(at) = self.at.take() {
            self.window.give_back(at);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.used.load(Ordering::Relaxed) {
            self.give_back();
        }
    }
}

impl Window {
    /// A place now, or how long there is none.
    pub(super) fn place(&self) -> Result<Place<'_>, Duration> {
        Ok(Place { window: self, at: Some(self.take()?), used: Arc::default() })
    }

    fn take(&self) -> Result<Instant, Duration> {
        let now = Instant::now();
        let mut sent = self.0.lock();
        while sent.front().is_some_and(|first| now.duration_since(*first) >= PERIOD) {
            sent.pop_front();
        }
        match sent.front() {
            Some(first) if sent.len() >= MOST => Err(PERIOD - now.duration_since(*first)),
            _ => {
                sent.push_back(now);
                Ok(now)
            }
        }
    }

    fn give_back(&self, at: Instant) {
        let mut sent = self.0.lock();
        if let Some(place) = sent.iter().rposition(|taken| *taken == at) {
            sent.remove(place);
        }
    }

    /// Places left in this minute.
    pub(super) fn left(&self) -> usize {
        let now = Instant::now();
        let sent = self.0.lock();
        MOST.saturating_sub(sent.iter().filter(|taken| now.duration_since(**taken) < PERIOD).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_wherever_it_begins() {
        let window = Window::default();
        let mut taken = Vec::new();
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            tokio::time::advance(Duration::from_millis((seed >> 33) % 4000)).await;
            match window.take() {
                Ok(at) if seed & 0x1000 == 0 => window.give_back(at),
                Ok(at) => taken.push(at),
                Err(wait) => assert!(!wait.is_zero() && wait <= PERIOD),
            }
        }
        assert!(taken.len() > 5000, "{}", taken.len());
        assert!(taken.windows(MOST + 1).all(|some| some[MOST] - some[0] >= PERIOD));
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_kept_once_a_request_was_made() {
        let window = Window::default();
        drop(window.place().unwrap());
        assert_eq!(window.left(), MOST);
        let place = window.place().unwrap();
        place.used().store(true, Ordering::Relaxed);
        drop(place);
        assert_eq!(window.left(), MOST - 1);
        let mut place = window.place().unwrap();
        place.used().store(true, Ordering::Relaxed);
        place.give_back();
        drop(place);
        assert_eq!(window.left(), MOST - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_it_names_is_enough_and_no_longer_than_needed() {
        let window = Window::default();
        for _ in 0..MOST {
            window.take().unwrap();
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let wait = window.take().unwrap_err();
        assert_eq!((wait, window.left()), (Duration::from_secs(58), 0));
        tokio::time::advance(wait - Duration::from_millis(1)).await;
        window.take().unwrap_err();
        tokio::time::advance(Duration::from_millis(1)).await;
        window.take().unwrap();
    }
}

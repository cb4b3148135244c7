//! A robot takes 20 messages a minute, and is mute for ten minutes after more: so no more are sent, by whichever client
//! of this process.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::wire::sign::sha256;

/// Messages in a minute.
pub(super) const MOST: usize = 20;
/// How long a robot is mute after more.
pub(super) const MUTE: Duration = Duration::from_secs(600);
/// A minute, and some time for the two clocks to differ in.
const PERIOD: Duration = Duration::from_secs(61);

#[derive(Default)]
struct Sent {
    // Messages of which the server may see any moment of now as theirs.
    on_their_way: usize,
    // When the others were answered, in this order.
    ended: VecDeque<Instant>,
    mute_until: Option<Instant>,
}

impl Sent {
    fn forget(&mut self, now: Instant) {
        while self.ended.front().is_some_and(|first| now.duration_since(*first) >= PERIOD) {
            self.ended.pop_front();
        }
        if self.mute_until.is_some_and(|until| until <= now) {
            self.mute_until = None;
        }
    }
}

/// The messages of one robot. Each is there from before it is sent until a minute after its answer: when the server counts
/// it, nobody here knows, but it is between the two. So no minute has more, wherever it begins.
#[derive(Default)]
pub(super) struct Window(Mutex<Sent>);

/// A place in the window. It is given back when this is dropped before something was sent.
pub(super) struct Place<'a> {
    window: &'a Window,
    sent: bool,
}

impl Place<'_> {
    /// A request was made: then the place is gone for a minute from now, whatever becomes of the call.
    pub(super) fn used(&mut self) {
        self.sent = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut sent = self.window.0.lock();
        sent.on_their_way = sent.on_their_way.saturating_sub(1);
        if self.sent {
            sent.ended.push_back(Instant::now());
        }
    }
}

/// The windows of the robots of this process, by a digest of address and token.
fn robots() -> &'static Mutex<HashMap<Vec<u8>, Arc<Window>>> {
    static ROBOTS: OnceLock<Mutex<HashMap<Vec<u8>, Arc<Window>>>> = OnceLock::new();
    ROBOTS.get_or_init(Mutex::default)
}

impl Window {
    /// The window of the robot at this address, token included: the same for every client of it, and kept for as long as
    /// it says anything when all are closed.
    pub(super) fn of(address: &str) -> Arc<Window> {
        let mut robots = robots().lock();
        let now = Instant::now();
        robots.retain(|_, window| {
            let mut sent = window.0.lock();
            sent.forget(now);
            Arc::strong_count(window) > 1
                || sent.on_their_way > 0
                || !sent.ended.is_empty()
                || sent.mute_until.is_some()
        });
        robots.entry(sha256(address.as_bytes())).or_default().clone()
    }

    /// A place now, or how long there is none.
    pub(super) fn place(&self) -> Result<Place<'_>, Duration> {
        let now = Instant::now();
        let mut sent = self.0.lock();
        sent.forget(now);
        if let Some(until) = sent.mute_until {
            return Err(until - now);
        }
        if sent.on_their_way + sent.ended.len() >= MOST {
            return Err(sent.ended.front().map_or(PERIOD, |first| PERIOD - now.duration_since(*first)));
        }
        sent.on_their_way += 1;
        Ok(Place { window: self, sent: false })
    }

    /// The robot said that it is mute: nothing is sent to it meanwhile.
    pub(super) fn mute(&self) {
        self.0.lock().mute_until = Some(Instant::now() + MUTE);
    }

    /// Places left in this minute.
    pub(super) fn left(&self) -> usize {
        let mut sent = self.0.lock();
        sent.forget(Instant::now());
        if sent.mute_until.is_some() {
            return 0;
        }
        MOST.saturating_sub(sent.on_their_way + sent.ended.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(window: &Window) {
        window.place().unwrap_or_else(|wait| panic!("full for {wait:?}")).used();
    }

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_wherever_it_begins() {
        let window = Window::default();
        let mut taken = Vec::new();
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            tokio::time::advance(Duration::from_millis((seed >> 33) % 4000)).await;
            match window.place() {
                Ok(place) if seed & 0x1000 == 0 => drop(place),
                Ok(mut place) => {
                    place.used();
                    taken.push(Instant::now());
                }
                Err(wait) => assert!(!wait.is_zero() && wait <= PERIOD),
            }
        }
        assert!(taken.len() > 5000, "{}", taken.len());
        assert!(taken.windows(MOST + 1).all(|some| some[MOST] - some[0] >= PERIOD));
    }

    /// Whenever between request and answer the server counts a message, no minute has more than 20.
    #[tokio::test(start_paused = true)]
    async fn a_message_that_takes_long_counts_from_its_answer() {
        let window = Window::default();
        let places: Vec<_> = (0..MOST).map(|_| window.place().unwrap_or_else(|_| panic!("full"))).collect();
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!((window.left(), window.place().err()), (0, Some(PERIOD)));
        for mut place in places {
            place.used();
        }
        tokio::time::advance(PERIOD - Duration::from_millis(1)).await;
        assert_eq!(window.place().err(), Some(Duration::from_millis(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(window.left(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_kept_once_a_request_was_made() {
        let window = Window::default();
        drop(window.place().unwrap_or_else(|_| panic!("full")));
        assert_eq!(window.left(), MOST);
        sent(&window);
        assert_eq!(window.left(), MOST - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_it_names_is_enough_and_no_longer_than_needed() {
        let window = Window::default();
        for _ in 0..MOST {
            sent(&window);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let wait = window.place().err().unwrap();
        assert_eq!((wait, window.left()), (PERIOD - Duration::from_secs(2), 0));
        tokio::time::advance(wait - Duration::from_millis(1)).await;
        window.place().err().unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        sent(&window);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mute_robot_is_left_alone() {
        let window = Window::default();
        window.mute();
        assert_eq!((window.left(), window.place().err()), (0, Some(MUTE)));
        tokio::time::advance(MUTE).await;
        sent(&window);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_of_one_robot_share_its_window_even_one_after_the_other() {
        let address = "http://robot.test/?access_token=window-of-a-test";
        for _ in 0..MOST {
            sent(&Window::of(address));
        }
        assert_eq!(Window::of(address).left(), 0);
        assert_eq!(Window::of("http://robot.test/?access_token=another").left(), MOST);
        tokio::time::advance(PERIOD).await;
        assert_eq!(Window::of(address).left(), MOST);
    }
}

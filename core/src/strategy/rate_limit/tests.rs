//! What each limiter promises, over a million random calls, and of many threads on the real clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::fixed_window::FixedWindow;
use super::leaky_bucket::LeakyBucket;
use super::pace::{Pace, Paced};
use super::sliding_window::SlidingWindow;
use super::token_bucket::TokenBucket;
use crate::client::Context;
use crate::error::Kind;
use crate::strategy::Random;

const CALLS: u32 = 1_000_000;

/// Checks the grants of one limiter, in their order.
struct Judge {
    rate: usize,
    per: u64,
    burst: u64,
    last: VecDeque<u64>,
}

impl Judge {
    /// In any span of `per` no more than `rate`.
    fn any_span(&mut self, now: u64) {
        self.last.push_back(now);
        if self.last.len() > self.rate {
            let before = self.last.pop_front().unwrap();
            assert!(now - before >= self.per, "{} grants between {before} and {now}", self.rate + 1);
        }
    }

    /// In each span that begins at a multiple of `per` no more than `rate`.
    fn own_span(&mut self, now: u64) {
        let begin = now / self.per * self.per;
        while self.last.front().is_some_and(|at| *at < begin) {
            self.last.pop_front();
        }
        self.last.push_back(now);
        assert!(self.last.len() <= self.rate, "{} grants between {begin} and {now}", self.last.len());
    }

    /// In no span more than `burst` and what came in it: checked from each of the last grants on.
    fn tokens(&mut self, now: u64) {
        self.last.push_back(now);
        if self.last.len() > 300 {
            self.last.pop_front();
        }
        let grants = self.last.len() as u128;
        for (before, at) in self.last.iter().enumerate().step_by(7) {
            let came = u128::from(now - at) * self.rate as u128 / u128::from(self.per);
            assert!(grants - before as u128 <= u128::from(self.burst) + came, "{at} {now}");
        }
    }
}

fn run(seed: u64, mut pace: Pace, mut judge: Judge, check: fn(&mut Judge, u64)) {
    let random = Random::seeded(seed);
    let mut now = 0;
    let (mut granted, mut longest) = (0_u32, 0);
    for _ in 0..CALLS {
        // Bursts, pauses about as long as the distance of two grants, and now and then a long one.
        let even = judge.per as f64 / judge.rate as f64;
        now += match random.share() {
            share if share < 0.5 => 0,
            share if share < 0.95 => (random.share() * even * 1.5) as u64,
            share if share < 0.9999 => (random.share() * even * 10.0) as u64,
            _ => (random.share() * judge.per as f64 * 3.0) as u64,
        };
        let ready = pace.ready(now, 0);
        match pace.take(now) {
            Ok(()) => {
                assert_eq!(ready, now, "granted before it was ready");
                granted += 1;
                check(&mut judge, now);
            }
            Err(at) => {
                assert_eq!(ready, at);
                assert!(at > now);
                longest = longest.max(at - now);
                // Sometimes it is waited for: not a moment before, and then at once.
                if random.share() < 0.05 {
                    assert_eq!(pace.take(at - 1), Err(at), "{now}");
                    now = at;
                    pace.take(now).expect("ready as it said");
                    granted += 1;
                    check(&mut judge, now);
                }
            }
        }
    }
    assert!(granted > CALLS / 10, "{granted} grants");
    assert!(longest <= judge.per, "a wait of {longest}");
}

#[test]
fn a_million_calls_never_pass_the_rate() {
    for (seed, rate, per) in
        [(1, 1, 1000), (2, 7, 1000), (3, 100, 1_000_000), (4, 999, 5000), (5, 3, 10_000_000)]
    {
        let judge = || Judge { rate, per, burst: 0, last: VecDeque::new() };
        run(seed, Pace::SlidingWindow(SlidingWindow::new(rate, per)), judge(), Judge::any_span);
        run(seed, Pace::LeakyBucket(LeakyBucket::new(rate as u64, per)), judge(), Judge::any_span);
        run(seed, Pace::FixedWindow(FixedWindow::new(rate as u64, per)), judge(), Judge::own_span);
    }
}

#[test]
fn a_million_calls_never_pass_the_tokens() {
    for (seed, rate, per, burst) in [(1, 1, 1000, 1), (2, 7, 1000, 3), (3, 100, 1_000_000, 250)] {
        let judge = Judge { rate, per, burst, last: VecDeque::new() };
        let bucket = TokenBucket::new(rate as u64, per, burst);
        run(seed, Pace::TokenBucket(bucket), judge, Judge::tokens);
    }
}

#[test]
fn those_in_line_are_told_when_they_really_go() {
    let random = Random::seeded(9);
    let (rate, per) = (5, 1000);
    let paces: [fn() -> Pace; 4] = [
        || Pace::SlidingWindow(SlidingWindow::new(5, 1000)),
        || Pace::FixedWindow(FixedWindow::new(5, 1000)),
        || Pace::TokenBucket(TokenBucket::new(5, 1000, 2)),
        || Pace::LeakyBucket(LeakyBucket::new(5, 1000)),
    ];
    for pace in paces {
        for _ in 0..200 {
            let mut pace = pace();
            let mut now = 0;
            for _ in 0..(random.share() * 40.0) as u32 {
                now += (random.share() * 2.0 * per as f64 / rate as f64) as u64;
                let _ = pace.take(now);
            }
            let told: Vec<u64> = (0..17).map(|ahead| pace.ready(now, ahead)).collect();
            let gone: Vec<u64> = (0..17)
                .map(|_| {
                    if let Err(ready) = pace.take(now) {
                        now = ready;
                        pace.take(now).unwrap();
                    }
                    now
                })
                .collect();
            assert_eq!(told, gone);
        }
    }
}

#[test]
fn many_threads_never_pass_the_rate_on_the_real_clock() {
    let (rate, per) = (50, Duration::from_millis(5));
    let paced = Paced::new(Pace::SlidingWindow(SlidingWindow::new(rate, per.as_nanos() as u64)));
    let ctx = Context::unbounded();
    let started = std::time::Instant::now();
    // Each grant lies between the moments before and after its call.
    let mut grants: Vec<(Duration, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut grants = Vec::new();
                    while started.elapsed() < Duration::from_millis(500) {
                        let before = started.elapsed();
                        match paced.take(&ctx) {
                            Ok(()) => grants.push((before, started.elapsed())),
                            Err(error) => assert_eq!(error.kind(), Kind::Limited),
                        }
                    }
                    grants
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(grants.len() > rate * 10, "{}", grants.len());
    grants.sort_unstable();
    for (place, (begin, _)) in grants.iter().enumerate() {
        let sure = grants[place..]
            .iter()
            .take_while(|(before, _)| *before < *begin + per)
            .filter(|(_, after)| *after < *begin + per)
            .count();
        assert!(sure <= rate, "{sure} grants within a period from {begin:?}");
    }
}

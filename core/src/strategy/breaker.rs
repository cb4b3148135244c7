//! The state of a circuit breaker: closed, open, half-open. Without a clock of its own.

use std::collections::VecDeque;
use std::time::Duration;

/// When it opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Trip {
    /// After this many failures in a row.
    Consecutive(u32),
    /// When this share of at least so many sends within the window failed.
    Rate { share: f64, least: u32, window: Duration },
}

/// What it is made with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) trip: Trip,
    /// How long it stays open.
    pub(super) open_for: Duration,
    /// Sends that may probe at once while it is half-open, and that must go well to close it.
    pub(super) probes: u32,
}

/// What it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open,
    HalfOpen,
    ForcedOpen,
    ForcedClosed,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
            State::ForcedOpen => "forced_open",
            State::ForcedClosed => "forced_closed",
        }
    }
}

/// How a send ended, for the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Bad,
    /// It says nothing: cancelled, or a fault of the message.
    None,
}

/// A send that was let through. Each is reported once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    // Reports of an earlier phase count for nothing.
    phase: u64,
    probe: bool,
    /// It is the first after the breaker was open: that ended with it.
    pub(super) half_opens: bool,
}

// The window in tenths: what falls out does so a tenth at a time.
const TENTHS: u64 = 10;

#[derive(Debug, Clone, Copy)]
struct Tenth {
    number: u64,
    good: u32,
    bad: u32,
}

/// See the module. Times count from any fixed moment.
#[derive(Debug)]
pub(super) struct Breaker {
    rules: Rules,
    state: State,
    phase: u64,
    opened_at: Duration,
    in_a_row: u32,
    tenths: VecDeque<Tenth>,
    probing: u32,
    probed_well: u32,
}

impl Breaker {
    pub(super) fn new(rules: Rules) -> Breaker {
        Breaker {
            rules,
            state: State::Closed,
            phase: 0,
            opened_at: Duration::ZERO,
            in_a_row: 0,
            tenths: VecDeque::new(),
            probing: 0,
            probed_well: 0,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    fn enter(&mut self, state: State, now: Duration) {
        self.state = state;
        self.phase += 1;
        self.in_a_row = 0;
        self.tenths.clear();
        self.probing = 0;
        self.probed_well = 0;
        if state == State::Open {
            self.opened_at = now;
        }
    }

    /// Lets a send through, or says how long it will not. The time is asked for only where it matters: to read a
    /// clock takes longer than all the rest.
    pub(super) fn ask(&mut self, now: impl FnOnce() -> Duration) -> Result<Pass, Duration> {
        let half_opens = self.state == State::Open;
        if half_opens {
            let now = now();
            let over = self.opened_at + self.rules.open_for;
            if now < over {
                return Err(over - now);
            }
            self.enter(State::HalfOpen, now);
        }
        match self.state {
            State::ForcedOpen => Err(Duration::ZERO),
            State::HalfOpen if self.probing + self.probed_well >= self.rules.probes => {
                // The probes under way decide; nobody knows when.
                Err(Duration::ZERO)
            }
            State::HalfOpen => {
                self.probing += 1;
                Ok(Pass { phase: self.phase, probe: true, half_opens })
            }
            _ => Ok(Pass { phase: self.phase, probe: false, half_opens: false }),
        }
    }

    /// Takes the end of a send; the new state where it changed.
    pub(super) fn report(
        &mut self,
        pass: Pass,
        verdict: Verdict,
        now: impl FnOnce() -> Duration,
    ) -> Option<State> {
        if pass.phase != self.phase {
            return None;
        }
        if pass.probe {
            self.probing = self.probing.saturating_sub(1);
        }
        match (self.state, verdict) {
            (_, Verdict::None) | (State::ForcedOpen | State::ForcedClosed | State::Open, _) => return None,
            (State::HalfOpen, Verdict::Bad) => self.enter(State::Open, now()),
            (State::HalfOpen, Verdict::Good) => {
                self.probed_well += 1;
                if self.probed_well < self.rules.probes {
                    return None;
                }
                self.enter(State::Closed, Duration::ZERO);
            }
            (State::Closed, Verdict::Good) if matches!(self.rules.trip, Trip::Consecutive(_)) => {
                self.in_a_row = 0;
                return None;
            }
            (State::Closed, verdict) => {
                let now = now();
                if !self.trips(verdict, now) {
                    return None;
                }
                self.enter(State::Open, now);
            }
        }
        Some(self.state)
    }

    fn trips(&mut self, verdict: Verdict, now: Duration) -> bool {
        let bad = verdict == Verdict::Bad;
        match self.rules.trip {
            Trip::Consecutive(most) => {
                self.in_a_row = if bad { self.in_a_row.saturating_add(1) } else { 0 };
                self.in_a_row >= most
            }
            Trip::Rate { share, least, window } => {
                let number = tenth_of(now, window);
                while self.tenths.front().is_some_and(|tenth| tenth.number + TENTHS <= number) {
                    self.tenths.pop_front();
                }
                match self.tenths.back_mut() {
                    Some(tenth) if tenth.number >= number => {
                        tenth.good = tenth.good.saturating_add(u32::from(!bad));
                        tenth.bad = tenth.bad.saturating_add(u32::from(bad));
                    }
                    _ => self.tenths.push_back(Tenth { number, good: u32::from(!bad), bad: u32::from(bad) }),
                }
                if !bad {
                    return false;
                }
                let (good, bad) = self.counts();
                bad + good >= u64::from(least) && bad as f64 >= share * (bad + good) as f64
            }
        }
    }

    fn counts(&self) -> (u64, u64) {
        self.tenths
            .iter()
            .fold((0, 0), |(good, bad), tenth| (good + u64::from(tenth.good), bad + u64::from(tenth.bad)))
    }

    /// Forces it open or closed, or lets it decide again, beginning closed.
    pub(super) fn force(&mut self, state: State, now: Duration) {
        self.enter(state, now);
    }

    /// Failures in a row, and the good and bad sends in the window.
    pub(super) fn seen(&self) -> (u32, u64, u64) {
        let (good, bad) = self.counts();
        (self.in_a_row, good, bad)
    }
}

fn tenth_of(now: Duration, window: Duration) -> u64 {
    let tenth = (window.as_micros() / u128::from(TENTHS)).max(1);
    u64::try_from(now.as_micros() / tenth).unwrap_or(u64::MAX - TENTHS)
}

#[cfg(all(test, not(ceiba_loom)))]
#[allow(clippy::expect_used, reason = "a test may")]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker(trip: Trip, probes: u32) -> Breaker {
        Breaker::new(Rules { trip, open_for: at(30), probes })
    }

    fn fail(breaker: &mut Breaker, now: Duration) -> Option<State> {
        let pass = breaker.ask(|| now).expect("open");
        breaker.report(pass, Verdict::Bad, || now)
    }

    #[test]
    fn failures_in_a_row_open_it_and_probes_close_it() {
        let mut breaker = breaker(Trip::Consecutive(3), 2);
        assert_eq!(fail(&mut breaker, at(0)), None);
        assert_eq!(fail(&mut breaker, at(0)), None);
        let pass = breaker.ask(|| at(0)).unwrap();
        breaker.report(pass, Verdict::Good, || at(0));
        assert_eq!((0..3).filter_map(|_| fail(&mut breaker, at(1))).collect::<Vec<_>>(), [State::Open]);
        assert_eq!(breaker.ask(|| at(11)), Err(at(20)));
        let (one, two) = (breaker.ask(|| at(31)).unwrap(), breaker.ask(|| at(31)).unwrap());
        assert_eq!(breaker.ask(|| at(31)), Err(Duration::ZERO), "two probes, no more");
        assert_eq!(breaker.report(one, Verdict::Good, || at(32)), None);
        assert_eq!(breaker.report(two, Verdict::Good, || at(32)), Some(State::Closed));
    }

    #[test]
    fn a_bad_probe_opens_it_for_the_whole_time_again() {
        let mut breaker = breaker(Trip::Consecutive(1), 1);
        fail(&mut breaker, at(0));
        assert_eq!(fail(&mut breaker, at(30)), Some(State::Open));
        assert_eq!(breaker.ask(|| at(31)), Err(at(29)));
    }

    #[test]
    fn a_probe_that_says_nothing_gives_its_place_back() {
        let mut breaker = breaker(Trip::Consecutive(1), 1);
        fail(&mut breaker, at(0));
        let pass = breaker.ask(|| at(30)).unwrap();
        assert_eq!(breaker.report(pass, Verdict::None, || at(30)), None);
        breaker.ask(|| at(30)).unwrap();
    }

    #[test]
    fn a_share_of_the_window_opens_it() {
        let trip = Trip::Rate { share: 0.5, least: 10, window: at(10) };
        let mut breaker = breaker(trip, 1);
        for _ in 0..9 {
            assert_eq!(fail(&mut breaker, at(0)), None, "too few to judge");
        }
        // All of those have left the window.
        for _ in 0..6 {
            let pass = breaker.ask(|| at(10)).unwrap();
            breaker.report(pass, Verdict::Good, || at(10));
        }
        for _ in 0..5 {
            assert_eq!(fail(&mut breaker, at(11)), None);
        }
        assert_eq!(fail(&mut breaker, at(12)), Some(State::Open));
    }

    #[test]
    fn late_reports_of_an_earlier_phase_count_for_nothing() {
        let mut breaker = breaker(Trip::Consecutive(1), 1);
        let late = breaker.ask(|| at(0)).unwrap();
        fail(&mut breaker, at(0));
        let probe = breaker.ask(|| at(30)).unwrap();
        assert_eq!(breaker.report(late, Verdict::Bad, || at(30)), None);
        assert_eq!(breaker.report(probe, Verdict::Good, || at(30)), Some(State::Closed));
    }

    #[test]
    fn forced_is_forced() {
        let mut breaker = breaker(Trip::Consecutive(1), 1);
        breaker.force(State::ForcedOpen, at(0));
        breaker.ask(|| at(1000)).unwrap_err();
        breaker.force(State::ForcedClosed, at(1000));
        for _ in 0..5 {
            assert_eq!(fail(&mut breaker, at(1000)), None);
        }
        breaker.force(State::Closed, at(1000));
        assert_eq!(fail(&mut breaker, at(1000)), Some(State::Open));
    }
}

#[cfg(all(test, ceiba_loom))]
mod exhaustive {
    use loom::sync::Arc;
    use loom::thread;

    use super::super::sync::Lock;
    use super::*;

    #[test]
    fn one_probe_of_two_that_ask_at_once_and_its_place_comes_back() {
        loom::model(|| {
            let rules = Rules { trip: Trip::Consecutive(1), open_for: Duration::from_secs(1), probes: 1 };
            let breaker = Arc::new(Lock::new(Breaker::new(rules)));
            let now = Duration::from_secs(1);
            breaker.with(|breaker| {
                let pass = breaker.ask(|| Duration::ZERO).unwrap();
                breaker.report(pass, Verdict::Bad, || Duration::ZERO);
            });
            let ask = move |breaker: &Lock<Breaker>| {
                let pass = breaker.with(|breaker| breaker.ask(|| now)).ok();
                if let Some(pass) = pass {
                    // Cancelled: it says nothing.
                    breaker.with(|breaker| breaker.report(pass, Verdict::None, || now));
                }
                pass.is_some()
            };
            let other = thread::spawn({
                let breaker = breaker.clone();
                move || ask(&breaker)
            });
            let here = ask(&breaker);
            let there = other.join().unwrap();
            assert!(here || there);
            let pass = breaker.with(|breaker| breaker.ask(|| now)).unwrap();
            let state = breaker.with(|breaker| breaker.report(pass, Verdict::Good, || now));
            assert_eq!(state, Some(State::Closed));
        });
    }
}

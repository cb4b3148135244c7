//! A connection that comes back: dialing, live, or waiting for the next try.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::backoff::Backoff;
use super::dial::{Dialer, Wire};
use super::keys::Pace;
use super::link::Link;
use super::target::Target;
use crate::client::BoxFuture;
use crate::error::{Error, Kind, Result};
use crate::random::Random;

/// After a refused key the next try comes after this long.
const AUTHENTICATION_WAIT: Duration = Duration::from_secs(30);

enum State {
    Waiting(Option<Instant>),
    Dialing(BoxFuture<'static, Result<Wire>>),
    Up(Box<Link>),
}

/// What happened to it.
#[derive(Debug)]
pub(in crate::provider) enum Change {
    /// It is live.
    Up,
    /// A try failed.
    Failed(Error),
}

/// See the module.
pub(in crate::provider) struct Connection {
    pub(in crate::provider) target: Arc<Target>,
    dialer: Arc<Dialer>,
    check_time: Duration,
    stable_after: Duration,
    state: State,
    backoff: Backoff,
    up_since: Option<Instant>,
    // Whether it was ever tried to the end.
    settled: bool,
    was_up: bool,
    reconnects: Arc<AtomicU64>,
}

impl Connection {
    /// One that dials when it is polled next.
    pub(in crate::provider) fn new(
        target: Arc<Target>,
        dialer: Arc<Dialer>,
        pace: Pace,
        random: &Random,
        reconnects: Arc<AtomicU64>,
    ) -> Connection {
        Connection {
            target,
            dialer,
            check_time: pace.check_time,
            stable_after: pace.reconnect_max,
            state: State::Waiting(Some(Instant::now())),
            backoff: Backoff::new(pace.reconnect_base, pace.reconnect_max, random.number()),
            up_since: None,
            settled: false,
            was_up: false,
            reconnects,
        }
    }

    pub(in crate::provider) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Up(link) => Some(link),
            _ => None,
        }
    }

    pub(in crate::provider) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether there is a connection whose other side agreed to the extension.
    pub(in crate::provider) fn extended(&self) -> bool {
        matches!(&self.state, State::Up(link) if link.extended())
    }

    /// Whether the first try has ended, well or not.
    pub(in crate::provider) fn settled(&self) -> bool {
        self.settled
    }

    /// When it has to be polled though nothing arrived.
    pub(in crate::provider) fn timer(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting(at) => *at,
            State::Dialing(_) => None,
            State::Up(link) => Some(link.next_check()),
        }
    }

    /// Goes on with dialing.
    pub(in crate::provider) fn poll_dial(&mut self, cx: &mut Context<'_>, now: Instant) -> Option<Change> {
        if let State::Waiting(Some(at)) = self.state
            && at <= now
        {
            self.state = State::Dialing(Box::pin(self.dialer.clone().dial(self.target.clone())));
        }
        let State::Dialing(dialing) = &mut self.state else { return None };
        let Poll::Ready(dialed) = dialing.as_mut().poll(cx) else { return None };
        self.settled = true;
        match dialed {
            Ok(wire) => {
                let link = Link::new(wire, self.target.clone(), self.check_time, now);
                self.state = State::Up(Box::new(link));
                self.up_since = Some(now);
                if self.was_up {
                    self.reconnects.fetch_add(1, Ordering::Relaxed);
                }
                self.was_up = true;
                Some(Change::Up)
            }
            Err(error) => {
                let mut wait = self.backoff.next();
                if wait.is_zero() {
                    // That was the try at once.
                    wait = self.backoff.next();
                }
                if error.kind() == Kind::Authentication {
                    wait = AUTHENTICATION_WAIT;
                }
                self.state = State::Waiting(Some(now + wait));
                Some(Change::Failed(error))
            }
        }
    }

    /// Drops the live connection and tries again: at once when it had held, else after a wait.
    pub(in crate::provider) fn lose(&mut self, now: Instant) {
        if self.up_since.take().is_some_and(|since| now.duration_since(since) >= self.stable_after) {
            self.backoff.reset();
        }
        self.state = State::Waiting(Some(now + self.backoff.next()));
    }

    /// Drops the live connection and does not try again until [`Connection::resume`].
    pub(in crate::provider) fn pause(&mut self) -> Option<Link> {
        match std::mem::replace(&mut self.state, State::Waiting(None)) {
            State::Up(link) => Some(*link),
            _ => None,
        }
    }

    /// Dials again after a pause.
    pub(in crate::provider) fn resume(&mut self, now: Instant) {
        if let State::Waiting(None) = self.state {
            self.state = State::Waiting(Some(now));
        }
    }

    /// Whether it was paused.
    pub(in crate::provider) fn paused(&self) -> bool {
        matches!(self.state, State::Waiting(None))
    }

    /// What it does, for people.
    pub(in crate::provider) fn state_name(&self) -> &'static str {
        match self.state {
            State::Up(_) => "connected",
            State::Dialing(_) => "connecting",
            State::Waiting(None) => "paused",
            State::Waiting(Some(_)) if self.settled => "disconnected",
            State::Waiting(Some(_)) => "connecting",
        }
    }
}

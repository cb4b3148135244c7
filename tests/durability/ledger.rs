//! What was sent, what became of it, and what came: whatever does not fit is noted.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ceiba_core::error::{Error, Kind, Outcome};

/// What the sender of a message knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    UnderWay,
    Accepted,
    NotSent,
    Unknown,
}

#[derive(Debug)]
struct Entry {
    started: Instant,
    delay: Duration,
    body: String,
    fate: Fate,
    /// Deliveries to each consumer.
    came: Vec<u32>,
    /// Consumers that acknowledged it.
    acked: Vec<bool>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    wrong: Vec<String>,
    deliveries: u64,
}

/// Who must get a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    One,
    Everybody,
}

/// The book of one run.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    whom: Whom,
    consumers: usize,
}

/// What a run came to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) accepted: usize,
    pub(crate) delayed: usize,
    pub(crate) not_sent: usize,
    pub(crate) unknown: usize,
    /// Of the unknown ones, those that came.
    pub(crate) unknown_came: usize,
    pub(crate) deliveries: u64,
    /// Deliveries of what that consumer had already got.
    pub(crate) again: u64,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Figures) {
        self.accepted += other.accepted;
        self.delayed += other.delayed;
        self.not_sent += other.not_sent;
        self.unknown += other.unknown;
        self.unknown_came += other.unknown_came;
        self.deliveries += other.deliveries;
        self.again += other.again;
    }
}

/// The part of a body that names it.
fn name_of(body: &str) -> &str {
    body.split('|').next().unwrap_or_default()
}

impl Ledger {
    pub(crate) fn new(whom: Whom, consumers: usize) -> Ledger {
        Ledger { state: Mutex::default(), whom, consumers }
    }

    /// Notes a body before it is sent: `name|filler`.
    pub(crate) fn begins(&self, body: &str, delay: Duration) {
        let entry = Entry {
            started: Instant::now(),
            delay,
            body: body.to_owned(),
            fate: Fate::UnderWay,
            came: vec![0; self.consumers],
            acked: vec![false; self.consumers],
        };
        self.state.lock().unwrap().entries.insert(name_of(body).to_owned(), entry);
    }

    /// Notes how the send ended.
    pub(crate) fn ends(&self, body: &str, error: Option<&Error>) {
        let mut state = self.state.lock().unwrap();
        let fate = match error {
            None => Fate::Accepted,
            Some(error) if error.outcome() == Outcome::NotSent => Fate::NotSent,
            Some(_) => Fate::Unknown,
        };
        if let Some(error) = error
            && !matches!(error.kind(), Kind::Unavailable | Kind::Timeout | Kind::Closed)
        {
            state.wrong.push(format!("{}: {error}", name_of(body)));
        }
        let entry = state.entries.get_mut(name_of(body)).unwrap();
        entry.fate = fate;
        let came = entry.came.iter().any(|&times| times > 0);
        if fate == Fate::NotSent && came {
            state.wrong.push(format!("{} came before it was said not to be sent", name_of(body)));
        }
    }

    /// Notes a delivery.
    pub(crate) fn came(&self, consumer: usize, body: &str) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        let State { entries, wrong, deliveries } = &mut *state;
        *deliveries += 1;
        let name = name_of(body);
        let Some(entry) = entries.get_mut(name) else {
            wrong.push(format!("{name} came and nobody sent it"));
            return;
        };
        entry.came[consumer] += 1;
        let age = now - entry.started;
        if entry.body != body {
            wrong.push(format!("{name} came with another body"));
        }
        if age < entry.delay {
            wrong.push(format!("{name}, delayed by {:?}, came after {age:?}", entry.delay));
        }
        if entry.fate == Fate::NotSent {
            wrong.push(format!("{name} was not sent, and came"));
        }
    }

    /// Notes that a consumer acknowledged.
    pub(crate) fn acked(&self, consumer: usize, body: &str) {
        if let Some(entry) = self.state.lock().unwrap().entries.get_mut(name_of(body)) {
            entry.acked[consumer] = true;
        }
    }

    /// How many sends have not ended.
    pub(crate) fn under_way(&self) -> usize {
        self.state.lock().unwrap().entries.values().filter(|entry| entry.fate == Fate::UnderWay).count()
    }

    /// Accepted messages that somebody who must get them did not acknowledge: their number, and some of them.
    pub(crate) fn missing(&self) -> (usize, Vec<String>) {
        let state = self.state.lock().unwrap();
        let lacks = |entry: &&Entry| {
            let mut acked = entry.acked.iter();
            let done = match self.whom {
                Whom::One => acked.any(|&acked| acked),
                Whom::Everybody => acked.all(|&acked| acked),
            };
            entry.fate == Fate::Accepted && !done
        };
        let missing: Vec<&Entry> = state.entries.values().filter(lacks).collect();
        let show = |entry: &&Entry| {
            let sent = entry.started.elapsed();
            let (delay, came, acked) = (entry.delay, &entry.came, &entry.acked);
            format!(
                "{} sent {sent:?} ago, delay {delay:?}, came {came:?}, acked {acked:?}",
                name_of(&entry.body)
            )
        };
        (missing.len(), missing.iter().take(10).map(show).collect())
    }

    /// Deliveries so far.
    pub(crate) fn deliveries(&self) -> u64 {
        self.state.lock().unwrap().deliveries
    }

    /// Messages that were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.entries.values().filter(|entry| entry.fate == Fate::Accepted).count()
    }

    /// What it came to, or what was wrong.
    pub(crate) fn close(&self) -> Result<Figures, String> {
        let (missing, some) = self.missing();
        let state = self.state.lock().unwrap();
        let mut wrong = state.wrong.iter().take(10).cloned().collect::<Vec<_>>();
        if missing > 0 {
            let accepted = state.entries.values().filter(|entry| entry.fate == Fate::Accepted).count();
            wrong.push(format!("{missing} of {accepted} accepted messages are lost, such as {some:#?}"));
        }
        if !wrong.is_empty() {
            return Err(wrong.join("\n"));
        }
        let mut figures = Figures { deliveries: state.deliveries, ..Figures::default() };
        for entry in state.entries.values() {
            let came = entry.came.iter().any(|&times| times > 0);
            match entry.fate {
                Fate::Accepted => figures.accepted += 1,
                Fate::NotSent => figures.not_sent += 1,
                Fate::Unknown | Fate::UnderWay => {
                    figures.unknown += 1;
                    figures.unknown_came += usize::from(came);
                }
            }
            figures.delayed += usize::from(entry.fate == Fate::Accepted && !entry.delay.is_zero());
            figures.again += entry.came.iter().map(|&times| u64::from(times.saturating_sub(1))).sum::<u64>();
        }
        Ok(figures)
    }
}

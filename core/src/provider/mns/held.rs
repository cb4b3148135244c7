//! The deliveries of a consumer that are not acknowledged yet, and what is to be said of them. No network here.
//!
//! A delivery's code is the receipt handle it came with. Each renewal of its time gives it another handle, which is what
//! the service wants to hear from then on.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::PROVIDER;
use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::message::Delivery;

/// The most acks and nacks that wait to be said.
const MAX_JOBS: usize = 10_000;

/// A delivery's code, and the handle it has now.
pub(super) type CodeAndHandle = (Arc<str>, Arc<str>);

/// What is said of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// It is done.
    Ack,
    /// It comes again after so many seconds.
    Nack(u32),
}

/// A word that waits to be said.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) code: Arc<str>,
    pub(super) word: Word,
    reply: oneshot::Sender<Result<()>>,
}

impl Job {
    pub(super) fn end(self, result: Result<()>) {
        // Whoever asked may have gone.
        let _ = self.reply.send(result);
    }
}

#[derive(Debug)]
struct Entry {
    handle: Arc<str>,
    // Until the host receives it.
    delivery: Option<Delivery>,
    since: Instant,
    renew_at: Instant,
    due: Instant,
    renewing: bool,
    // A word about it waits or is being said: its time is not renewed any more.
    said: bool,
}

#[derive(Debug, Default)]
struct State {
    // In the order they came; one of them may have lapsed.
    waiting: VecDeque<Arc<str>>,
    entries: HashMap<Arc<str>, Entry>,
    jobs: VecDeque<Job>,
    saying: usize,
    // Room that receives under way have asked for.
    asked: usize,
    lapsed: u64,
    received: u64,
    closed: bool,
}

/// Counts, for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) waiting: usize,
    pub(super) held: usize,
    pub(super) unsent: usize,
    pub(super) received: u64,
    pub(super) lapsed: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Held {
    state: Mutex<State>,
    prefetch: usize,
    // A delivery came, or the consumer was closed.
    arrived: Notify,
    // There is room for more deliveries.
    room: Notify,
    // A word waits that can be said.
    word: Notify,
    // Words were said.
    said: Notify,
    // There is a delivery whose time is to be renewed.
    fresh: Notify,
}

fn closed() -> Error {
    Error::new(Kind::Closed, "the consumer is closed").by(PROVIDER)
}

impl Held {
    pub(super) fn new(prefetch: usize) -> Held {
        Held {
            state: Mutex::default(),
            prefetch,
            arrived: Notify::new(),
            room: Notify::new(),
            word: Notify::new(),
            said: Notify::new(),
            fresh: Notify::new(),
        }
    }

    /// Waits for room for deliveries and reserves it, up to `most`. None once the consumer is closed.
    pub(super) async fn reserve(&self, most: usize) -> Option<usize> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.closed {
                    return None;
                }
                let taken = state.waiting.len() + state.asked;
                let free = self.prefetch.saturating_sub(taken).min(most);
                if free > 0 {
                    state.asked += free;
                    return Some(free);
                }
            }
            room.await;
        }
    }

    /// Adds what came for a reservation: each delivery with the time for which it is hidden from others. What comes after
    /// the close is given back: its handles.
    pub(super) fn arrive(&self, reserved: usize, came: Vec<(Delivery, Duration)>) -> Vec<Arc<str>> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.asked = state.asked.saturating_sub(reserved);
        if state.closed {
            return came.into_iter().map(|(delivery, _)| delivery.code).collect();
        }
        let number = came.len();
        for (delivery, hidden) in came {
            let code = delivery.code.clone();
            let entry = Entry {
                handle: code.clone(),
                delivery: Some(delivery),
                since: now,
                renew_at: now + hidden / 2,
                due: now + hidden,
                renewing: false,
                said: false,
            };
            state.entries.insert(code.clone(), entry);
            state.waiting.push_back(code);
        }
        drop(state);
        if number < reserved {
            self.room.notify_one();
        }
        if number > 0 {
            self.arrived.notify_one();
            self.fresh.notify_one();
        }
        Vec::new()
    }

    /// Receives up to `max`; none when the context's deadline passes.
    pub(super) async fn receive(&self, ctx: &Context, max: usize) -> Result<Vec<Delivery>> {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let taken = self.take(max)?;
            if !taken.is_empty() {
                return Ok(taken);
            }
            match ctx.run(arrived).await {
                Ok(()) => {}
                Err(error) if error.kind() == Kind::Timeout => return Ok(Vec::new()),
                Err(error) => return Err(error.by(PROVIDER)),
            }
        }
    }

    fn take(&self, max: usize) -> Result<Vec<Delivery>> {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.closed {
            return Err(closed());
        }
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some(code) = state.waiting.pop_front()
        {
            // One whose time is over is another's already.
            if let Some(entry) = state.entries.get_mut(&code)
                && entry.due > now
                && let Some(delivery) = entry.delivery.take()
            {
                taken.push(delivery);
            }
        }
        state.received += taken.len() as u64;
        let more = !state.waiting.is_empty();
        drop(state);
        self.room.notify_waiters();
        // For one that was about to wait.
        self.room.notify_one();
        if more {
            self.arrived.notify_one();
        }
        Ok(taken)
    }

    /// Queues a word, once there is room for it; its end comes through what is returned. What was never delivered here may
    /// be spoken of too: its code is its handle.
    pub(super) async fn say(
        &self,
        ctx: &Context,
        code: Arc<str>,
        word: Word,
    ) -> Result<oneshot::Receiver<Result<()>>> {
        loop {
            let said = self.said.notified();
            tokio::pin!(said);
            said.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.closed {
                    return Err(closed());
                }
                if state.jobs.len() < MAX_JOBS {
                    let (reply, end) = oneshot::channel();
                    if let Some(entry) = state.entries.get_mut(&code) {
                        entry.said = true;
                    }
                    state.jobs.push_back(Job { code, word, reply });
                    drop(state);
                    self.word.notify_one();
                    return Ok(end);
                }
            }
            ctx.run(said).await.map_err(|ended| match ended.kind() {
                Kind::Timeout => {
                    let text = format!("{MAX_JOBS} acks wait to be sent: the consumer takes no more");
                    Error::new(Kind::QueueFull, text).by(PROVIDER)
                }
                _ => ended.by(PROVIDER),
            })?;
        }
    }

    /// Waits for words that can be said, and takes them with their handles: up to `most` acks, or one nack. One about a
    /// delivery that is being renewed waits for its new handle.
    pub(super) async fn words(&self, most: usize) -> Vec<(Job, Arc<str>)> {
        loop {
            let word = self.word.notified();
            tokio::pin!(word);
            word.as_mut().enable();
            let taken = self.take_words(most);
            if !taken.is_empty() {
                return taken;
            }
            word.await;
        }
    }

    fn take_words(&self, most: usize) -> Vec<(Job, Arc<str>)> {
        let mut state = self.state.lock();
        let State { jobs, entries, saying, .. } = &mut *state;
        let mut taken: Vec<(Job, Arc<str>)> = Vec::new();
        let mut at = 0;
        while taken.len() < most
            && let Some(job) = jobs.get(at)
        {
            let entry = entries.get(&job.code);
            let alone = job.word != Word::Ack;
            if entry.is_some_and(|entry| entry.renewing) || (alone && !taken.is_empty()) {
                at += 1;
                continue;
            }
            let handle = entry.map_or_else(|| job.code.clone(), |entry| entry.handle.clone());
            if let Some(job) = jobs.remove(at) {
                taken.push((job, handle));
            }
            if alone {
                break;
            }
        }
        *saying += taken.len();
        let more = !jobs.is_empty() && !taken.is_empty();
        drop(state);
        if more {
            self.word.notify_one();
        }
        taken
    }

    /// A word was said, and this came of it.
    pub(super) fn was_said(&self, job: Job, result: Result<()>) {
        let mut state = self.state.lock();
        state.saying = state.saying.saturating_sub(1);
        let gone = match &result {
            Ok(()) => true,
            // The service knows no such delivery any more.
            Err(error) => error.kind() == Kind::NotFound,
        };
        if gone {
            state.entries.remove(&job.code);
        } else if let Some(entry) = state.entries.get_mut(&job.code) {
            entry.said = false;
        }
        drop(state);
        job.end(result);
        self.said.notify_waiters();
        self.fresh.notify_one();
    }

    /// Waits until every word was said.
    pub(super) async fn all_said(&self, ctx: &Context) -> Result<()> {
        loop {
            let said = self.said.notified();
            tokio::pin!(said);
            said.as_mut().enable();
            {
                let state = self.state.lock();
                if state.jobs.is_empty() && state.saying == 0 {
                    return Ok(());
                }
            }
            ctx.run(said).await.map_err(|error| error.by(PROVIDER))?;
        }
    }

    /// Ends the words that still wait with this error.
    pub(super) fn give_up(&self, error: &Error) {
        let jobs = std::mem::take(&mut self.state.lock().jobs);
        for job in jobs {
            job.end(Err(error.clone()));
        }
        self.said.notify_waiters();
    }

    /// The deliveries whose time is to be renewed now, marked as being renewed, and when to ask again.
    pub(super) fn to_renew(
        &self,
        extend_for: Duration,
        most: usize,
    ) -> (Vec<CodeAndHandle>, Option<Instant>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { entries, lapsed, .. } = &mut *state;
        let before = entries.len();
        // What a word waits for keeps its handle until the word is said.
        entries.retain(|_, entry| entry.due > now || entry.renewing || entry.said);
        *lapsed += (before - entries.len()) as u64;
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        for (code, entry) in entries.iter_mut() {
            let mut wake = entry.due;
            let renewed =
                !entry.renewing && !entry.said && now.saturating_duration_since(entry.since) < extend_for;
            if renewed && entry.renew_at <= now && due.len() < most {
                entry.renewing = true;
                due.push((code.clone(), entry.handle.clone()));
            } else if renewed {
                wake = entry.renew_at.max(now + Duration::from_millis(20));
            }
            // One that is being renewed or spoken of tells when that has ended.
            if !entry.renewing && !entry.said {
                next = Some(next.map_or(wake, |next| next.min(wake)));
            }
        }
        (due, next)
    }

    /// Waits until there may be something to renew that was not known of.
    pub(super) async fn freshened(&self) {
        self.fresh.notified().await;
    }

    /// How a renewal ended: the new handle and the time it gave, or none; `gone` where the service knows it no more.
    pub(super) fn was_renewed(&self, code: &Arc<str>, renewed: Option<(Arc<str>, Duration)>, gone: bool) {
        let now = Instant::now();
        let mut state = self.state.lock();
        let State { entries, lapsed, .. } = &mut *state;
        if gone && entries.remove(code).is_some() {
            *lapsed += 1;
        } else if let Some(entry) = entries.get_mut(code) {
            entry.renewing = false;
            match renewed {
                Some((handle, hidden)) => {
                    entry.handle = handle;
                    entry.renew_at = now + hidden / 2;
                    entry.due = now + hidden;
                }
                // Once more before it is too late.
                None => entry.renew_at = now + entry.due.saturating_duration_since(now) / 3,
            }
        }
        drop(state);
        self.word.notify_one();
        self.fresh.notify_one();
    }

    /// Ends receives and refuses words; those taken are still said.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.waiting.clear();
        drop(state);
        for waits in [&self.arrived, &self.room, &self.said, &self.fresh] {
            waits.notify_waiters();
            waits.notify_one();
        }
    }

    /// The handles of all that is held, which is held no longer.
    pub(super) fn let_go(&self) -> Vec<Arc<str>> {
        let entries = std::mem::take(&mut self.state.lock().entries);
        entries.into_values().map(|entry| entry.handle).collect()
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state.lock();
        Counts {
            waiting: state.waiting.len(),
            held: state.entries.len(),
            unsent: state.jobs.len() + state.saying,
            received: state.received,
            lapsed: state.lapsed,
        }
    }
}

#[cfg(test)]
mod tests;

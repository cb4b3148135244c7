//! The deliveries of a consumer that are not acknowledged yet, and what is to be said of them. No network here.
//!
//! A delivery's code is the receipt handle it came with. Each renewal of its time gives it another handle, which is what
//! the service wants to hear from then on.

mod table;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use self::table::{Handed, Spoken, Table};
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

#[derive(Debug, Default)]
struct State {
    // In the order they came; one of them may have lapsed.
    waiting: VecDeque<Arc<str>>,
    table: Table,
    jobs: VecDeque<Job>,
    saying: usize,
    // Room that receives under way have asked for.
    asked: usize,
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
    // A renewal or a word ended, of which a close may wait.
    ended: Notify,
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
            ended: Notify::new(),
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
            state.waiting.push_back(delivery.code.clone());
            state.table.insert(delivery, hidden, now);
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
        let State { waiting, table, .. } = &mut *state;
        let (mut taken, mut later) = (Vec::new(), Vec::new());
        while taken.len() < max
            && let Some(code) = waiting.pop_front()
        {
            match table.hand_over(&code, now) {
                Handed::Delivery(delivery) => taken.push(delivery),
                Handed::Later => later.push(code),
                Handed::Gone => {}
            }
        }
        // Of those that have to wait the next receive knows no more than this one.
        let more = !waiting.is_empty();
        for code in later.into_iter().rev() {
            waiting.push_front(code);
        }
        state.received += taken.len() as u64;
        drop(state);
        if !taken.is_empty() {
            // The host has them from now on: each has all of its time again.
            self.fresh.notify_one();
        }
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
                    state.table.say(&code);
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
        let State { jobs, table, saying, .. } = &mut *state;
        let mut taken: Vec<(Job, Arc<str>)> = Vec::new();
        let mut at = 0;
        while taken.len() < most
            && let Some(job) = jobs.get(at)
        {
            let alone = job.word != Word::Ack;
            let handle = match table.spoken(&job.code) {
                _ if alone && !taken.is_empty() => None,
                Spoken::Handle(handle) => Some(handle),
                Spoken::Unknown => Some(job.code.clone()),
                Spoken::Later => None,
            };
            let Some(handle) = handle else {
                at += 1;
                continue;
            };
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
        state.table.was_said(&job.code, gone);
        drop(state);
        job.end(result);
        self.said.notify_waiters();
        self.ended.notify_one();
        if !gone {
            self.fresh.notify_one();
        }
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

    /// Up to `most` deliveries whose time is to be renewed now, marked as being renewed, and when to ask again.
    pub(super) fn take_due(
        &self,
        extend_for: Duration,
        most: usize,
    ) -> (Vec<CodeAndHandle>, Option<Instant>) {
        let mut state = self.state.lock();
        match state.closed {
            // What is held is given back.
            true => (Vec::new(), None),
            false => state.table.renewals(extend_for, most, Instant::now()),
        }
    }

    /// Waits until there may be something to renew that was not known of.
    pub(super) async fn freshened(&self) {
        self.fresh.notified().await;
    }

    /// How a renewal ended: the new handle and the time it gave, or none; `gone` where the service knows it no more.
    pub(super) fn was_renewed(&self, code: &Arc<str>, renewed: Option<(Arc<str>, Duration)>, gone: bool) {
        self.state.lock().table.was_renewed(code, renewed, gone, Instant::now());
        self.word.notify_one();
        self.fresh.notify_one();
        self.ended.notify_one();
        // It may be one that the host waits for.
        self.arrived.notify_one();
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

    /// After a close, the handles of what is held, which is held no longer. Waits for what is being renewed or spoken of;
    /// none when nothing is left, or no time.
    pub(super) async fn let_go(&self, ctx: &Context) -> Option<Vec<Arc<str>>> {
        loop {
            let ended = self.ended.notified();
            let left = {
                let mut state = self.state.lock();
                let gone = state.table.let_go();
                if !gone.is_empty() {
                    return Some(gone);
                }
                state.table.len()
            };
            if left == 0 || ctx.run(ended).await.is_err() {
                return None;
            }
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state.lock();
        Counts {
            waiting: state.waiting.len(),
            held: state.table.len(),
            unsent: state.jobs.len() + state.saying,
            received: state.received,
            lapsed: state.table.lapsed,
        }
    }
}

#[cfg(test)]
mod tests;

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
    pub(super) fn to_renew(&self, extend_for: Duration, most: usize) -> (Vec<(Arc<str>, Arc<str>)>, Option<Instant>) {
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
            let renewed = !entry.renewing && !entry.said && now.saturating_duration_since(entry.since) < extend_for;
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
mod tests {
    use super::*;
    use crate::message::Message;

    fn delivery(code: &str) -> Delivery {
        Delivery {
            message: Message::new("x"),
            topic: "q".into(),
            code: code.into(),
            created: None,
            attempt: Some(1),
        }
    }

    fn within(seconds: u64) -> Context {
        Context::within(Duration::from_secs(seconds))
    }

    async fn filled(codes: &[&str], hidden: u64) -> Held {
        let held = Held::new(16);
        let reserved = held.reserve(16).await.unwrap();
        let hidden = Duration::from_secs(hidden);
        held.arrive(reserved, codes.iter().map(|code| (delivery(code), hidden)).collect());
        held
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn room_is_bounded_and_comes_back_with_a_receive() {
        let held = Held::new(3);
        assert_eq!(held.reserve(2).await, Some(2));
        assert_eq!(held.reserve(16).await, Some(1));
        assert!(within(1).run(held.reserve(1)).await.is_err());
        held.arrive(2, vec![(delivery("a"), HOUR)]);
        assert_eq!(held.reserve(16).await, Some(1), "one was asked for and did not come");
        held.arrive(1, vec![(delivery("b"), HOUR)]);
        assert_eq!(held.receive(&within(1), 9).await.unwrap().len(), 2);
        assert_eq!(held.reserve(16).await, Some(2));
        assert!(held.receive(&within(1), 9).await.unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_lapsed_is_not_delivered() {
        let held = filled(&["a"], 10).await;
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(held.receive(&within(1), 9).await.unwrap().is_empty());
        assert!(held.to_renew(HOUR, 9).0.is_empty());
        assert_eq!((held.counts().held, held.counts().lapsed), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn an_ack_waits_for_the_handle_of_a_renewal() {
        let held = filled(&["a", "b"], 10).await;
        assert!(held.to_renew(HOUR, 9).0.is_empty());
        tokio::time::advance(Duration::from_secs(5)).await;
        let (due, _) = held.to_renew(HOUR, 1);
        let (code, _) = &due[0];
        let other = if &**code == "a" { "b" } else { "a" };
        let mut ends = Vec::new();
        for one in [code.clone(), other.into()] {
            ends.push(held.say(&within(1), one, Word::Ack).await.unwrap());
        }
        let words = held.words(16).await;
        assert_eq!((words.len(), &*words[0].1), (1, other));
        for (job, _) in words {
            held.was_said(job, Ok(()));
        }
        held.was_renewed(code, Some(("new".into(), Duration::from_secs(10))), false);
        let words = held.words(16).await;
        assert_eq!((&*words[0].0.code, &*words[0].1), (&**code, "new"));
        for (job, _) in words {
            held.was_said(job, Ok(()));
        }
        for end in ends {
            end.await.unwrap().unwrap();
        }
        assert_eq!((held.counts().held, held.counts().unsent), (0, 0));
        held.all_said(&within(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_delivery_is_renewed_until_its_time_in_all_is_over() {
        let held = filled(&["a"], 10).await;
        let extend = Duration::from_secs(14);
        let mut renewals = 0;
        for _ in 0..40 {
            tokio::time::advance(Duration::from_secs(1)).await;
            let (due, _) = held.to_renew(extend, 9);
            for (code, _) in due {
                renewals += 1;
                held.was_renewed(&code, Some(("n".into(), Duration::from_secs(10))), false);
            }
        }
        assert_eq!((renewals, held.counts().held, held.counts().lapsed), (2, 0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_fails_is_tried_again_in_time() {
        let held = filled(&["a"], 12).await;
        let mut tries = 0;
        for _ in 0..120 {
            tokio::time::advance(Duration::from_millis(100)).await;
            let (due, _) = held.to_renew(HOUR, 9);
            for (code, _) in due {
                tries += 1;
                held.was_renewed(&code, None, false);
            }
        }
        assert!((3..40).contains(&tries), "{tries}");
        assert_eq!(held.counts().held, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nacks_go_alone_and_the_rest_is_told_at_the_close() {
        let held = filled(&["a", "b", "c"], 10).await;
        let mut ends = Vec::new();
        for (code, word) in [("a", Word::Ack), ("b", Word::Nack(3)), ("c", Word::Ack)] {
            ends.push(held.say(&within(1), code.into(), word).await.unwrap());
        }
        let words = held.words(16).await;
        assert_eq!(words.iter().map(|(job, _)| &*job.code).collect::<Vec<_>>(), ["a", "c"]);
        let nack = held.words(16).await;
        assert_eq!((nack.len(), nack[0].0.word), (1, Word::Nack(3)));
        held.close();
        assert_eq!(held.say(&within(1), "a".into(), Word::Ack).await.unwrap_err().kind(), Kind::Closed);
        assert_eq!(held.receive(&within(1), 1).await.unwrap_err().kind(), Kind::Closed);
        assert_eq!(held.all_said(&within(1)).await.unwrap_err().kind(), Kind::Timeout);
        assert_eq!(held.reserve(1).await, None);
        for (job, _) in words.into_iter().chain(nack) {
            held.was_said(job, Err(Error::new(Kind::Unavailable, "x")));
        }
        held.all_said(&within(1)).await.unwrap();
        assert_eq!(held.let_go().len(), 3);
        assert_eq!(held.arrive(1, vec![(delivery("d"), HOUR)]), ["d".into()]);
    }
}

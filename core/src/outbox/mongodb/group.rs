//! Calls that wait for one another go into one command: each waits for a majority of the servers to have it on disk.
//! A group that has no answer for long is left to itself, and the next goes beside it: but nothing overtakes what has a key
//! in common with it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use super::body::LARGEST;
use super::database::LONGEST;
use super::fault::{Fault, silent};
use super::table::ANSWERS;
use crate::client::{BoxFuture, Context};
use crate::error::{Error, Kind, Outcome, Result};

/// Calls that may wait.
const CALLS: usize = 65_536;
/// Their bytes, in units of 1 KiB.
const KIBIBYTES: u32 = (LARGEST >> 10) as u32;
/// Calls and bytes that go into one command.
pub(super) const GROUP: (usize, u64) = (1000, 16 << 20);
/// How long a group may be without an answer before the next goes beside it.
const SLOW: Duration = Duration::from_secs(2);
/// How many may be so slow at once.
const BESIDE: usize = 8;

/// What one call holds until it is done.
pub(super) struct Held(#[expect(dead_code)] [OwnedSemaphorePermit; 2]);

/// How many calls may wait, and with how many bytes.
pub(super) struct Room {
    calls: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
}

impl Room {
    pub(super) fn new() -> Room {
        Room {
            calls: Arc::new(Semaphore::new(CALLS)),
            kibibytes: Arc::new(Semaphore::new(KIBIBYTES as usize)),
        }
    }

    /// Waits for a place.
    ///
    /// # Errors
    /// `queue_full` and `cancelled`, of the context; `too_large`.
    pub(super) async fn take(&self, ctx: &Context, bytes: u64) -> Result<Held> {
        if bytes > LARGEST {
            let text = format!("{bytes} bytes are more than an outbox takes at once: {LARGEST}");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let units = u32::try_from(bytes.div_ceil(1024)).unwrap_or(KIBIBYTES).min(KIBIBYTES);
        let taken = async {
            let call = self.calls.clone().acquire_owned().await;
            Ok::<_, tokio::sync::AcquireError>(Held([
                call?,
                self.kibibytes.clone().acquire_many_owned(units).await?,
            ]))
        };
        match ctx.run(taken).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(_)) => Err(Error::new(Kind::Storage, "the outbox's store is closed")),
            Err(error) if error.kind() == Kind::Timeout => Err(Error::new(
                Kind::QueueFull,
                "the outbox's store has more to write than it can: the deadline passed before there was room",
            )),
            Err(error) => Err(error),
        }
    }
}

struct Job<I, O> {
    item: I,
    keys: Vec<String>,
    bytes: u64,
    until: Option<Instant>,
    reply: oneshot::Sender<Result<O>>,
    held: Held,
}

impl<I, O> Job<I, O> {
    fn wanted(&self) -> bool {
        !self.reply.is_closed() && self.until.is_none_or(|until| Instant::now() < until)
    }
}

struct Waiting<I, O> {
    // In the order in which they came.
    jobs: BTreeMap<u64, Job<I, O>>,
    // The keys of what is under way.
    keys: HashSet<String>,
    next: u64,
    led: bool,
    slow: usize,
}

/// What the calls of a group do together: an answer for each.
pub(super) type Work<I, O> = Box<dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<Result<O>>> + Send + Sync>;

struct Inner<I, O> {
    waiting: Mutex<Waiting<I, O>>,
    work: Work<I, O>,
}

/// See the module.
pub(super) struct Group<I, O>(Arc<Inner<I, O>>);

impl<I: Send + 'static, O: Send + 'static> Group<I, O> {
    pub(super) fn new(work: Work<I, O>) -> Group<I, O> {
        let (jobs, keys) = (BTreeMap::new(), HashSet::new());
        let waiting = Waiting { jobs, keys, next: 0, led: false, slow: 0 };
        Group(Arc::new(Inner { waiting: Mutex::new(waiting), work }))
    }

    /// Does it together with what else waits, and after all that came before it with one of its keys. Its room is taken until
    /// it is done, or nobody wants it any more and it was not begun.
    ///
    /// # Errors
    /// Those of the work; `timeout` and `cancelled` of the context, with the outcome unknown where it was begun.
    pub(super) async fn run(
        &self,
        ctx: &Context,
        item: I,
        keys: Vec<String>,
        bytes: u64,
        held: Held,
    ) -> Result<O> {
        let (reply, answer) = oneshot::channel();
        let (number, leads) = {
            let mut waiting = self.0.waiting.lock();
            let number = waiting.next;
            waiting.next += 1;
            waiting.jobs.insert(number, Job { item, keys, bytes, until: ctx.deadline(), reply, held });
            (number, !std::mem::replace(&mut waiting.led, true))
        };
        let queued = Queued { of: &self.0, number };
        if leads {
            start(Leader::new(&self.0));
        }
        let ended = match ctx.run(answer).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => {
                return Err(Error::new(Kind::Internal, "a call of the outbox's store had no answer")
                    .outcome_is(Outcome::Unknown));
            }
            Err(ended) => ended,
        };
        let outcome = if queued.leave() { Outcome::NotSent } else { Outcome::Unknown };
        match ended.kind() {
            Kind::Timeout => Err(late(outcome)),
            _ => Err(ended.outcome_is(outcome)),
        }
    }
}

/// A call that may wait for its turn. Nobody does what is dropped before.
struct Queued<'a, I, O> {
    of: &'a Inner<I, O>,
    number: u64,
}

impl<I, O> Queued<'_, I, O> {
    // Whether it was not begun.
    fn leave(&self) -> bool {
        let left = self.of.waiting.lock().jobs.remove(&self.number);
        left.is_some()
    }
}

impl<I, O> Drop for Queued<'_, I, O> {
    fn drop(&mut self) {
        self.leave();
    }
}

fn late(outcome: Outcome) -> Error {
    let text = format!("{}: the deadline passed", Fault::Late);
    Error::new(Kind::Timeout, text).caused_by(Fault::Late).outcome_is(outcome)
}

/// Who calls the work. However it ends, the next call leads anew.
struct Leader<I: Send + 'static, O: Send + 'static> {
    of: Arc<Inner<I, O>>,
    leads: bool,
    // It counts among the slow ones.
    slow: bool,
    // Of what it has under way.
    keys: HashSet<String>,
}

impl<I: Send + 'static, O: Send + 'static> Drop for Leader<I, O> {
    fn drop(&mut self) {
        let next = {
            let mut waiting = self.of.waiting.lock();
            if self.slow {
                waiting.slow = waiting.slow.saturating_sub(1);
            }
            waiting.keys.retain(|key| !self.keys.contains(key));
            if self.leads {
                waiting.led = false;
                waiting.jobs.clear();
            }
            // What waited for it alone.
            let waited = !self.keys.is_empty() && !waiting.jobs.is_empty();
            waited && !std::mem::replace(&mut waiting.led, true)
        };
        if next {
            start(Leader::new(&self.of));
        }
    }
}

impl<I: Send + 'static, O: Send + 'static> Leader<I, O> {
    fn new(of: &Arc<Inner<I, O>>) -> Leader<I, O> {
        Leader { of: of.clone(), leads: true, slow: false, keys: HashSet::new() }
    }

    fn next(&mut self) -> Option<Vec<Job<I, O>>> {
        if !self.leads {
            return None;
        }
        let mut waiting = self.of.waiting.lock();
        waiting.keys.retain(|key| !self.keys.contains(key));
        self.keys.clear();
        let (mut chosen, mut bytes) = (Vec::new(), 0_u64);
        // What must wait, and what came after it with a key of it.
        let mut behind: HashSet<&String> = HashSet::new();
        for (number, job) in &waiting.jobs {
            if job.keys.iter().any(|key| waiting.keys.contains(key) || behind.contains(key)) {
                behind.extend(&job.keys);
                continue;
            }
            let fits = chosen.is_empty() || bytes.saturating_add(job.bytes) <= GROUP.1;
            if chosen.len() >= GROUP.0 || !fits {
                break;
            }
            bytes = bytes.saturating_add(job.bytes);
            chosen.push(*number);
        }
        let mut group = Vec::with_capacity(chosen.len());
        for number in chosen {
            let Some(mut job) = waiting.jobs.remove(&number) else { continue };
            self.keys.extend(std::mem::take(&mut job.keys));
            group.push(job);
        }
        waiting.keys.extend(self.keys.iter().cloned());
        if group.is_empty() {
            waiting.led = false;
            self.leads = false;
            return None;
        }
        Some(group)
    }

    // Another leads from here on, if there are not too many already that are as slow.
    fn hand_over(&mut self) {
        {
            let mut waiting = self.of.waiting.lock();
            if !self.leads || waiting.slow >= BESIDE {
                return;
            }
            waiting.slow += 1;
        }
        (self.leads, self.slow) = (false, true);
        start(Leader::new(&self.of));
    }
}

fn start<I: Send + 'static, O: Send + 'static>(leader: Leader<I, O>) {
    // A runtime that ends drops what it is given.
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let leads: BoxFuture<'static, ()> = Box::pin(lead(leader));
    runtime.spawn(leads);
}

async fn lead<I: Send + 'static, O: Send + 'static>(mut leader: Leader<I, O>) {
    while let Some(group) = leader.next() {
        let (mut items, mut replies) = (Vec::new(), Vec::new());
        for job in group {
            if job.wanted() {
                items.push(job.item);
                replies.push((job.reply, job.held));
            } else {
                let _ = job.reply.send(Err(late(Outcome::NotSent)));
            }
        }
        if items.is_empty() {
            continue;
        }
        let answers: Arc<AtomicU64> = Arc::default();
        let work = ANSWERS.scope(answers.clone(), (leader.of.work)(items));
        let mut work = std::pin::pin!(tokio::time::timeout(LONGEST, work));
        let mut seen = 0;
        let done = loop {
            match tokio::time::timeout(SLOW, &mut work).await {
                Ok(done) => break done,
                // Where there is much to do another beside it makes nothing faster; but one answer that does not come is
                // not to keep all the others.
                Err(_) => match std::mem::replace(&mut seen, answers.load(Ordering::Relaxed)) {
                    before if before == seen => leader.hand_over(),
                    _ => {}
                },
            }
        };
        match done {
            Ok(answers) => {
                for ((reply, held), answer) in replies.into_iter().zip(answers) {
                    drop(held);
                    let _ = reply.send(answer);
                }
            }
            Err(_) => {
                for (reply, held) in replies {
                    drop(held);
                    let _ = reply.send(Err(silent(true)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;
    use crate::outbox::mongodb::table::step;

    // Work that never ends for items of this number, and gives each of the others back.
    const STUCK: usize = 0;

    fn group(begun: &Arc<AtomicUsize>) -> Arc<Group<usize, usize>> {
        let begun = begun.clone();
        Arc::new(Group::new(Box::new(move |items| {
            begun.fetch_add(items.len(), Ordering::SeqCst);
            Box::pin(async move {
                if items.contains(&STUCK) {
                    std::future::pending::<()>().await;
                }
                items.into_iter().map(Ok).collect()
            })
        })))
    }

    async fn called(group: &Group<usize, usize>, room: &Room, ctx: &Context, item: usize) -> Result<usize> {
        let held = room.take(ctx, 1024).await?;
        group.run(ctx, item, Vec::new(), 1024, held).await
    }

    fn free(room: &Room) -> [usize; 2] {
        [room.calls.available_permits(), room.kibibytes.available_permits()]
    }

    // An item of so many seconds, each of which ends with an answer where the item says so.
    type Seconds = (u64, bool);

    fn slowly(begun: &Arc<Mutex<Vec<Seconds>>>) -> Arc<Group<Seconds, Seconds>> {
        let begun = begun.clone();
        Arc::new(Group::new(Box::new(move |items: Vec<Seconds>| {
            begun.lock().extend(&items);
            Box::pin(async move {
                for (seconds, answers) in &items {
                    for _ in 0..*seconds {
                        let second = tokio::time::sleep(Duration::from_secs(1));
                        match answers {
                            true => step(true, second.map(Ok)).await.unwrap(),
                            false => second.await,
                        }
                    }
                }
                items.into_iter().map(Ok).collect()
            })
        })))
    }

    fn begin(
        group: &Arc<Group<Seconds, Seconds>>,
        item: Seconds,
        keys: &[&str],
    ) -> tokio::task::JoinHandle<Instant> {
        let (group, room) = (group.clone(), Room::new());
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        tokio::spawn(async move {
            let held = room.take(&seconds(100), 1024).await.unwrap();
            group.run(&seconds(100), item, keys, 1024, held).await.unwrap();
            Instant::now()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_goes_on_has_none_beside_it() {
        let group = slowly(&Arc::default());
        let began = Instant::now();
        let long = begin(&group, (10, true), &[]);
        tokio::task::yield_now().await;
        let next = begin(&group, (0, true), &[]);
        assert!(next.await.unwrap() - began >= Duration::from_secs(10));
        long.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_overtakes_what_has_a_key_in_common_with_it() {
        let begun = Arc::default();
        let group = slowly(&begun);
        let began = Instant::now();
        let mut all = Vec::new();
        for (number, keys) in [&["a"][..], &["a", "b"], &["b"], &["c"], &[], &["a"]].into_iter().enumerate() {
            // The first takes as long as three times what is slow.
            let seconds = if number == 0 { 6 } else { 0 };
            all.push(begin(&group, (seconds, number % 2 == 1), keys));
            tokio::task::yield_now().await;
        }
        let mut ends = Vec::new();
        for one in all {
            ends.push((one.await.unwrap() - began).as_secs());
        }
        assert_eq!(ends, [6, 6, 6, SLOW.as_secs(), SLOW.as_secs(), 6]);
        assert_eq!(*begun.lock(), [(6, false), (0, true), (0, false), (0, true), (0, false), (0, true)]);
        let waiting = group.0.waiting.lock();
        assert!(waiting.keys.is_empty() && waiting.jobs.is_empty() && !waiting.led);
    }

    fn seconds(seconds: u64) -> Context {
        Context::within(Duration::from_secs(seconds))
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_never_ends_does_not_keep_the_others() {
        let (begun, room) = (Arc::default(), Arc::new(Room::new()));
        let group = group(&begun);
        let stuck = {
            let (group, room) = (group.clone(), room.clone());
            tokio::spawn(async move { called(&group, &room, &Context::unbounded(), STUCK).await })
        };
        tokio::time::sleep(Duration::from_millis(1)).await;
        let began = Instant::now();
        assert_eq!(called(&group, &room, &seconds(20), 7).await.unwrap(), 7);
        assert!(began.elapsed() <= SLOW, "{:?}", began.elapsed());
        // Who names no deadline has an answer too.
        let error = stuck.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Storage, Outcome::Unknown), "{error:?}");
        assert!(began.elapsed() <= LONGEST, "{:?}", began.elapsed());
        assert_eq!(free(&room), [CALLS, KIBIBYTES as usize]);
        assert_eq!(group.0.waiting.lock().slow, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_begun_goes_with_its_caller_and_what_was_keeps_its_room() {
        let (begun, room) = (Arc::<AtomicUsize>::default(), Arc::new(Room::new()));
        let group = group(&begun);
        // As many as may be slow, and one more that leads: none is left to begin anything.
        for _ in 0..=BESIDE {
            let error = called(&group, &room, &seconds(3), STUCK).await.unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown), "{error:?}");
        }
        assert_eq!(begun.load(Ordering::SeqCst), BESIDE + 1);
        let stuck = [CALLS - BESIDE - 1, KIBIBYTES as usize - BESIDE - 1];
        assert_eq!(free(&room), stuck, "their callers are gone, and what they gave is still there");
        let error = called(&group, &room, &seconds(3), 7).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent), "{error:?}");
        let unbounded = Context::unbounded();
        let dropped = called(&group, &room, &unbounded, 7);
        let dropped = tokio::time::timeout(Duration::from_secs(1), dropped);
        assert!(dropped.await.is_err());
        assert_eq!((free(&room), group.0.waiting.lock().jobs.len()), (stuck, 0));
        // Those that are stuck end, and all goes on.
        tokio::time::sleep(LONGEST).await;
        assert_eq!(called(&group, &room, &seconds(3), 8).await.unwrap(), 8);
        assert_eq!((begun.load(Ordering::SeqCst), free(&room)), (BESIDE + 2, [CALLS, KIBIBYTES as usize]));
    }
}

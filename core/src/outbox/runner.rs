//! Sends what is stored: one task for each client with an outbox.
//!
//! It sleeps until a row is due, claims as many as there are places, and sends them in their order. What other
//! processes left it finds by asking every `poll`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::chores::{self, Notifier, Told};
use super::row::{Claim, Claims, Millis};
use super::shared::{Direct, Shared, Slot, millis};
use crate::client::{BoxFuture, Context, Producer};
use crate::error::{Error, Kind, Result};

/// Rows of one claim, and their bytes.
const CLAIM: (usize, u64) = (256, 64 << 20);

/// How long what was cancelled has to give its rows back.
const GRACE: Duration = Duration::from_secs(1);

/// How often rows are counted and old ones deleted.
const CHORES: Duration = Duration::from_secs(10);

/// Rows that were given up are told of by then, though the run goes on.
const LATEST_DIGEST: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Runner {
    stop: CancellationToken,
    kill: CancellationToken,
    drains: mpsc::Sender<oneshot::Sender<()>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Runner {
    pub(super) fn start(
        shared: &Arc<Shared>,
        inner: &Arc<dyn Producer>,
        notifier: Option<Notifier>,
    ) -> Runner {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (drains, asked) = mpsc::channel(64);
        let now = Instant::now();
        let run = Run {
            shared: shared.clone(),
            inner: inner.clone(),
            stop: stop.clone(),
            kill: kill.clone(),
            notifier,
            running: FuturesUnordered::new(),
            numbers: BTreeSet::new(),
            next_number: 0,
            claims: 0,
            look: true,
            seen: 0,
            at: now,
            drains: Vec::new(),
            tell: true,
            tell_at: 0,
            dead_since: now,
        };
        let task = tokio::spawn(run.run(asked));
        Runner { stop, kill, drains, task: Mutex::new(Some(task)) }
    }

    /// Waits until what is due now was tried once.
    pub(super) async fn drained(&self, ctx: &Context) -> Result<()> {
        let closed = || Error::new(Kind::Closed, "the producer is closed");
        let (reply, ended) = oneshot::channel();
        ctx.run(self.drains.send(reply)).await?.map_err(|_| closed())?;
        ctx.run(ended).await?.map_err(|_| closed())
    }

    /// Claims no more, lets what is under way end until the context does, and gives the rest back.
    pub(super) async fn close(&self, ctx: &Context) -> Result<()> {
        self.stop.cancel();
        let task = self.task.lock().take();
        let Some(mut task) = task else { return Ok(()) };
        let Err(late) = ctx.run(&mut task).await else { return Ok(()) };
        self.kill.cancel();
        if Context::within(GRACE).run(&mut task).await.is_err() {
            // Its leases end by themselves.
            task.abort();
            let _ = task.await;
        }
        Err(late)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

/// Somebody waits until all is tried that was due when he asked.
struct Drain {
    reply: oneshot::Sender<()>,
    /// The first claim that counts.
    claim: u64,
    /// The last attempt to wait for, once a claim found nothing more.
    last: Option<u64>,
}

struct Run {
    shared: Arc<Shared>,
    inner: Arc<dyn Producer>,
    stop: CancellationToken,
    kill: CancellationToken,
    notifier: Option<Notifier>,
    running: FuturesUnordered<BoxFuture<'static, (u64, bool)>>,
    numbers: BTreeSet<u64>,
    next_number: u64,
    // Claims begun.
    claims: u64,
    // Something may be due.
    look: bool,
    // The puts that were seen.
    seen: u64,
    // When something is due.
    at: Instant,
    drains: Vec<Drain>,
    // Rows may be dead of which nobody was told, since when, and when it is tried.
    tell: bool,
    tell_at: Millis,
    dead_since: Instant,
}

type Claiming = BoxFuture<'static, (Vec<Slot>, Instant, u64, Result<Claims>)>;

async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(there) => {
            let value = there.await;
            *future = None;
            value
        }
        None => std::future::pending().await,
    }
}

impl Run {
    async fn run(mut self, mut asked: mpsc::Receiver<oneshot::Sender<()>>) {
        let mut claiming: Option<Claiming> = None;
        let mut telling: Option<BoxFuture<'static, Told>> = None;
        let mut chores: Option<BoxFuture<'static, ()>> = Some(chores::first(&self.shared));
        let mut chores_at = Instant::now() + CHORES;
        loop {
            let stopping = self.stop.is_cancelled();
            self.start_direct();
            let put = self.shared.put.load(Ordering::Acquire);
            self.look |= put != self.seen || Instant::now() >= self.at;
            self.seen = put;
            if !stopping && self.look && claiming.is_none() {
                claiming = self.claim(put);
            }
            let idle = self.running.is_empty() && claiming.is_none() && !self.look;
            if !stopping && telling.is_none() && self.tells(idle) {
                telling = self.notifier.as_ref().map(|notifier| chores::tell(&self.shared, notifier));
            }
            if !stopping && chores.is_none() && Instant::now() >= chores_at {
                chores_at = Instant::now() + CHORES;
                chores = Some(chores::tidy(&self.shared));
                // Another process may have gone away before it told of what it gave up.
                self.tell |= self.notifier.is_some();
            }
            if stopping
                && self.running.is_empty()
                && claiming.is_none()
                && self.shared.direct.lock().is_empty()
            {
                return;
            }
            let wake = self.at.min(chores_at);
            // Something may be due that finds no place: the end of a send comes first.
            let wake = wake.max(Instant::now() + Duration::from_millis(1));
            tokio::select! {
                Some((number, dead)) = self.running.next(), if !self.running.is_empty() => {
                    self.ended(number, dead);
                }
                (slots, until, put, claims) = maybe(&mut claiming) => self.claimed(slots, until, put, claims),
                told = maybe(&mut telling) => self.told(told),
                () = maybe(&mut chores) => {}
                () = self.shared.wake.notified() => {}
                () = self.stop.cancelled(), if !stopping => {}
                Some(reply) = asked.recv(), if !stopping => {
                    self.drains.push(Drain { reply, claim: self.claims + 1, last: None });
                    self.look = true;
                }
                () = tokio::time::sleep_until(wake), if !stopping => {}
            }
        }
    }

    fn start_direct(&mut self) {
        let direct = std::mem::take(&mut *self.shared.direct.lock());
        for direct in direct {
            self.start(direct);
        }
    }

    fn start(&mut self, direct: Direct) {
        self.next_number += 1;
        let number = self.next_number;
        let attempt = Attempt::new(&self.shared, &self.inner, &self.kill, direct);
        self.numbers.insert(number);
        self.running.push(Box::pin(async move { (number, attempt.run().await) }));
    }

    fn ended(&mut self, number: u64, dead: bool) {
        self.numbers.remove(&number);
        if dead && !self.tell {
            self.tell = true;
            self.dead_since = Instant::now();
            self.tell_at = 0;
        }
        self.finish_drains();
    }

    fn claim(&mut self, put: u64) -> Option<Claiming> {
        let slots: Vec<Slot> = std::iter::from_fn(|| self.shared.slot()).take(CLAIM.0).collect();
        if slots.is_empty() {
            return None;
        }
        self.claims += 1;
        let shared = self.shared.clone();
        let now = shared.now();
        let until = Instant::now() + shared.lease;
        let claim = Claim {
            producer: shared.id.clone(),
            now,
            until: now.saturating_add(millis(shared.lease)),
            rows: slots.len(),
            bytes: CLAIM.1,
        };
        Some(Box::pin(async move {
            let ctx = Context::within(shared.deadline.min(Duration::from_secs(5)));
            let claims = shared.store.claim(&ctx, claim).await;
            (slots, until, put, shared.noted(claims))
        }))
    }

    fn claimed(&mut self, slots: Vec<Slot>, until: Instant, put: u64, claims: Result<Claims>) {
        let poll = Instant::now() + self.shared.terms.poll;
        let claims = match claims {
            Ok(claims) => claims,
            Err(_) => {
                self.look = false;
                self.at = poll.max(Instant::now() + Duration::from_millis(200));
                return;
            }
        };
        for (row, slot) in claims.rows.into_iter().zip(slots) {
            self.start(Direct { row, message: None, until, slot });
        }
        // A drain that came while this claim was under way waits for the next one.
        self.look = claims.more || self.drains.iter().any(|drain| drain.claim > self.claims);
        self.at = match claims.next {
            Some(next) => {
                let wait = u64::try_from(next.saturating_sub(self.shared.now())).unwrap_or_default();
                // The clock may be set meanwhile: it is asked again after each poll.
                poll.min(Instant::now() + Duration::from_millis(wait.min(86_400_000)))
            }
            None => poll,
        };
        if !claims.more {
            if self.shared.putting.load(Ordering::Acquire) == 0
                && self.shared.put.load(Ordering::Acquire) == put
            {
                self.shared.behind.store(false, Ordering::Release);
            }
            let last = self.next_number;
            for drain in
                self.drains.iter_mut().filter(|drain| drain.last.is_none() && drain.claim <= self.claims)
            {
                drain.last = Some(last);
            }
            self.finish_drains();
        }
    }

    fn finish_drains(&mut self) {
        let first = self.numbers.first().copied().unwrap_or(u64::MAX);
        let (done, waiting) = std::mem::take(&mut self.drains)
            .into_iter()
            .partition::<Vec<_>, _>(|drain| drain.last.is_some_and(|last| first > last));
        self.drains = waiting;
        for drain in done {
            let _ = drain.reply.send(());
        }
    }

    fn tells(&self, idle: bool) -> bool {
        let now = Instant::now();
        self.tell
            && self.shared.now() >= self.tell_at
            && (idle || now.duration_since(self.dead_since) >= LATEST_DIGEST)
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::All => self.tell = false,
            Told::More => {}
            Told::Again(at) => self.tell_at = at,
        }
        if self.notifier.is_none() {
            self.tell = false;
        }
    }
}

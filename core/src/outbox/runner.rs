//! Sends what is stored: one task for each client with an outbox.
//!
//! It sleeps until a row is due, claims as many as there are places, and sends them in their order. What other
//! processes left it finds by asking every `poll`.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::attempt::{Attempt, Ended, Lease};
use super::chores::{self, Notifier, Told};
use super::row::{Claim, Claims, Millis, NEVER, RowId};
use super::shared::{Direct, Shared, Slot, Until, millis};
use super::untold::Untold;
use crate::client::{BoxFuture, Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};

/// Rows of one claim.
const CLAIM: usize = 256;

/// How long what was cancelled has to give its rows back.
const GRACE: Duration = Duration::from_secs(1);

/// How often rows are counted and old ones deleted.
const CHORES: Duration = Duration::from_secs(10);

/// Before the end of a close: a digest under way is given up then, and told by the next who opens the outbox.
const HUSH: Duration = Duration::from_millis(500);

/// How long it rests after a fault of its own.
const REST: Duration = Duration::from_secs(1);

/// The time of day is set back, and not just corrected, when it is so much less than it was.
const SET_BACK: Millis = 1000;

/// Where the end of a drain is told; what it is given is over once somebody was told of what was given up.
type Reply = oneshot::Sender<oneshot::Receiver<()>>;

/// See the module.
pub(super) struct Runner {
    stop: CancellationToken,
    kill: CancellationToken,
    hush: CancellationToken,
    drains: mpsc::Sender<Reply>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// Nobody sends what is handed over once this is gone.
struct Taking(Arc<Shared>);

impl Drop for Taking {
    fn drop(&mut self) {
        let left = self.0.take_direct(true);
        self.0.give_back(left);
    }
}

impl Runner {
    pub(super) fn start(
        shared: &Arc<Shared>,
        inner: &Arc<dyn Producer>,
        notifier: Option<Notifier>,
    ) -> Runner {
        let [stop, kill, hush] = [(); 3].map(|()| CancellationToken::new());
        let (drains, mut asked) = mpsc::channel(64);
        let runner = Runner {
            stop: stop.clone(),
            kill: kill.clone(),
            hush: hush.clone(),
            drains,
            task: Mutex::default(),
        };
        let (shared, inner) = (shared.clone(), inner.clone());
        let task = tokio::spawn(async move {
            let taking = Taking(shared.clone());
            loop {
                let tokens = [stop.clone(), kill.clone(), hush.clone()];
                let run = async { Run::new(&shared, &inner, notifier.clone(), tokens).run(&mut asked).await };
                if AssertUnwindSafe(run).catch_unwind().await.is_ok() {
                    break;
                }
                // What it had claimed is claimed anew when the leases end.
                tracing::error!(id = %shared.id, "the runner of an outbox panicked: it begins anew");
                shared.shown.lock().trouble =
                    Some(Error::new(Kind::Internal, "the runner panicked: it began anew"));
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(REST) => {}
                }
            }
            drop(taking);
        });
        *runner.task.lock() = Some(task);
        runner
    }

    /// Waits until what is due now was tried once; what it returns is over once somebody was told of what was given up.
    pub(super) async fn drained(&self, ctx: &Context) -> Result<oneshot::Receiver<()>> {
        let closed = || Error::new(Kind::Closed, "the producer is closed");
        let (reply, ended) = oneshot::channel();
        ctx.run(self.drains.send(reply)).await?.map_err(|_| closed())?;
        ctx.run(ended).await?.map_err(|_| match self.stop.is_cancelled() {
            true => closed(),
            false => Error::new(Kind::Internal, "the runner of the outbox failed"),
        })
    }

    /// Claims no more, lets what is under way end until the context does, and gives the rest back.
    pub(super) async fn close(&self, ctx: &Context) -> Result<()> {
        self.stop.cancel();
        let task = self.task.lock().take();
        let Some(mut task) = task else { return Ok(()) };
        let early = ctx.remaining().map(|left| left.saturating_sub(HUSH.min(left / 2)));
        let early = early.map_or(ctx.clone(), |early| ctx.clone().at_most(early));
        let ended = match early.run(&mut task).await {
            Ok(ended) => Ok(ended),
            Err(_) => {
                self.hush.cancel();
                ctx.run(&mut task).await
            }
        };
        let late = match ended {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failed)) => {
                let error = Error::new(Kind::Internal, "the runner of the outbox failed");
                return Err(error.outcome_is(Outcome::Unknown).caused_by(failed));
            }
            Err(late) => late,
        };
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
        self.hush.cancel();
        self.kill.cancel();
    }
}

/// Somebody waits until all is tried that was due when he asked, and all that waited behind it.
struct Drain {
    reply: Reply,
    /// When he asked: what was accepted later is none of it, though it waits in the same line.
    asked: Millis,
    /// The first claim that counts.
    claim: u64,
    /// What is due later was put off since, or is new.
    at: Millis,
    /// The last attempt to wait for, once a claim found nothing more.
    last: Option<u64>,
}

struct Run {
    shared: Arc<Shared>,
    inner: Arc<dyn Producer>,
    stop: CancellationToken,
    kill: CancellationToken,
    hush: CancellationToken,
    notifier: Option<Notifier>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    leases: HashMap<RowId, Lease>,
    numbers: BTreeSet<u64>,
    next_number: u64,
    // Claims begun.
    claims: u64,
    // Something may be due.
    look: bool,
    // The puts that were seen.
    seen: u64,
    // When something is due; and the least of what was heard of since the last claim began.
    at: Instant,
    heard: Option<Instant>,
    drains: Vec<Drain>,
    untold: Untold,
    // The time of day when it was looked at last.
    time: Millis,
}

/// An attempt that has ended: its number, its row, and when that was accepted.
type Done = (u64, RowId, Millis, Ended);

type Claiming = BoxFuture<'static, (Vec<Slot>, Until, u64, Result<Claims>)>;

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
    fn new(
        shared: &Arc<Shared>,
        inner: &Arc<dyn Producer>,
        notifier: Option<Notifier>,
        [stop, kill, hush]: [CancellationToken; 3],
    ) -> Run {
        let now = Instant::now();
        Run {
            shared: shared.clone(),
            inner: inner.clone(),
            stop,
            kill,
            hush,
            untold: Untold::new(notifier.is_some()),
            notifier,
            running: FuturesUnordered::new(),
            leases: HashMap::new(),
            numbers: BTreeSet::new(),
            next_number: 0,
            claims: 0,
            look: true,
            seen: 0,
            at: now,
            heard: None,
            drains: Vec::new(),
            time: shared.now(),
        }
    }

    async fn run(mut self, asked: &mut mpsc::Receiver<Reply>) {
        let mut claiming: Option<Claiming> = None;
        let mut telling: Option<BoxFuture<'static, Told>> = None;
        let mut chores: Option<BoxFuture<'static, ()>> = Some(chores::first(&self.shared));
        let mut set_back = false;
        let mut chores_at = Instant::now() + CHORES;
        loop {
            let stopping = self.stop.is_cancelled();
            self.start_direct();
            set_back |= self.set_back();
            self.hear();
            let put = self.shared.put.load(Ordering::Acquire);
            self.look |= put != self.seen || Instant::now() >= self.at;
            self.seen = put;
            if !stopping && self.look && claiming.is_none() {
                claiming = self.claim(put);
            }
            let idle = self.running.is_empty() && claiming.is_none() && (stopping || !self.look);
            if telling.is_none() && self.untold.is_time(self.shared.now(), idle, stopping) {
                self.untold.begins(stopping);
                telling =
                    self.notifier.as_ref().map(|notifier| chores::tell(&self.shared, notifier, &self.hush));
            }
            if !stopping && chores.is_none() && (set_back || Instant::now() >= chores_at) {
                chores_at = Instant::now() + CHORES;
                chores = Some(match std::mem::take(&mut set_back) {
                    true => chores::first(&self.shared),
                    false => chores::tidy(&self.shared),
                });
                // Another process may have gone away before it told of what it gave up.
                self.untold.has_more();
            }
            if stopping && idle && telling.is_none() {
                return;
            }
            // What is due and finds no place waits for the end of a send, or of a claim.
            let at = if self.look { None } else { Some(self.at) };
            let wake = at.into_iter().chain(chores.is_none().then_some(chores_at)).min();
            tokio::select! {
                Some(done) = self.running.next(), if !self.running.is_empty() => self.ended(done),
                (slots, until, put, claims) = maybe(&mut claiming) => self.claimed(slots, until, put, claims),
                told = maybe(&mut telling) => self.untold.told(told, &self.shared),
                () = maybe(&mut chores) => {}
                () = self.shared.wake.notified() => {}
                () = self.stop.cancelled(), if !stopping => {}
                Some(reply) = asked.recv(), if !stopping => {
                    let now = self.shared.now();
                    self.drains.push(Drain { reply, asked: now, claim: self.claims + 1, at: now, last: None });
                    self.look = true;
                }
                () = at_last(wake), if !stopping => {}
            }
        }
    }

    fn start_direct(&mut self) {
        for direct in self.shared.take_direct(false) {
            self.start(direct);
        }
    }

    // What was stored or put off here since the last time.
    fn hear(&mut self) {
        let soon = self.shared.take_soon();
        if soon == NEVER {
            return;
        }
        let at = self.instant_of(soon);
        self.at = self.at.min(at);
        self.heard = Some(self.heard.map_or(at, |heard| heard.min(at)));
    }

    fn instant_of(&self, time: Millis) -> Instant {
        let wait = u64::try_from(time.saturating_sub(self.shared.now())).unwrap_or_default();
        Instant::now() + Duration::from_millis(wait.min(86_400_000))
    }

    // Whether the time of day was set back: rows would wait until it is again what it was.
    fn set_back(&mut self) -> bool {
        let time = self.shared.now();
        let back = time.saturating_add(SET_BACK) < std::mem::replace(&mut self.time, time);
        if back {
            tracing::warn!(id = %self.shared.id, "the time of day was set back");
            self.untold.at_once();
        }
        back
    }

    fn start(&mut self, direct: Direct) {
        self.next_number += 1;
        let number = self.next_number;
        let row = direct.row.id;
        let attempt = Attempt::new(&self.shared, &self.inner, &self.kill, direct);
        self.numbers.insert(number);
        self.leases.insert(row, attempt.lease());
        let accepted = attempt.accepted();
        let shared = self.shared.clone();
        self.running.push(Box::pin(async move {
            // One that fails in an unforeseen way is not to take the others along: its lease ends by itself.
            let ended = AssertUnwindSafe(attempt.run()).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(id = %shared.id, %row, "an attempt of an outbox panicked");
                Ended::default()
            });
            (number, row, accepted, ended)
        }));
    }

    fn ended(&mut self, (number, row, accepted, ended): Done) {
        self.numbers.remove(&number);
        self.leases.remove(&row);
        if ended.dead {
            self.untold.has_more();
        }
        if ended.leaves {
            self.follow(accepted);
        }
        self.finish_drains();
    }

    // A drain goes on with what is due now by the end of a row that it is about. It has an end: each of those leaves its
    // line once, and those behind them that were accepted later are not followed.
    fn follow(&mut self, accepted: Millis) {
        let now = self.shared.now();
        for drain in self.drains.iter_mut().filter(|drain| accepted <= drain.asked) {
            drain.claim = self.claims + 1;
            drain.at = drain.at.max(now);
            drain.last = None;
            self.look = true;
        }
    }

    fn claim(&mut self, put: u64) -> Option<Claiming> {
        let bytes = self.shared.room();
        if bytes == 0 {
            return None;
        }
        let slots: Vec<Slot> = std::iter::from_fn(|| self.shared.slot()).take(CLAIM).collect();
        if slots.is_empty() {
            return None;
        }
        self.claims += 1;
        self.heard = None;
        let shared = self.shared.clone();
        let now = shared.now();
        let began = Instant::now();
        let until = Until {
            at: began.checked_add(shared.lease).unwrap_or(began),
            time: now.saturating_add(millis(shared.lease)),
        };
        let claim = Claim {
            producer: shared.id.clone(),
            now,
            until: until.time,
            rows: slots.len(),
            bytes,
            tell: shared.terms.config.notify.is_some(),
        };
        let kill = self.kill.clone();
        Some(Box::pin(async move {
            // An answer that nobody waits for leaves rows leased to nobody: for as long as they are of use it is
            // waited for, however short the time of a send is.
            let ctx = Context::within(shared.lease.saturating_sub(shared.deadline)).cancelled_by(kill);
            let claims = shared.store.claim(&ctx, claim).await;
            (slots, until, put, shared.noted(claims))
        }))
    }

    fn claimed(&mut self, slots: Vec<Slot>, until: Until, put: u64, claims: Result<Claims>) {
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
            // The time of day may have gone past the end of a lease of ours: then the row is under way here.
            if let Some(lease) = self.leases.get(&row.id) {
                lease.renewed(row.token, until);
                continue;
            }
            let slot = slot.holding(row.message.size());
            self.start(Direct { row, message: None, until, slot });
        }
        // A drain that came while this claim was under way waits for the next one.
        self.look = claims.more || self.drains.iter().any(|drain| drain.claim > self.claims);
        // The clock may be set meanwhile: it is asked again after each poll.
        self.at = claims.next.map_or(poll, |next| poll.min(self.instant_of(next)));
        self.at = self.heard.map_or(self.at, |heard| self.at.min(heard));
        let past = |drain: &Drain| claims.reached.is_some_and(|reached| reached > drain.at);
        let all = !claims.more;
        if all || self.drains.iter().any(past) {
            if all
                && self.shared.putting.load(Ordering::Acquire) == 0
                && self.shared.put.load(Ordering::Acquire) == put
            {
                self.shared.behind.store(false, Ordering::Release);
            }
            let last = self.next_number;
            let open =
                self.drains.iter_mut().filter(|drain| drain.last.is_none() && drain.claim <= self.claims);
            for drain in open.filter(|drain| all || past(drain)) {
                drain.last = Some(last);
            }
            self.finish_drains();
        }
    }

    fn finish_drains(&mut self) {
        let first = self.numbers.first().copied().unwrap_or(u64::MAX);
        let (done, waiting) = std::mem::take(&mut self.drains)
            .into_iter()
            .filter(|drain| !drain.reply.is_closed())
            .partition::<Vec<_>, _>(|drain| drain.last.is_some_and(|last| first > last));
        self.drains = waiting;
        if done.is_empty() {
            return;
        }
        let (tells, told): (Vec<_>, Vec<_>) = done.iter().map(|_| oneshot::channel()).unzip();
        self.untold.drained(tells, &self.shared);
        for (drain, told) in done.into_iter().zip(told) {
            let _ = drain.reply.send(told);
        }
    }
}

async fn at_last(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

//! The strategy: a producer that stores what fails, or everything before it is sent.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{self, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::chores;
use super::config::{Deduplicate, When};
use super::desk::Desk;
use super::row::{Claimed, Inserted, Millis, NewRow, Start};
use super::runner::Runner;
use super::shared::{Direct, Shared, Slot, Until, count, millis, told};
use super::stored::{self, Lost};
use super::verdict::{self, Verdict};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::{Error, Kind, Outcome, Part, Result};
use crate::message::{Disposition, Message, Receipt};

/// Before the end of a close: what is under way then is stored, which takes a moment.
const HURRY: Duration = Duration::from_millis(500);

type KeyLocks = Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>;

/// See the module.
pub struct Outbox {
    pub(super) shared: Arc<Shared>,
    name: Arc<str>,
    inner: Arc<dyn Producer>,
    pub(super) runner: Runner,
    notifier: Option<Arc<dyn Producer>>,
    // Cancelled when the sends under way are to end now.
    pub(super) hurry: CancellationToken,
    keys: KeyLocks,
}

impl Outbox {
    pub(super) fn new(
        name: Arc<str>,
        shared: Arc<Shared>,
        inner: Arc<dyn Producer>,
        notifier: Option<chores::Notifier>,
    ) -> Outbox {
        let runner = Runner::start(&shared, &inner, notifier.clone());
        let notifier = notifier.map(|notifier| notifier.producer);
        let hurry = CancellationToken::new();
        Outbox { shared, name, inner, runner, notifier, hurry, keys: Mutex::default() }
    }

    /// Says that a close has begun: what has not ended shortly before the context does is stored.
    pub fn closing(&self, ctx: &Context) {
        self.shared.shown.lock().state = "closing";
        let (hurry, ctx) = (self.hurry.clone(), ctx.clone());
        let first = ctx.remaining().map(|left| left.saturating_sub(HURRY.min(left / 2)));
        tokio::spawn(async move {
            match first {
                Some(first) => {
                    let _ = ctx.run(tokio::time::sleep(first)).await;
                }
                None => drop(ctx.ended().await),
            }
            hurry.cancel();
        });
    }

    /// What can be done with its rows.
    pub fn desk(&self) -> Desk {
        Desk::new(self.shared.store.clone(), self.shared.clock.clone(), Some(self.shared.id.to_string()))
    }

    /// Looks into the store at once.
    pub fn wake(&self) {
        self.shared.put.fetch_add(1, Ordering::AcqRel);
        self.shared.wake.notify_one();
    }

    /// Tries every pending row once, those of a key one after the other, and tells how many were sent meanwhile, how many
    /// failed, and how many were given up. What waits behind a row of its key that failed, or that another process is
    /// sending, goes on waiting. Before it returns `notify` is told of all that was given up, here or elsewhere, unless
    /// the context ends or `notify` lately failed and named a time.
    ///
    /// # Errors
    /// Those of the store; `closed`; `timeout` and `cancelled`, of the context.
    pub async fn drain(&self, ctx: &Context) -> Result<[u64; 3]> {
        let counts = &self.shared.counts;
        let now = || {
            [&counts.sent, &counts.failed, &counts.given_up].map(|counter| counter.load(Ordering::Relaxed))
        };
        let [sent, failed, given_up] = now();
        self.desk().hasten_all(ctx, Some(self.shared.id.to_string()), false).await?;
        let told = self.runner.drained(ctx).await?;
        let after = now();
        chores::counted(&self.shared, ctx).await;
        // It is over for both when the other end is dropped. What is not told by then is told all the same.
        let _ = ctx.run(told).await;
        Ok([after[0] - sent, after[1] - failed, after[2] - given_up])
    }

    async fn on_failure(&self, ctx: &Context, message: Arc<Message>) -> Result<Receipt> {
        let accepted = self.shared.now();
        let ordered = self.ordered_key(&message).map(str::to_owned);
        let lock = ordered.as_deref().map(|key| self.key_lock(key));
        let mut _turn = None;
        if let (Some(key), Some(lock)) = (&ordered, &lock) {
            // Those before it may need their whole time, and are stored then: it is stored behind them.
            let stores = self.storing(ctx);
            _turn = Some(stores.run(lock.lock()).await.map_err(|error| self.not_stored(error))?);
            let holds = self.shared.store.holds_key(&stores, &self.shared.id, key).await;
            let holds = self.shared.noted_of_caller(holds);
            // A question, so that nothing has been sent.
            if holds.map_err(|error| self.not_stored(error.outcome_is(Outcome::NotSent)))? {
                let row = self.row(&message, &[], accepted, Start::Pending { due: accepted }, None)?;
                let stored = self.put(&stores, row).await.map_err(|error| self.not_stored(error))?;
                return Ok(self.stored(
                    stored,
                    0,
                    Some("an earlier message of its key is stored".into()),
                    None,
                ));
            }
        }
        // A call that comes late is stored as if it had failed.
        let sent = match ctx.check() {
            Err(late) => Err(late),
            Ok(()) if self.hurry.is_cancelled() => {
                Err(Error::new(Kind::Closed, "the producer is closing: nothing was sent"))
            }
            Ok(()) => tokio::select! {
                biased;
                result = self.inner.send(ctx, message.clone()) => result,
                () = self.hurry.cancelled() => Err(Error::new(Kind::Closed, "the producer was closed")
                    .outcome_is(Outcome::Unknown)),
            },
        };
        let error = match sent {
            Ok(receipt) => return Ok(receipt),
            Err(error) => error,
        };
        self.keep(ctx, &message, error, accepted).await
    }

    // The time to store what this call could not send: its deadline may have passed, and that be why.
    fn storing(&self, ctx: &Context) -> Context {
        let Some(deadline) = ctx.deadline() else { return ctx.clone() };
        let time = deadline.max(Instant::now()).checked_add(self.shared.terms.store_timeout);
        ctx.clone().ending_at(time.unwrap_or(deadline))
    }

    // Stores what failed, unless that cannot help.
    async fn keep(
        &self,
        ctx: &Context,
        message: &Message,
        error: Error,
        accepted: Millis,
    ) -> Result<Receipt> {
        let cancelled = matches!(ctx.check(), Err(why) if why.kind() == Kind::Cancelled);
        let (rest, lost) = match verdict::of(message, &error, self.shared.terms.config.on_unknown, cancelled)
        {
            Verdict::Never(_) => return Err(error),
            Verdict::Again => (None, Vec::new()),
            Verdict::Rest(rest, lost) => (Some(rest), lost),
        };
        let due = self.shared.next_try(1, error.retry_after().unwrap_or_default());
        let noted = Some(verdict::noted(&error));
        let row =
            self.row(rest.as_ref().unwrap_or(message), &lost, accepted, Start::Pending { due }, noted)?;
        let stores = match ctx.deadline() {
            Some(_) => self.storing(ctx),
            None => ctx.clone().at_most(self.shared.terms.store_timeout),
        };
        match self.put(&stores, row).await {
            Ok(stored) => {
                let parts = (!error.parts().is_empty()).then(|| error.parts().into());
                let warning = format!("it is stored, because sending failed: {}", error.message());
                Ok(self.stored(stored, error.attempts(), Some(warning.into()), parts))
            }
            Err(failure) => {
                count(&self.shared.counts.not_stored);
                let text = format!(
                    "sending failed ({}), and the outbox did not keep the message: {}",
                    error.message(),
                    failure.message()
                );
                let unknown = [error.outcome(), failure.outcome()].contains(&Outcome::Unknown);
                let outcome = if unknown { Outcome::Unknown } else { Outcome::NotSent };
                Err(self.by(Error::new(self.kind_of(&failure), text)
                    .outcome_is(outcome)
                    .retryable_is(true)
                    .tried(error.attempts())
                    .made_of(error.parts().to_vec())
                    .caused_by(failure)))
            }
        }
    }

    fn kind_of(&self, failure: &Error) -> Kind {
        if failure.kind() == Kind::Cancelled { Kind::Cancelled } else { Kind::Storage }
    }

    fn not_stored(&self, failure: Error) -> Error {
        count(&self.shared.counts.not_stored);
        match failure.kind() {
            // The caller's own time, and what the store never takes.
            Kind::Cancelled | Kind::Timeout | Kind::TooLarge | Kind::QueueFull => self.by(failure),
            _ => {
                let text = format!("the outbox did not keep the message: {}", failure.message());
                let (outcome, again) = (failure.outcome(), failure.retryable());
                self.by(Error::new(Kind::Storage, text)
                    .outcome_is(outcome)
                    .retryable_is(again)
                    .caused_by(failure))
            }
        }
    }

    async fn always(&self, ctx: &Context, message: Arc<Message>) -> Result<Receipt> {
        ctx.check().map_err(|error| self.by(error))?;
        let most = self.inner.capability().max_body;
        if let Some(most) = most.filter(|most| message.body().len() as u64 > *most) {
            let text = format!("the body is {} bytes long, and {most} is the most", message.body().len());
            return Err(self.by(Error::new(Kind::TooLarge, text)));
        }
        let accepted = self.shared.now();
        let row = self.row(&message, &[], accepted, Start::Pending { due: accepted }, None)?;
        let slot = match self.ordered_key(&message) {
            // Rows of a key stand in a line, which the store alone knows.
            Some(_) => None,
            None => self.shared.slot_at_once(row.message.size()),
        };
        let Some(slot) = slot else {
            return match self.put(ctx, row).await {
                Ok(stored) => Ok(self.stored(stored, 0, None, None)),
                Err(error) => Err(self.not_stored(error)),
            };
        };
        let at = Instant::now().checked_add(self.shared.lease).unwrap_or_else(Instant::now);
        let until = Until { at, time: accepted.saturating_add(millis(self.shared.lease)) };
        let row = NewRow { start: Start::Leased { until: until.time }, ..row };
        let (store, ctx) = (self.shared.store.clone(), ctx.clone());
        let insert: BoxFuture<'static, _> = Box::pin(async move { store.insert(&ctx, vec![row]).await });
        let insert = Some((insert, message, slot));
        let (shared, handing) = (self.shared.clone(), self.shared.handing.token());
        match (Leasing { shared, accepted, until, insert, alone: false, handing }).await {
            Ok(stored) => Ok(self.stored(stored, 0, None, None)),
            Err(error) => Err(self.not_stored(error)),
        }
    }

    // Inserts a row that the runner is to find.
    async fn put(&self, ctx: &Context, row: NewRow) -> Result<Inserted> {
        let later = match row.start {
            Start::Pending { due } if due > self.shared.now() => Some(due),
            _ => None,
        };
        let putting = later.is_none().then(|| Putting::begin(&self.shared));
        let inserted = self.shared.store.insert(ctx, vec![row]).await;
        let stored = first(self.shared.noted_of_caller(inserted))?;
        drop(putting);
        if stored.fresh {
            count(&self.shared.counts.stored);
        }
        match later {
            Some(due) => self.shared.is_due(due),
            None => self.shared.wake.notify_one(),
        }
        Ok(stored)
    }

    fn row(
        &self,
        message: &Message,
        lost: &[Lost],
        accepted: Millis,
        start: Start,
        error: Option<String>,
    ) -> Result<NewRow> {
        let config = &self.shared.terms.config;
        let fields = message.fields();
        let key = fields.and_then(|fields| fields.key.clone());
        Ok(NewRow {
            producer: self.shared.id.clone(),
            topic: fields.and_then(|fields| fields.topic.clone()),
            order_key: key.clone().filter(|_| config.ordered),
            dedup: key.filter(|_| config.deduplicate == Deduplicate::Key),
            message: stored::store(message, lost).map_err(|error| self.by(error))?,
            accepted,
            now: self.shared.now(),
            attempts: 0,
            error,
            start,
        })
    }

    fn stored(
        &self,
        row: Inserted,
        attempts: u32,
        warning: Option<Arc<str>>,
        parts: Option<Arc<[Part]>>,
    ) -> Receipt {
        let known = || Arc::from("a message with its key is in the outbox already");
        Receipt {
            message_id: Some(told(row.id)),
            code: None,
            provider: self.inner.provider(),
            attempts,
            disposition: Disposition::Stored,
            warning: if row.fresh { warning } else { Some(known()) },
            parts,
        }
    }

    fn ordered_key<'a>(&self, message: &'a Message) -> Option<&'a str> {
        let ordered = self.shared.terms.config.ordered;
        message.fields().and_then(|fields| fields.key.as_deref()).filter(|_| ordered)
    }

    // One message of a key at a time: the next must see whether this one was stored.
    fn key_lock(&self, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut keys = self.keys.lock();
        if let Some(lock) = keys.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        if keys.len() >= 1024 {
            keys.retain(|_, lock| lock.strong_count() > 0);
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        keys.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }

    fn by(&self, error: Error) -> Error {
        error.by(self.inner.provider())
    }
}

fn first(inserted: Result<Vec<Inserted>>) -> Result<Inserted> {
    let none = || Error::new(Kind::Internal, "the store inserted no row").outcome_is(Outcome::Unknown);
    inserted?.first().copied().ok_or_else(none)
}

type Insert = (BoxFuture<'static, Result<Vec<Inserted>>>, Arc<Message>, Slot);

/// An insert of a row that its caller has claimed. It goes on when the caller goes away: nobody else could send the row
/// before its lease ends.
struct Leasing {
    shared: Arc<Shared>,
    accepted: Millis,
    until: Until,
    insert: Option<Insert>,
    // By itself, without a caller.
    alone: bool,
    // The store stays open for it.
    handing: TaskTrackerToken,
}

impl Leasing {
    fn ended(&mut self, inserted: Result<Vec<Inserted>>) -> Result<Inserted> {
        let insert = self.insert.take();
        let stored = first(self.shared.noted_of_caller(inserted))?;
        if let Some((_, message, slot)) = insert.filter(|_| stored.fresh) {
            count(&self.shared.counts.stored);
            let row = Claimed {
                id: stored.id,
                token: stored.token,
                message: Default::default(),
                attempts: 0,
                accepted: self.accepted,
                unread: None,
            };
            self.shared.send_direct(Direct { row, message: Some(message), until: self.until, slot });
        }
        Ok(stored)
    }
}

impl Future for Leasing {
    type Output = Result<Inserted>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Result<Inserted>> {
        let Some((insert, ..)) = &mut self.insert else { return Poll::Pending };
        let inserted = task::ready!(insert.as_mut().poll(context));
        Poll::Ready(self.ended(inserted))
    }
}

impl Drop for Leasing {
    fn drop(&mut self) {
        // A runtime that ends drops what it is given.
        let Some(insert) = self.insert.take().filter(|_| !self.alone) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Leasing { accepted, until, .. } = *self;
        let (shared, handing) = (self.shared.clone(), self.handing.clone());
        let left = Leasing { shared, accepted, until, insert: Some(insert), alone: true, handing };
        runtime.spawn(async move { drop(left.await) });
    }
}

/// An insert of a row that is due: until the runner has seen it, later ones wait behind it.
struct Putting<'a>(&'a Shared);

impl<'a> Putting<'a> {
    fn begin(shared: &'a Shared) -> Putting<'a> {
        shared.putting.fetch_add(1, Ordering::AcqRel);
        Putting(shared)
    }
}

impl Drop for Putting<'_> {
    fn drop(&mut self) {
        self.0.behind.store(true, Ordering::Release);
        self.0.put.fetch_add(1, Ordering::AcqRel);
        self.0.putting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Producer for Outbox {
    fn provider(&self) -> &'static str {
        self.inner.provider()
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        match self.shared.terms.config.when {
            When::OnFailure => Box::pin(self.on_failure(ctx, message)),
            When::Always => Box::pin(self.always(ctx, message)),
        }
    }

    // What is stored is safe: a flush waits for the calls alone.
    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        match self.shared.terms.config.when {
            When::OnFailure => self.inner.flush(ctx),
            When::Always => Box::pin(std::future::ready(Ok(()))),
        }
    }

    fn status(&self) -> Value {
        let mut own = json!({"type": super::TYPE});
        if let (Some(own), Value::Object(state)) = (own.as_object_mut(), self.shared.state()) {
            if *self.name != *super::TYPE {
                own.insert("name".into(), json!(&*self.name));
            }
            own.extend(state);
        }
        let mut below = match self.inner.status() {
            Value::Object(below) => below,
            _ => Map::new(),
        };
        match below.get_mut("strategies") {
            Some(Value::Array(strategies)) => strategies.insert(0, own),
            _ => drop(below.insert("strategies".into(), json!([own]))),
        }
        Value::Object(below)
    }

    fn control(&self, command: &Value) -> Result<Value> {
        if command.get("strategy").and_then(Value::as_str) == Some(&*self.name) {
            let tells = command.get("notify").and_then(Value::as_bool);
            let Some(tells) = tells.filter(|_| self.notifier.is_some()) else {
                let text =
                    "an outbox that has a `notify` takes `notify`, true or false; it has calls of its own";
                return Err(self.by(Error::new(Kind::Unsupported, text)));
            };
            self.shared.notify_held.store(!tells, Ordering::Release);
            self.shared.tell_at_once.store(tells, Ordering::Release);
            return Ok(json!({"notify_held": !tells}));
        }
        self.inner.control(command)
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.shared.shown.lock().state = "closing";
            self.hurry.cancel();
            let ran = self.runner.close(ctx).await;
            let closed = self.inner.close(ctx).await;
            if let Some(notifier) = &self.notifier {
                // It is another's: this only lets go of it.
                let _ = notifier.close(ctx).await;
            }
            let let_go = self.shared.close_store(ctx).await;
            self.shared.shown.lock().state = "closed";
            ran.and(closed).and(let_go)
        })
    }

    fn keeps_messages(&self) -> bool {
        true
    }
}

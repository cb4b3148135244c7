//! A consumer of a queue: what callers see, and what its tasks share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::PROVIDER;
use super::held::{Held, Word};
use super::producer::capability;
use super::section::{BodyEncoding, Place, Settings};
use super::service::Service;
use super::{poll, renew, settle};
use crate::client::{BoxFuture, Capability, Consumer, Context};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::Delivery;
use crate::provider::Setup;
use crate::wire::mns::VISIBILITY;

/// The longest code: receipt handles are shorter by far.
const MAX_CODE: usize = 4096;

/// The first and the longest pause of what a service that has too much to do is asked again for.
const THROTTLED: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

#[derive(Default)]
pub(super) struct Counts {
    pub(super) acked: AtomicU64,
    pub(super) nacked: AtomicU64,
    pub(super) renewed: AtomicU64,
    pub(super) damaged: AtomicU64,
}

/// What the tasks of a consumer share.
pub(super) struct Engine {
    pub(super) id: String,
    pub(super) queue: Arc<str>,
    pub(super) service: Service,
    pub(super) held: Held,
    pub(super) settings: Few,
    pub(super) deadline: Duration,
    pub(super) counts: Counts,
    // What the service takes for a delivery that comes again at once.
    pub(super) least_visibility: AtomicU32,
    /// Cancelled when no more messages are asked for.
    pub(super) polling: CancellationToken,
    trouble: Mutex<Option<Error>>,
    asked: AtomicBool,
    closed: AtomicBool,
}

/// The settings that the tasks need.
pub(super) struct Few {
    pub(super) encoding: BodyEncoding,
    pub(super) connections: usize,
    pub(super) wait: u32,
    pub(super) visibility: u32,
    pub(super) extend_for: Duration,
    max_body: usize,
}

impl Engine {
    /// Shows how the last receive ended.
    pub(super) fn show(&self, trouble: Option<Error>) {
        self.asked.store(true, Ordering::Relaxed);
        *self.trouble.lock() = trouble;
    }

    /// Gives deliveries back, to come again at once, as far as the context's time lets it.
    pub(super) async fn give_back(&self, ctx: &Context, handles: Vec<Arc<str>>) {
        let all = futures_util::stream::iter(handles);
        let each = all.map(|handle| async move { self.give_one_back(ctx, &handle).await });
        let mut ends = each.buffer_unordered(self.settings.connections);
        while let Some(end) = ends.next().await {
            if let Err(error) = end {
                tracing::debug!(id = %self.id, %error, "a delivery was not given back: it comes again in its time");
                // Where there is no time or no service, the others would end alike.
                if error.kind() != Kind::NotFound {
                    return;
                }
            }
        }
    }

    // A service that has too much to do for a moment takes it in the next.
    async fn give_one_back(&self, ctx: &Context, handle: &str) -> Result<()> {
        let mut wait = THROTTLED.0;
        loop {
            match settle::give_back(self, ctx, handle, settle::AT_ONCE).await {
                Err(error) if error.kind() == Kind::Throttled && wait <= THROTTLED.1 => {
                    ctx.run(tokio::time::sleep(error.retry_after().unwrap_or(wait))).await?;
                    wait *= 2;
                }
                end => return end,
            }
        }
    }
}

struct MnsConsumer {
    engine: Arc<Engine>,
    tasks: Vec<JoinHandle<()>>,
    pollers: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for MnsConsumer {
    fn drop(&mut self) {
        self.engine.polling.cancel();
        self.engine.service.close();
        for task in self.tasks.iter().chain(self.pollers.get_mut().iter()) {
            task.abort();
        }
    }
}

pub(super) async fn open(setup: &Setup, settings: Settings) -> Result<Arc<dyn Consumer>> {
    // Receives that wait must not keep acks waiting.
    let places = settings.account.connections + settings.pollers;
    let stop = CancellationToken::new();
    let service = Service::open(setup, &settings.account, Some(&settings.place), places, stop).await?;
    let Place::Queue(queue) = &settings.place else {
        return Err(Error::new(Kind::InvalidConfig, "a consumer is one of a queue").by(PROVIDER));
    };
    let engine = Arc::new(Engine {
        id: setup.id.clone(),
        queue: queue.clone(),
        service,
        held: Held::new(settings.prefetch),
        settings: Few {
            encoding: settings.account.encoding,
            connections: settings.account.connections,
            wait: settings.wait,
            visibility: settings.visibility,
            extend_for: settings.extend_for,
            max_body: settings.max_body,
        },
        deadline: setup.limits.deadline,
        counts: Counts::default(),
        least_visibility: AtomicU32::new(0),
        polling: CancellationToken::new(),
        trouble: Mutex::default(),
        asked: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    });
    let tasks = vec![tokio::spawn(settle::run(engine.clone())), tokio::spawn(renew::run(engine.clone()))];
    let pollers = (0..settings.pollers).map(|_| tokio::spawn(poll::run(engine.clone()))).collect();
    Ok(Arc::new(MnsConsumer { engine, tasks, pollers: Mutex::new(pollers) }))
}

impl MnsConsumer {
    async fn say(&self, ctx: &Context, codes: Vec<Arc<str>>, word: Word) -> Vec<Result<()>> {
        let mut ends = Vec::with_capacity(codes.len());
        // A code that stands there twice is spoken of once.
        let mut places: HashMap<Arc<str>, usize> = HashMap::with_capacity(codes.len());
        let mut each = Vec::with_capacity(codes.len());
        for code in codes {
            let place = *places.entry(code.clone()).or_insert(ends.len());
            each.push(place);
            if place < ends.len() {
                continue;
            }
            let odd = |byte: u8| !(b'!'..=b'~').contains(&byte);
            ends.push(if code.is_empty() || code.len() > MAX_CODE || code.bytes().any(odd) {
                let text = "a code is the short text that came with a delivery";
                Err(Error::new(Kind::InvalidArgument, text).by(PROVIDER))
            } else {
                self.engine.held.say(ctx, code, word).await
            });
        }
        let mut results: Vec<Result<()>> = Vec::with_capacity(ends.len());
        for end in ends {
            results.push(match end {
                Err(error) => Err(error),
                Ok(end) => match ctx.run(end).await {
                    Ok(Ok(result)) => result,
                    Ok(Err(_)) => Err(gone()),
                    // It stays queued and is said all the same.
                    Err(ended) => Err(ended.outcome_is(Outcome::Unknown).by(PROVIDER)),
                },
            });
        }
        if results.len() == each.len() {
            return results;
        }
        each.into_iter().map(|place| results.get(place).cloned().unwrap_or_else(|| Err(gone()))).collect()
    }
}

fn gone() -> Error {
    let text = "the consumer was closed before it was said";
    Error::new(Kind::Closed, text).outcome_is(Outcome::Unknown).by(PROVIDER)
}

impl Consumer for MnsConsumer {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        let settings = &self.engine.settings;
        let longest = match settings.encoding {
            BodyEncoding::Raw => settings.max_body,
            BodyEncoding::Base64 => settings.max_body / 4 * 3,
        };
        capability(settings.encoding, longest as u64)
    }

    fn receive<'a>(&'a self, ctx: &'a Context, max: usize) -> BoxFuture<'a, Result<Vec<Delivery>>> {
        Box::pin(self.engine.held.receive(ctx, max))
    }

    fn ack<'a>(&'a self, ctx: &'a Context, codes: Vec<Arc<str>>) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(self.say(ctx, codes, Word::Ack))
    }

    fn nack<'a>(
        &'a self,
        ctx: &'a Context,
        codes: Vec<Arc<str>>,
        delay: Duration,
    ) -> BoxFuture<'a, Vec<Result<()>>> {
        let whole = delay.as_secs().saturating_add(u64::from(delay.subsec_nanos() > 0));
        let seconds = u32::try_from(whole).ok().filter(|whole| whole <= VISIBILITY.end());
        Box::pin(async move {
            let Some(seconds) = seconds else {
                let text = format!("a delay of {whole} s is longer than {} s", VISIBILITY.end());
                let error = Error::new(Kind::InvalidArgument, text).by(PROVIDER);
                return codes.iter().map(|_| Err(error.clone())).collect();
            };
            self.say(ctx, codes, Word::Nack(seconds)).await
        })
    }

    fn status(&self) -> Value {
        let engine = &self.engine;
        let mut status = engine.service.status();
        let counts = engine.held.counts();
        let trouble = engine.trouble.lock().clone();
        let state = match (&trouble, engine.closed.load(Ordering::Acquire)) {
            (_, true) => "closed",
            (Some(_), _) => "disconnected",
            (None, _) if engine.asked.load(Ordering::Relaxed) => "connected",
            (None, _) => "connecting",
        };
        let count = |counter: &AtomicU64| json!(counter.load(Ordering::Relaxed));
        for (key, value) in [
            ("state", json!(state)),
            ("queue", json!(&*engine.queue)),
            ("waiting", json!(counts.waiting)),
            ("held", json!(counts.held)),
            ("unsent_acks", json!(counts.unsent)),
            ("received", json!(counts.received)),
            ("acked", count(&engine.counts.acked)),
            ("nacked", count(&engine.counts.nacked)),
            ("renewed", count(&engine.counts.renewed)),
            ("damaged", count(&engine.counts.damaged)),
            ("lapsed", json!(counts.lapsed)),
        ] {
            status.insert(key.into(), value);
        }
        if let Some(trouble) = trouble {
            status.insert("trouble".into(), json!(trouble.text()));
        }
        Value::Object(status)
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let engine = &self.engine;
            engine.closed.store(true, Ordering::Release);
            engine.held.close();
            engine.polling.cancel();
            // Others get at once what this host had, and what comes of a receive that was answered just now.
            let back = async {
                while let Some(handles) = engine.held.let_go(ctx).await {
                    engine.give_back(ctx, handles).await;
                }
            };
            let pollers = std::mem::take(&mut *self.pollers.lock());
            let polled = ctx.run(join_all(pollers));
            let (said, (), _) = tokio::join!(engine.held.all_said(ctx), back, polled);
            engine.service.close();
            engine.held.give_up(&gone());
            for task in &self.tasks {
                task.abort();
            }
            said
        })
    }
}

//! Says to the service what the host said of deliveries: deletes them, sixteen in a request, or gives them back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Semaphore;

use super::PROVIDER;
use super::consumer::Engine;
use super::held::{Job, Word};
use crate::client::Context;
use crate::error::{Error, Kind, Outcome, Result};
use crate::wire::mns::{self, MAX_BATCH, Operation, decode_failures};

/// The seconds of a delivery that is to come again at once.
pub(super) const AT_ONCE: u32 = 0;

/// Runs until it is dropped.
pub(super) async fn run(engine: Arc<Engine>) {
    let places = Arc::new(Semaphore::new(engine.settings.connections));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let words = engine.held.words(MAX_BATCH).await;
        let engine = engine.clone();
        tokio::spawn(async move {
            say(&engine, words).await;
            drop(place);
        });
    }
}

async fn say(engine: &Engine, words: Vec<(Job, Arc<str>)>) {
    let ctx = Context::within(engine.deadline);
    // Two may have said the same: it is asked once, and both are told what came of it.
    let mut handles: Vec<&str> = Vec::with_capacity(words.len());
    let mut places = Vec::with_capacity(words.len());
    for (_, handle) in &words {
        let place = handles.iter().position(|known| *known == &**handle);
        places.push(place.unwrap_or(handles.len()));
        if place.is_none() {
            handles.push(handle);
        }
    }
    let results = match (words.as_slice(), handles.as_slice()) {
        ([(Job { word: Word::Nack(seconds), .. }, handle)], _) => {
            vec![give_back(engine, &ctx, handle, *seconds).await]
        }
        (_, [handle]) => vec![delete(engine, &ctx, handle).await],
        _ => delete_all(engine, &ctx, &handles).await,
    };
    for ((job, _), place) in words.into_iter().zip(places) {
        let left_out = || Err(Error::new(Kind::Internal, "a word was left out").by(PROVIDER));
        let result = results.get(place).cloned().unwrap_or_else(left_out);
        if result.is_ok() {
            let counter = if job.word == Word::Ack { &engine.counts.acked } else { &engine.counts.nacked };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        engine.held.was_said(job, result);
    }
}

async fn delete(engine: &Engine, ctx: &Context, handle: &str) -> Result<()> {
    let asked = Operation::Delete { queue: Cow::Borrowed(&engine.queue), handle: handle.into() };
    engine.service.call(ctx, &asked).await.map(drop)
}

async fn delete_all(engine: &Engine, ctx: &Context, handles: &[&str]) -> Vec<Result<()>> {
    let same = |error: Error| vec![Err(error); handles.len()];
    let asked = Operation::DeleteBatch {
        queue: Cow::Borrowed(&engine.queue),
        handles: handles.iter().map(|handle| Cow::Borrowed(*handle)).collect(),
    };
    let answer = match engine.service.call(ctx, &asked).await {
        Ok(answer) if answer.is_success() => return handles.iter().map(|_| Ok(())).collect(),
        Ok(answer) => answer,
        Err(error) => return same(error),
    };
    let failures = match decode_failures(&answer.body) {
        Ok(failures) => failures,
        Err(malformed) => return same(Error::from(malformed).outcome_is(Outcome::Unknown).by(PROVIDER)),
    };
    let mut failed = HashMap::with_capacity(failures.len());
    for failure in &failures {
        let said = engine.service.shown(&format!("{} ({})", failure.text, failure.code)).await;
        let text = format!("{} refuses it: {said}", engine.service.label());
        let error = mns::error(&failure.code, answer.status, text).by(PROVIDER);
        failed.insert(failure.receipt_handle.as_str(), error);
    }
    handles.iter().map(|handle| failed.remove(handle).map_or(Ok(()), Err)).collect()
}

/// Gives a delivery back, to come again after so many seconds.
pub(super) async fn give_back(engine: &Engine, ctx: &Context, handle: &str, seconds: u32) -> Result<()> {
    let least: &AtomicU32 = &engine.least_visibility;
    loop {
        let timeout = seconds.max(least.load(Ordering::Relaxed));
        let asked = Operation::ChangeVisibility {
            queue: Cow::Borrowed(&engine.queue),
            handle: handle.into(),
            timeout,
        };
        match engine.service.call(ctx, &asked).await {
            // The service may take no less than a second; what it refused was not done.
            Err(error) if timeout == AT_ONCE && error.kind() == Kind::InvalidArgument => {
                least.store(1, Ordering::Relaxed);
            }
            result => return result.map(drop),
        }
    }
}

//! Keeps deliveries hidden from others while the host has them.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::consumer::Engine;
use super::content::time;
use super::poll::hidden_until;
use crate::client::Context;
use crate::error::{Kind, Result};
use crate::wire::mns::{Operation, Visibility};

/// Runs until it is dropped.
pub(super) async fn run(engine: Arc<Engine>) {
    let at_once = engine.settings.connections;
    let mut running = FuturesUnordered::new();
    loop {
        let free = at_once.saturating_sub(running.len());
        let (due, next) = match free {
            0 => (Vec::new(), None),
            free => engine.held.take_due(engine.settings.extend_for, free),
        };
        for (code, handle) in due {
            running.push(renewed(&engine, code, handle));
        }
        let later = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = running.next(), if !running.is_empty() => {}
            () = later => {}
            () = engine.held.freshened() => {}
        }
    }
}

async fn renewed(engine: &Engine, code: Arc<str>, handle: Arc<str>) {
    let visibility = Duration::from_secs(u64::from(engine.settings.visibility));
    match ask(engine, &handle).await {
        Ok((handle, hidden)) => {
            engine.counts.renewed.fetch_add(1, Ordering::Relaxed);
            engine.held.was_renewed(&code, Some((handle, hidden.unwrap_or(visibility))), false);
        }
        Err(error) => {
            tracing::warn!(id = %engine.id, %error, "a delivery's time could not be renewed");
            engine.held.was_renewed(&code, None, error.kind() == Kind::NotFound);
        }
    }
}

async fn ask(engine: &Engine, handle: &str) -> Result<(Arc<str>, Option<Duration>)> {
    let ctx = Context::within(Duration::from_secs(10)).failing_when_disconnected();
    let timeout = engine.settings.visibility;
    let asked =
        Operation::ChangeVisibility { queue: Cow::Borrowed(&engine.queue), handle: handle.into(), timeout };
    let answer = engine.service.call(&ctx, &asked).await?;
    let told = Visibility::decode(&answer.body)?;
    let until = time(told.next_visible_time);
    Ok((told.receipt_handle.into(), until.and_then(|until| hidden_until(until, answer.time))))
}

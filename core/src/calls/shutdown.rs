//! Closing every client at once.

use std::time::Duration;

use super::{CLIENTS, consumer_close, producer_close};
use crate::client::Context;
use crate::error::{Kind, Result};

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Clients whose sends all ended in time.
    pub clean: usize,
    /// Clients with sends that had to be ended.
    pub forced: usize,
    /// Clients that another call was closing or that failed to close.
    pub failed: usize,
}

/// Closes every client, all within `timeout`. New ones can be opened afterwards.
pub async fn shutdown(timeout: Duration) -> Result<ShutdownReport> {
    let until = tokio::time::Instant::now().checked_add(timeout);
    // Nobody is refused anything by these.
    let _ = crate::outbox::close_idle(&Context::within(timeout)).await;
    let Some(clients) = CLIENTS.get() else { return Ok(ShutdownReport::default()) };
    let left = || {
        let left = until.map(|until| until.saturating_duration_since(tokio::time::Instant::now()));
        Some(left.unwrap_or(timeout))
    };
    let producers = clients.producers.ids();
    let consumers = clients.consumers.ids();
    let mut report = ShutdownReport::default();
    let mut note = |result: &Result<()>| match result {
        Ok(()) => report.clean += 1,
        Err(error) if error.kind() == Kind::Timeout => report.forced += 1,
        Err(_) => report.failed += 1,
    };
    // Those that others hold come after their holders.
    let mut waiting = producers;
    while !waiting.is_empty() {
        let results =
            futures_util::future::join_all(waiting.iter().map(|id| producer_close(id, left()))).await;
        let held: Vec<bool> = results
            .iter()
            .map(|result| result.as_ref().is_err_and(|error| error.kind() == Kind::InUse))
            .collect();
        // A round that frees nothing ends it: nobody may wait for ever.
        let progress = held.contains(&false);
        results
            .iter()
            .zip(&held)
            .filter(|(_, held)| !**held || !progress)
            .for_each(|(result, _)| note(result));
        let mut held = held.into_iter();
        waiting.retain(|_| progress && held.next().unwrap_or_default());
    }
    for result in futures_util::future::join_all(consumers.iter().map(|id| consumer_close(id, left()))).await
    {
        note(&result);
    }
    Ok(report)
}

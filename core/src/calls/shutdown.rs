//! Closing every client at once.

use std::time::Duration;

use futures_util::future::join_all;

use super::{CLIENTS, consumer_close, producer_close};
use crate::client::Context;
use crate::error::{Kind, Result};

/// How often it is asked whether another call has closed a client.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How a shutdown ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Clients whose sends all ended in time.
    pub clean: usize,
    /// Clients with sends that had to be ended.
    pub forced: usize,
    /// Clients that another call was closing and had not closed in time, or that failed to close.
    pub failed: usize,
}

/// Closes every client, all within `timeout`. New ones can be opened afterwards.
pub async fn shutdown(timeout: Duration) -> Result<ShutdownReport> {
    let until = tokio::time::Instant::now().checked_add(timeout);
    // Nobody is refused anything by these.
    let _ = crate::outbox::close_idle(&Context::within(timeout)).await;
    let Some(clients) = CLIENTS.get() else { return Ok(ShutdownReport::default()) };
    let left = || until.map_or(timeout, |until| until.saturating_duration_since(tokio::time::Instant::now()));
    let left = &left;
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
        let results = join_all(waiting.iter().map(|id| async move {
            let result = producer_close(id, Some(left())).await;
            closed_by(result, left(), || clients.producers.holds(id)).await
        }))
        .await;
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
    let results = join_all(consumers.iter().map(|id| async move {
        let result = consumer_close(id, Some(left())).await;
        closed_by(result, left(), || clients.consumers.holds(id)).await
    }))
    .await;
    results.iter().for_each(note);
    Ok(report)
}

/// What came of a close, where another call that came first may have closed the client: whoever shuts down asks for
/// free ids, and not by whom.
async fn closed_by(result: Result<()>, left: Duration, taken: impl Fn() -> bool) -> Result<()> {
    let Err(error) = result else { return Ok(()) };
    match error.kind() {
        Kind::UnknownId => Ok(()),
        Kind::Closed => {
            let free = async {
                while taken() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            };
            tokio::time::timeout(left, free).await.map_err(|_| error)
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_another_call_closes_is_waited_for() {
        let second = Duration::from_secs(1);
        let begun = || Err(Error::new(Kind::Closed, "the producer `a` is being closed already"));
        let asked = Cell::new(0);
        let taken = || {
            asked.set(asked.get() + 1);
            asked.get() < 4
        };
        closed_by(begun(), second, taken).await.unwrap();
        assert_eq!(asked.get(), 4);

        let start = tokio::time::Instant::now();
        assert_eq!(closed_by(begun(), second, || true).await.unwrap_err().kind(), Kind::Closed);
        assert_eq!(start.elapsed(), second);

        let gone = Err(Error::new(Kind::UnknownId, "no producer `a` is open"));
        closed_by(gone, second, || false).await.unwrap();
        let other = Err(Error::new(Kind::Timeout, "some had to be ended"));
        assert_eq!(closed_by(other, second, || false).await.unwrap_err().kind(), Kind::Timeout);
    }
}

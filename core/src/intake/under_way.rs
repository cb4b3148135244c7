//! Sends under way that go through no intake: counted, so that a flush and a close can wait for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::client::Context;
use crate::error::{Error, Kind, Result};

#[derive(Debug, Default)]
struct Counts {
    // How many of each epoch; a flush begins a new one and waits until those before are gone.
    epochs: BTreeMap<u64, u64>,
    epoch: u64,
    closed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct UnderWay {
    counts: Mutex<Counts>,
    changed: Notify,
    stop: CancellationToken,
}

/// One send; it has ended when this is dropped.
#[derive(Debug)]
pub struct Entered {
    sends: Arc<UnderWay>,
    epoch: u64,
}

impl UnderWay {
    /// A send begins.
    ///
    /// # Errors
    /// `closed` after [`UnderWay::close`].
    pub fn enter(self: &Arc<Self>) -> Result<Entered> {
        let mut counts = self.counts.lock();
        if counts.closed {
            return Err(Error::new(Kind::Closed, "the producer is closed"));
        }
        let epoch = counts.epoch;
        *counts.epochs.entry(epoch).or_insert(0) += 1;
        Ok(Entered { sends: self.clone(), epoch })
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.lock().epochs.values().sum()
    }

    /// Cancelled when sends must end now.
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Waits until every send that began before has ended.
    ///
    /// # Errors
    /// `timeout` or `cancelled`, of the context.
    pub async fn drained(&self, ctx: &Context) -> Result<()> {
        let sealed = {
            let mut counts = self.counts.lock();
            counts.epoch += 1;
            counts.epoch
        };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.counts.lock().epochs.keys().next().is_none_or(|first| *first >= sealed) {
                return Ok(());
            }
            ctx.run(changed).await?;
        }
    }

    /// Takes no more, and waits for those under way; at the end of the context it cancels them.
    ///
    /// # Errors
    /// `timeout` or `cancelled` when some had to be cancelled.
    pub async fn close(&self, ctx: &Context) -> Result<()> {
        self.counts.lock().closed = true;
        let ended = self.drained(ctx).await;
        if ended.is_err() {
            self.stop.cancel();
            // They end by themselves now, unless a producer ignores its context: not for ever.
            let grace = Context::within(std::time::Duration::from_millis(200));
            let _ = self.drained(&grace).await;
        }
        ended
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let gone = {
            let mut counts = self.sends.counts.lock();
            match counts.epochs.get_mut(&self.epoch) {
                Some(count) if *count > 1 => {
                    *count -= 1;
                    false
                }
                _ => {
                    counts.epochs.remove(&self.epoch);
                    true
                }
            }
        };
        if gone {
            self.sends.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_flush_waits_for_what_began_before_it_alone() {
        let sends = Arc::new(UnderWay::default());
        let before = sends.enter().unwrap();
        let flush = tokio::spawn({
            let sends = sends.clone();
            async move { sends.drained(&Context::within(Duration::from_secs(9))).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let _after = sends.enter().unwrap();
        assert!(!flush.is_finished());
        drop(before);
        flush.await.unwrap().unwrap();
        assert_eq!(sends.count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_close_cancels_what_does_not_end() {
        let sends = Arc::new(UnderWay::default());
        let entered = sends.enter().unwrap();
        let send = tokio::spawn({
            let stop = sends.stop().clone();
            async move {
                stop.cancelled().await;
                drop(entered);
            }
        });
        let error = sends.close(&Context::within(Duration::from_secs(1))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout);
        send.await.unwrap();
        assert_eq!(sends.enter().unwrap_err().kind(), Kind::Closed);
    }
}

//! The callers' end of a producer whose task owns its connections.

use std::future::Future;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::intake::{Intake, Limits};

/// Dropping it ends the task, and with it every call.
#[derive(Debug)]
pub(in crate::provider) struct Front {
    provider: &'static str,
    pub(in crate::provider) intake: Arc<Intake>,
    /// Ends everything at once.
    pub(in crate::provider) stop: CancellationToken,
    // The task has ended.
    finished: CancellationToken,
}

impl Front {
    pub(in crate::provider) fn new(provider: &'static str, limits: Limits) -> Front {
        Front {
            provider,
            intake: Intake::new(provider, limits),
            stop: CancellationToken::new(),
            finished: CancellationToken::new(),
        }
    }

    /// Starts the task. It ends when the intake is closed and every call has ended, and soon after a stop.
    pub(in crate::provider) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.finished.clone().drop_guard();
        tokio::spawn(async move {
            let _ended = ended;
            task.await;
        });
    }

    /// Takes no more calls, and waits until those under way have ended; what has not at the end of `ctx` is ended.
    ///
    /// # Errors
    /// `timeout` when some had to be.
    pub(in crate::provider) async fn close(&self, ctx: &Context) -> Result<()> {
        self.intake.close();
        if ctx.run(self.finished.cancelled()).await.is_ok() {
            return Ok(());
        }
        let left = self.intake.under_way();
        self.stop.cancel();
        // Bounded: the calls end at once, and connections are only said good-bye to.
        self.finished.cancelled().await;
        if left == 0 {
            return Ok(());
        }
        let text = format!("{left} sends were ended by the close with their outcome");
        Err(Error::new(Kind::Timeout, text).by(self.provider))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.intake.close();
        self.stop.cancel();
    }
}

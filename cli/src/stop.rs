//! Ctrl-C and SIGTERM: the first asks for an end, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::failure::{Exit, Failure};

/// Tells whether the program was asked to end.
#[derive(Debug, Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Takes over both signals; on a runtime.
    pub(crate) fn listen() -> Result<Stop, Failure> {
        let taken = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failed, "internal", format!("signals cannot be taken: {error}"))
            })
        };
        let mut interrupt = taken(SignalKind::interrupt())?;
        let mut terminate = taken(SignalKind::terminate())?;
        let (asked, stop) = watch::channel(false);
        tokio::spawn(async move {
            for again in [false, true] {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if again {
                    std::process::exit(Exit::Interrupted as i32);
                }
                let _ = asked.send(true);
            }
        });
        Ok(Stop(stop))
    }

    /// Returns when the program was asked to end.
    pub(crate) async fn asked(&self) {
        let mut stop = self.0.clone();
        if stop.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

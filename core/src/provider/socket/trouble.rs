//! Whether the last try to connect failed, for whoever does not wait for a connection: he does not wait behind those
//! who do either.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// See the module.
#[derive(Debug)]
pub(in crate::provider) struct Trouble {
    last: watch::Sender<Option<(Instant, Error)>>,
    fresh: Duration,
}

impl Trouble {
    /// What a try said counts for so long: later nobody knows.
    pub(in crate::provider) fn new(fresh: Duration) -> Trouble {
        Trouble { last: watch::Sender::new(None), fresh }
    }

    /// A try failed.
    pub(in crate::provider) fn begins(&self, error: &Error) {
        self.last.send_replace(Some((Instant::now(), error.clone())));
    }

    /// There is a connection.
    pub(in crate::provider) fn ends(&self) {
        self.last.send_if_modified(|last| last.take().is_some());
    }

    /// Waits for something: where it has to be `hasty` only as long as there is no trouble.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(in crate::provider) async fn unless<T>(
        &self,
        hasty: bool,
        wait: impl Future<Output = T>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            done = wait => Ok(done),
            error = self.there_is(), if hasty => Err(error),
        }
    }

    async fn there_is(&self) -> Error {
        let mut last = self.last.subscribe();
        loop {
            if let Some((since, error)) = &*last.borrow_and_update()
                && since.elapsed() < self.fresh
            {
                return error.clone();
            }
            if last.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use tokio::time::{sleep, timeout};

    #[tokio::test(start_paused = true)]
    async fn only_who_is_hasty_gives_up_and_only_while_there_is_fresh_trouble() {
        let second = Duration::from_secs(1);
        let trouble = Trouble::new(3 * second);
        let no_room = |hasty| timeout(second / 2, trouble.unless(hasty, std::future::pending::<()>()));
        assert!(no_room(true).await.is_err(), "nothing was tried yet");
        let waiting = async { trouble.unless(true, std::future::pending::<()>()).await.unwrap_err() };
        let fails = async {
            sleep(second).await;
            trouble.begins(&Error::new(Kind::Unavailable, "nobody there"));
        };
        assert_eq!(tokio::join!(waiting, fails).0.message(), "nobody there");
        assert_eq!(no_room(true).await.unwrap().unwrap_err().kind(), Kind::Unavailable);
        assert!(no_room(false).await.is_err());
        assert_eq!(trouble.unless(true, async { 7 }).await.unwrap(), 7, "what is there is taken");
        sleep(3 * second).await;
        assert!(no_room(true).await.is_err(), "nobody knows any more");
        trouble.begins(&Error::new(Kind::Unavailable, "nobody there"));
        trouble.ends();
        assert!(no_room(true).await.is_err(), "there is a connection");
    }
}

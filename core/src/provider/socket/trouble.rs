//! Whether there is a connection, and what the last try to connect said: for whoever does not wait for one. He does not
//! wait behind those who do either.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// What the last try to connect said.
#[cfg_attr(not(feature = "smtp"), allow(dead_code, reason = "mail alone asks"))]
#[derive(Debug, Clone, Default)]
pub(in crate::provider) enum Last {
    #[default]
    Untried,
    Connected,
    /// The connections are gone, and none was tried since.
    Lost,
    Failed(Instant, Error),
}

#[derive(Debug, Default)]
struct State {
    live: usize,
    last: Last,
}

/// See the module.
#[derive(Debug)]
pub(in crate::provider) struct Trouble {
    state: watch::Sender<State>,
    fresh: Duration,
}

/// A connection, or what goes over one. While there is any, the server is there, whatever a try for another says.
#[derive(Debug)]
pub(in crate::provider) struct Live(Arc<Trouble>);

impl Drop for Live {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.live = state.live.saturating_sub(1));
    }
}

#[cfg_attr(not(feature = "smtp"), allow(dead_code, reason = "mail alone asks"))]
impl Trouble {
    /// What a try said counts for so long: later nobody knows.
    pub(in crate::provider) fn new(fresh: Duration) -> Arc<Trouble> {
        Arc::new(Trouble { state: watch::Sender::default(), fresh })
    }

    /// A try failed.
    pub(in crate::provider) fn begins(&self, error: &Error) {
        self.state.send_modify(|state| state.last = Last::Failed(Instant::now(), error.clone()));
    }

    /// A connection does what it should.
    pub(in crate::provider) fn ends(&self) {
        self.state.send_if_modified(|state| {
            !matches!(std::mem::replace(&mut state.last, Last::Connected), Last::Connected)
        });
    }

    /// There is one connection more, until what is returned is dropped.
    pub(in crate::provider) fn connected(self: &Arc<Self>) -> Live {
        self.state.send_modify(|state| *state = State { live: state.live + 1, last: Last::Connected });
        Live(self.clone())
    }

    /// The last connection is gone.
    pub(in crate::provider) fn lost(&self) {
        self.state.send_if_modified(|state| {
            let lost = state.live == 0 && matches!(state.last, Last::Connected);
            if lost {
                state.last = Last::Lost;
            }
            lost
        });
    }

    /// Whether there is a connection.
    pub(in crate::provider) fn is_live(&self) -> bool {
        self.state.borrow().live > 0
    }

    /// What the last try to connect said.
    pub(in crate::provider) fn last(&self) -> Last {
        self.state.borrow().last.clone()
    }

    /// Why there is no connection, while there is none.
    pub(in crate::provider) fn now(&self) -> Option<Error> {
        self.of(&self.state.borrow())
    }

    fn of(&self, state: &State) -> Option<Error> {
        match &state.last {
            Last::Failed(since, error) if state.live == 0 && since.elapsed() < self.fresh => {
                Some(error.clone())
            }
            _ => None,
        }
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
        let mut state = self.state.subscribe();
        loop {
            let now = self.of(&state.borrow_and_update());
            if let Some(error) = now {
                return error;
            }
            if state.changed().await.is_err() {
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

    const SECOND: Duration = Duration::from_secs(1);

    fn nobody() -> Error {
        Error::new(Kind::Unavailable, "nobody there")
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_is_hasty_gives_up_and_only_while_there_is_fresh_trouble() {
        let trouble = Trouble::new(3 * SECOND);
        let no_room = |hasty| timeout(SECOND / 2, trouble.unless(hasty, std::future::pending::<()>()));
        assert!(no_room(true).await.is_err(), "nothing was tried yet");
        let waiting = async { trouble.unless(true, std::future::pending::<()>()).await.unwrap_err() };
        let fails = async {
            sleep(SECOND).await;
            trouble.begins(&nobody());
        };
        assert_eq!(tokio::join!(waiting, fails).0.message(), "nobody there");
        assert_eq!(no_room(true).await.unwrap().unwrap_err().kind(), Kind::Unavailable);
        assert!(no_room(false).await.is_err());
        assert_eq!(trouble.unless(true, async { 7 }).await.unwrap(), 7, "what is there is taken");
        sleep(3 * SECOND).await;
        assert!(no_room(true).await.is_err(), "nobody knows any more");
        trouble.begins(&nobody());
        trouble.ends();
        assert!(no_room(true).await.is_err(), "there is a connection");
    }

    #[tokio::test(start_paused = true)]
    async fn one_failed_try_says_nothing_while_another_connection_lives() {
        let trouble = Trouble::new(9 * SECOND);
        let live = [trouble.connected(), trouble.connected()];
        trouble.begins(&nobody());
        assert!(trouble.is_live() && trouble.now().is_none());
        let waiting = tokio::spawn({
            let trouble = trouble.clone();
            async move { trouble.unless(true, std::future::pending::<()>()).await.unwrap_err() }
        });
        let [one, two] = live;
        drop(one);
        sleep(SECOND).await;
        assert!(!waiting.is_finished());
        drop(two);
        assert_eq!(waiting.await.unwrap().message(), "nobody there");
        // One that ended well is no trouble.
        let live = trouble.connected();
        trouble.begins(&nobody());
        trouble.ends();
        drop(live);
        assert!(trouble.now().is_none());
        trouble.lost();
        assert!(matches!(trouble.last(), Last::Lost));
    }
}

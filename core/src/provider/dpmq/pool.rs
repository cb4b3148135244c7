//! The connections of a producer: a bounded number, kept alive, and made anew when the server comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use super::PROVIDER;
use super::http::{Http, Site};
use crate::config::{Connect, WhenDisconnected};
use crate::error::{Error, Kind, Result};
use crate::provider::Setup;
use crate::provider::socket::{Backoff, Board, Dialer, LaneState, Pace, Phase, permanent};
use crate::random::Random;

/// Checks without an answer before the server counts as gone.
const MISSES: u32 = 2;

/// See the module.
pub(super) struct Pool {
    pub(super) site: Site,
    pub(super) board: Arc<Board>,
    id: String,
    dialer: Arc<Dialer>,
    pace: Pace,
    fail: bool,
    // Open waits, and fails with the first error that no further try would mend.
    eager: bool,
    places: Semaphore,
    idle: Mutex<Vec<Http>>,
    // `Starting` whenever there is no server, also after there was one.
    phase: watch::Sender<Phase>,
    // A connection has ended.
    ended: Arc<Notify>,
    busy: Arc<AtomicU64>,
    /// What waits and ids are drawn from.
    pub(super) random: Random,
}

/// The right to one connection.
pub(super) struct Place<'a>(#[allow(dead_code, reason = "held, never read")] SemaphorePermit<'a>);

/// Counts a message that is on its way.
pub(super) struct Busy(Arc<AtomicU64>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn gone() -> Error {
    Error::new(Kind::Closed, "the producer was closed").by(PROVIDER)
}

impl Pool {
    pub(super) fn new(
        setup: &Setup,
        site: Site,
        dialer: Arc<Dialer>,
        pace: Pace,
        connections: usize,
        phase: watch::Sender<Phase>,
    ) -> Pool {
        let pool = Pool {
            site,
            board: Arc::new(Board::default()),
            id: setup.id.clone(),
            dialer,
            pace,
            fail: setup.when_disconnected == WhenDisconnected::Fail,
            eager: setup.connect == Connect::Eager,
            places: Semaphore::new(connections),
            idle: Mutex::default(),
            phase,
            ended: Arc::default(),
            random: setup.random.clone(),
            busy: Arc::default(),
        };
        pool.show("connecting");
        pool
    }

    /// The right to a connection, in the order of the calls. Who does not wait for a connection does not wait behind
    /// those who do.
    pub(super) async fn place(&self, hasty: bool) -> Result<Place<'_>> {
        let place = self.places.acquire();
        let place = tokio::select! {
            biased;
            place = place => place,
            error = self.disconnected(), if hasty => return Err(error),
        };
        place.map(Place).map_err(|_| gone())
    }

    // Resolves while there is no server, once the first try has ended.
    async fn disconnected(&self) -> Error {
        let mut phase = self.phase.subscribe();
        loop {
            let now = phase.borrow_and_update().clone();
            match now {
                Phase::Starting(Some(cause)) => return self.no_connection(cause),
                Phase::Failed(error) => return error,
                Phase::Up | Phase::Starting(None) => {}
            }
            if phase.changed().await.is_err() {
                return gone();
            }
        }
    }

    fn no_connection(&self, cause: Error) -> Error {
        self.site.target.unavailable("there is no connection".to_owned()).caused_by(cause)
    }

    /// A connection for who has a place; waits for the server.
    pub(super) async fn connection(&self, _place: &Place<'_>, hasty: bool) -> Result<Http> {
        let mut phase = self.phase.subscribe();
        loop {
            if let Some(http) = self.pop().await {
                return Ok(http);
            }
            let now = phase.borrow_and_update().clone();
            match now {
                Phase::Up => match self.dial().await {
                    Ok(http) => return Ok(http),
                    Err(error) => self.down(error),
                },
                Phase::Failed(error) => return Err(error),
                Phase::Starting(Some(cause)) if self.fail || hasty => return Err(self.no_connection(cause)),
                Phase::Starting(_) => phase.changed().await.map_err(|_| gone())?,
            }
        }
    }

    /// Keeps a connection for the next one, before its place is free.
    pub(super) fn give_back(&self, http: Http, place: Place<'_>) {
        self.idle.lock().push(http);
        drop(place);
    }

    /// Counts a message as on its way until what is returned is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self.busy.clone())
    }

    /// Why there is no server, where there is none.
    pub(super) fn trouble(&self) -> Option<Error> {
        match &*self.phase.borrow() {
            Phase::Up => None,
            Phase::Starting(error) => error.clone(),
            Phase::Failed(error) => Some(error.clone()),
        }
    }

    /// Notes an error for people.
    pub(super) fn note(&self, error: &Error) {
        self.board.shown.lock().last_error = Some(error.clone());
    }

    async fn pop(&self) -> Option<Http> {
        loop {
            let mut http = self.idle.lock().pop()?;
            if http.is_ready().await {
                return Some(http);
            }
        }
    }

    async fn dial(&self) -> Result<Http> {
        Http::dial(&self.dialer, &self.site, &self.ended).await
    }

    fn down(&self, error: Error) {
        let mut was_up = false;
        self.phase.send_if_modified(|phase| {
            was_up = matches!(phase, Phase::Up);
            if was_up {
                *phase = Phase::Starting(Some(error.clone()));
            }
            was_up
        });
        if was_up {
            tracing::warn!(id = self.id, %error, "the server is gone");
            let idle = std::mem::take(&mut *self.idle.lock());
            drop(idle);
            self.note(&error);
            self.show("disconnected");
        }
    }

    /// Makes the first connection, and again when the server was gone; checks that it is still there. Runs until
    /// it is dropped, or nothing would help.
    pub(super) async fn keep(&self) {
        let mut backoff =
            Backoff::new(self.pace.reconnect_base, self.pace.reconnect_max, self.random.number());
        let mut wait = backoff.next();
        let mut up_since: Option<Instant> = None;
        let mut opened = false;
        let mut phase = self.phase.subscribe();
        loop {
            let up = matches!(*phase.borrow_and_update(), Phase::Up);
            if up {
                tokio::select! {
                    _ = phase.changed() => {}
                    () = self.ended.notified() => {
                        self.check().await;
                        // A server that closes every connection must not be asked in a loop.
                        tokio::time::sleep(self.pace.reconnect_base).await;
                    }
                    () = tokio::time::sleep(self.pace.check_time) => self.check().await,
                }
                continue;
            }
            if let Some(since) = up_since.take() {
                if since.elapsed() >= self.pace.reconnect_max {
                    backoff.reset();
                }
                wait = backoff.next();
            }
            tokio::time::sleep(wait).await;
            self.show("connecting");
            match self.dial().await {
                Ok(http) => {
                    tracing::info!(id = self.id, address = %self.site.target.label, "connected");
                    self.idle.lock().push(http);
                    if opened {
                        self.board.reconnects.fetch_add(1, Ordering::Relaxed);
                    }
                    opened = true;
                    // Shown first: who waited for the opening may look at once.
                    self.show("connected");
                    self.phase.send_replace(Phase::Up);
                    up_since = Some(Instant::now());
                }
                Err(error) => {
                    tracing::warn!(id = self.id, %error, "no connection");
                    self.note(&error);
                    self.show("disconnected");
                    wait = backoff.next();
                    if wait.is_zero() {
                        // That was the try at once.
                        wait = backoff.next();
                    }
                    if self.eager && !opened && permanent(&error) {
                        self.phase.send_replace(Phase::Failed(error));
                        return;
                    }
                    self.phase.send_replace(Phase::Starting(Some(error)));
                }
            }
        }
    }

    /// Asks over an idle connection, or a new one, unless all are at work: those tell by themselves.
    async fn check(&self) {
        let Ok(place) = self.places.try_acquire() else { return };
        let asked = async {
            if let Some(mut http) = self.pop().await
                && http.probe(&self.site).await.is_ok()
            {
                return Ok(http);
            }
            self.dial().await
        };
        let silent = self.pace.check_time * MISSES;
        match tokio::time::timeout(silent, asked).await {
            Ok(Ok(http)) => self.idle.lock().push(http),
            Ok(Err(error)) => self.down(error),
            Err(_) => {
                let text = format!("{} answered nothing for {silent:?}", self.site.target.label);
                self.down(self.site.target.unavailable(text));
            }
        }
        drop(place);
    }

    fn show(&self, state: &'static str) {
        self.board.shown.lock().lanes = vec![LaneState {
            label: self.site.target.label.clone(),
            state,
            unacked: self.busy.clone(),
            last_error: None,
        }];
    }
}

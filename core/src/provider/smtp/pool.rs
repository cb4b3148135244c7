//! The connections of a producer: so many at most, those without a mail kept for a while.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::PROVIDER;
use super::link::Link;
use super::section::{Site, Tls};
use crate::config::WhenDisconnected;
use crate::error::{Error, Kind, Result};
use crate::provider::Setup;
use crate::provider::socket::{Backoff, Trouble};
use crate::random::Random;
use crate::tls::load_client_config;

/// The first wait after a try to connect that failed, and the longest.
const BASE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// What the last try to connect said.
#[derive(Debug, Clone, Default)]
pub(super) enum Last {
    #[default]
    Untried,
    Connected,
    /// The connections are gone, and none was tried since.
    Lost,
    Failed(Error),
}

pub(super) struct Pool {
    pub(super) site: Arc<Site>,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
    when_disconnected: WhenDisconnected,
    trouble: Trouble,
    random: Random,
    pub(super) most: usize,
    places: Semaphore,
    idle: Mutex<Vec<Link>>,
    idle_time: Duration,
    pub(super) last: Mutex<Last>,
    pub(super) connects: AtomicU64,
}

/// The right to one connection.
pub(super) type Place<'a> = SemaphorePermit<'a>;

impl Pool {
    pub(super) async fn new(
        setup: &Setup,
        site: Site,
        ca_file: Option<&Path>,
        connections: usize,
        idle_time: Duration,
    ) -> Result<Arc<Pool>> {
        let tls = match site.tls {
            Tls::None => None,
            _ => Some(load_client_config(ca_file).await?),
        };
        let pool = Arc::new(Pool {
            site: Arc::new(site),
            tls,
            timeout: setup.connect_timeout,
            when_disconnected: setup.when_disconnected,
            trouble: Trouble::new(setup.connect_timeout + LONGEST),
            random: setup.random.clone(),
            most: connections,
            places: Semaphore::new(connections),
            idle: Mutex::default(),
            idle_time,
            last: Mutex::default(),
            connects: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&pool);
        let pause = idle_time / 2;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(pool) = weak.upgrade() else { return };
                pool.close_old().await;
            }
        });
        Ok(pool)
    }

    /// The right to a connection, first come first served. Who is `hasty` does not wait behind those who wait for the
    /// server.
    pub(super) async fn place(&self, hasty: bool) -> Result<Place<'_>> {
        let closed = |_| Error::new(Kind::Closed, "the producer is closed").by(PROVIDER);
        self.unless_disconnected(hasty, self.places.acquire()).await?.map_err(closed)
    }

    /// Waits for something, as long as there may be a server, or whatever happens where this or every send is not
    /// `hasty`.
    pub(super) async fn unless_disconnected<T>(
        &self,
        hasty: bool,
        wait: impl Future<Output = T>,
    ) -> Result<T> {
        self.trouble.unless(hasty || self.when_disconnected == WhenDisconnected::Fail, wait).await
    }

    /// A connection: one that is idle, or a new one. While there is none it waits and tries again, or fails at once,
    /// as configured or when it is `hasty`.
    pub(super) async fn link(&self, _place: &Place<'_>, hasty: bool) -> Result<Link> {
        loop {
            let idle = self.idle.lock().pop();
            let Some(mut link) = idle else { break };
            if link.since.elapsed() < self.idle_time && link.is_quiet() {
                return Ok(link);
            }
            tokio::spawn(link.close());
        }
        let mut backoff = Backoff::new(BASE, LONGEST, self.random.number());
        loop {
            match self.dial().await {
                Ok(link) => return Ok(link),
                Err(error) => {
                    let waits = self.when_disconnected == WhenDisconnected::Wait
                        && !hasty
                        && error.retryable()
                        && error.kind() == Kind::Unavailable;
                    if !waits {
                        return Err(error);
                    }
                    tracing::debug!(server = %self.site.label, %error, "connecting failed");
                    let wait = backoff.next();
                    tokio::time::sleep(if wait.is_zero() { BASE } else { wait }).await;
                }
            }
        }
    }

    /// A new connection.
    pub(super) async fn dial(&self) -> Result<Link> {
        let dialed =
            match tokio::time::timeout(self.timeout, Link::open(self.site.clone(), self.tls.clone())).await {
                Ok(dialed) => dialed,
                Err(_) => {
                    let text = format!("{} does not answer within {:?}", self.site.label, self.timeout);
                    Err(Error::new(Kind::Unavailable, text).by(PROVIDER))
                }
            };
        match &dialed {
            Ok(_) => {
                self.connects.fetch_add(1, Ordering::Relaxed);
                *self.last.lock() = Last::Connected;
                self.trouble.ends();
            }
            Err(error) => {
                *self.last.lock() = Last::Failed(error.clone());
                self.trouble.begins(error);
            }
        }
        dialed
    }

    /// Takes a connection back.
    pub(super) fn give_back(&self, mut link: Link, place: Place<'_>) {
        // One that was only dialed lies idle from now on too.
        link.used = true;
        if link.ready {
            self.trouble.ends();
        }
        if link.ready && !self.places.is_closed() {
            self.idle.lock().push(link);
        }
        drop(place);
    }

    /// Lets go of all that are idle: one of them was dead without a word, and so are the others, most likely.
    pub(super) fn forget_idle(&self) {
        for link in std::mem::take(&mut *self.idle.lock()) {
            tokio::spawn(link.close());
        }
    }

    /// Why there is no connection, where a try failed.
    pub(super) fn trouble(&self) -> Option<Error> {
        match &*self.last.lock() {
            Last::Failed(error) => Some(error.clone()),
            _ => None,
        }
    }

    /// How many connections are idle; those that were lost meanwhile are let go.
    pub(super) fn idle(&self) -> usize {
        let mut idle = self.idle.lock();
        let before = idle.len();
        idle.retain_mut(Link::is_quiet);
        let left = idle.len();
        drop(idle);
        if left < before && left + self.busy() == 0 {
            let mut last = self.last.lock();
            if matches!(*last, Last::Connected) {
                *last = Last::Lost;
            }
        }
        left
    }

    pub(super) fn busy(&self) -> usize {
        self.most.saturating_sub(self.places.available_permits())
    }

    async fn close_old(&self) {
        let now = Instant::now();
        let old: Vec<Link> = {
            let mut idle = self.idle.lock();
            let is_old = |link: &Link| now.duration_since(link.since) >= self.idle_time;
            idle.extract_if(.., |link| is_old(link)).collect()
        };
        futures_util::future::join_all(old.into_iter().map(Link::close)).await;
    }

    /// Closes what is idle; what comes back later is closed too.
    pub(super) async fn close(&self) {
        self.places.close();
        let idle = std::mem::take(&mut *self.idle.lock());
        futures_util::future::join_all(idle.into_iter().map(Link::close)).await;
    }
}

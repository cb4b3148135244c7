//! The connections of a producer: so many at most, those without a mail kept for a while.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use tokio::time::Instant;

use super::PROVIDER;
use super::link::Link;
use super::section::{Site, Tls};
use crate::config::WhenDisconnected;
use crate::error::{Error, Kind, Result};
use crate::provider::Setup;
use crate::provider::socket::{Backoff, Last, Trouble};
use crate::random::Random;
use crate::tls::load_client_config;

/// The first wait after a try to connect that failed, and the longest.
const BASE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Spare {
    idle: Vec<Link>,
    // Who has a place and could not connect: the server may take fewer connections than there may be.
    wanted: VecDeque<oneshot::Sender<Link>>,
}

/// Waits for a connection that somebody gives back.
struct Returned<'a> {
    pool: &'a Pool,
    link: oneshot::Receiver<Link>,
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.link.close();
        if let Ok(link) = self.link.try_recv() {
            self.pool.keep(link);
        }
    }
}

pub(super) struct Pool {
    pub(super) site: Arc<Site>,
    tls: Option<Arc<ClientConfig>>,
    timeout: Duration,
    when_disconnected: WhenDisconnected,
    trouble: Arc<Trouble>,
    random: Random,
    pub(super) most: usize,
    places: Semaphore,
    spare: Mutex<Spare>,
    idle_time: Duration,
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
            spare: Mutex::default(),
            idle_time,
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
        self.trouble.unless(self.is_hasty(hasty), wait).await
    }

    fn is_hasty(&self, hasty: bool) -> bool {
        hasty || self.when_disconnected == WhenDisconnected::Fail
    }

    /// A connection: one that is idle, or a new one. While there is none it waits and tries again, or fails at once,
    /// as configured or when it is `hasty`. While there are others it waits for one of those too.
    pub(super) async fn link(&self, _place: &Place<'_>, hasty: bool) -> Result<Link> {
        let hasty = self.is_hasty(hasty);
        let mut backoff = Backoff::new(BASE, LONGEST, self.random.number());
        loop {
            while let Some(link) = self.take_idle() {
                if let Some(link) = self.good(link) {
                    return Ok(link);
                }
            }
            let error = match self.dial().await {
                Ok(link) => return Ok(link),
                Err(error) => error,
            };
            let passes = error.retryable() && error.kind() == Kind::Unavailable;
            if !passes || (hasty && !self.trouble.is_live()) {
                return Err(error);
            }
            tracing::debug!(server = %self.site.label, %error, "connecting failed");
            let wait = backoff.next();
            let wait = tokio::time::sleep(if wait.is_zero() { BASE } else { wait });
            tokio::select! {
                biased;
                link = self.returned() => if let Some(link) = link.and_then(|link| self.good(link)) {
                    return Ok(link);
                },
                waited = self.trouble.unless(hasty, wait) => waited?,
            }
        }
    }

    fn take_idle(&self) -> Option<Link> {
        self.spare.lock().idle.pop()
    }

    // The link, unless it is old or gone.
    fn good(&self, mut link: Link) -> Option<Link> {
        if link.since.elapsed() < self.idle_time && link.is_quiet() {
            return Some(link);
        }
        tokio::spawn(link.close());
        None
    }

    // The next connection that is given back; none when the pool is gone.
    async fn returned(&self) -> Option<Link> {
        let mut returned = {
            let mut spare = self.spare.lock();
            if let Some(link) = spare.idle.pop() {
                return Some(link);
            }
            let (sender, link) = oneshot::channel();
            spare.wanted.retain(|wanted| !wanted.is_closed());
            spare.wanted.push_back(sender);
            Returned { pool: self, link }
        };
        (&mut returned.link).await.ok()
    }

    // Gives it to who waits for one, or lets it lie idle.
    fn keep(&self, mut link: Link) {
        if self.places.is_closed() {
            return;
        }
        let mut spare = self.spare.lock();
        while let Some(wanted) = spare.wanted.pop_front() {
            match wanted.send(link) {
                Ok(()) => return,
                Err(back) => link = back,
            }
        }
        spare.idle.push(link);
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
        match dialed {
            Ok(mut link) => {
                self.connects.fetch_add(1, Ordering::Relaxed);
                link.live = Some(self.trouble.connected());
                Ok(link)
            }
            Err(error) => {
                self.trouble.begins(&error);
                Err(error)
            }
        }
    }

    /// Takes a connection back.
    pub(super) fn give_back(&self, mut link: Link, place: Place<'_>) {
        // One that was only dialed lies idle from now on too.
        link.used = true;
        if link.ready {
            self.trouble.ends();
            self.keep(link);
        }
        drop(place);
    }

    /// Lets go of all that are idle: one of them was dead without a word, and so are the others, most likely.
    pub(super) fn forget_idle(&self) {
        for link in std::mem::take(&mut self.spare.lock().idle) {
            tokio::spawn(link.close());
        }
    }

    /// Why there is no connection, while there is none and a try failed.
    pub(super) fn trouble(&self) -> Option<Error> {
        self.trouble.now()
    }

    /// Whether it is connected, for the status.
    pub(super) fn state(&self) -> &'static str {
        match self.trouble.last() {
            _ if self.trouble.is_live() => "connected",
            Last::Untried => "connecting",
            Last::Connected => "connected",
            Last::Failed(..) | Last::Lost => "disconnected",
        }
    }

    /// How many connections are idle; those that were lost meanwhile are let go.
    pub(super) fn idle(&self) -> usize {
        let mut spare = self.spare.lock();
        let before = spare.idle.len();
        spare.idle.retain_mut(Link::is_quiet);
        let left = spare.idle.len();
        drop(spare);
        if left < before && left + self.busy() == 0 {
            self.trouble.lost();
        }
        left
    }

    pub(super) fn busy(&self) -> usize {
        self.most.saturating_sub(self.places.available_permits())
    }

    async fn close_old(&self) {
        let now = Instant::now();
        let old: Vec<Link> = {
            let mut spare = self.spare.lock();
            let is_old = |link: &Link| now.duration_since(link.since) >= self.idle_time;
            spare.idle.extract_if(.., |link| is_old(link)).collect()
        };
        futures_util::future::join_all(old.into_iter().map(Link::close)).await;
    }

    /// Closes what is idle; what comes back later is closed too.
    pub(super) async fn close(&self) {
        self.places.close();
        let idle = std::mem::take(&mut self.spare.lock().idle);
        futures_util::future::join_all(idle.into_iter().map(Link::close)).await;
    }
}

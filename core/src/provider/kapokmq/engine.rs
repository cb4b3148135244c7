//! A producer's task: takes calls, spreads them over its lanes, pairs acks, ends calls in time.

mod ends;
mod telling;

use std::collections::{HashSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::jobs::{Book, Deadlines, Job, check};
use super::lane::Lane;
use super::registry::{MAX_NODES, Registry};
use super::section::{NodeProtocol, Place, Settings, Spread, node_target};
use super::spread::Spreader;
use crate::config::{Connect, WhenDisconnected};
use crate::error::{Error, Kind, Result};
use crate::intake::{Intake, Taken, Ticket};
use crate::provider::socket::{Board, Change, Connection, Dialer, Link, Phase, Target};
use crate::random::Random;
use crate::wire::kapokmq::Node;

/// Rounds before other tasks of the runtime get their turn.
const ROUNDS: usize = 16;
/// How long the opening of a cluster waits for further nodes when one is connected.
const FURTHER_NODES: Duration = Duration::from_millis(250);

/// What callers ask of the task, beside sends.
pub(super) enum Command {
    /// Tell when every call pushed before has ended.
    Flush(oneshot::Sender<()>),
}

/// See the module.
pub(super) struct Engine {
    id: String,
    settings: Arc<Settings>,
    dialer: Arc<Dialer>,
    when_disconnected: WhenDisconnected,
    // Open waits, and fails with the first error that no further try would mend.
    eager: bool,
    intake: Arc<Intake>,
    taken: Taken,
    commands: mpsc::Receiver<Command>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    unsent: VecDeque<Job>,
    lanes: Vec<Lane>,
    open: Vec<usize>,
    book: Book,
    deadlines: Deadlines,
    spreader: Spreader,
    node_protocol: NodeProtocol,
    registry: Option<Registry>,
    random: Random,
    registry_error: Option<Error>,
    last_error: Option<Error>,
    board: Arc<Board>,
    phase: watch::Sender<Phase>,
    first_up: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    timer_at: Option<Instant>,
    changed: bool,
}

impl Engine {
    pub(super) fn new(
        setup: &crate::provider::Setup,
        settings: Settings,
        dialer: Arc<Dialer>,
        front: (Arc<Intake>, mpsc::Receiver<Command>, CancellationToken),
        board: Arc<Board>,
        phase: watch::Sender<Phase>,
    ) -> Result<Engine> {
        let settings = Arc::new(settings);
        let (spread, node_protocol, registry) = match &settings.place {
            Place::One(_) => (Spread::default(), NodeProtocol::default(), None),
            Place::Cluster { registry, node_protocol, spread } => {
                (*spread, *node_protocol, Some(Registry::new(registry, &settings, &dialer, &setup.random)?))
            }
        };
        let (intake, commands, stop) = front;
        let now = Instant::now();
        let mut engine = Engine {
            id: setup.id.clone(),
            settings: settings.clone(),
            dialer,
            when_disconnected: setup.when_disconnected,
            eager: setup.connect == Connect::Eager,
            intake,
            taken: Taken::default(),
            commands,
            stop: Box::pin(stop.cancelled_owned()),
            unsent: VecDeque::new(),
            lanes: Vec::new(),
            open: Vec::new(),
            book: Book::default(),
            deadlines: Deadlines::new(now),
            spreader: Spreader::new(spread, setup.random.number()),
            node_protocol,
            random: setup.random.clone(),
            registry,
            registry_error: None,
            last_error: None,
            board,
            phase,
            first_up: None,
            timer: Box::pin(tokio::time::sleep_until(now)),
            timer_at: None,
            changed: true,
        };
        if let Place::One(target) = &settings.place {
            engine.add_lane(target.clone());
        }
        engine.publish();
        Ok(engine)
    }

    fn add_lane(&mut self, target: Target) {
        let reconnects = self.board.reconnects.clone();
        let connection = Connection::new(
            Arc::new(target),
            self.dialer.clone(),
            self.settings.pace,
            &self.random,
            reconnects,
        );
        self.lanes.push(Lane::new(connection));
        self.changed = true;
    }

    /// Runs until the intake is closed and every call has ended, or until it is stopped.
    pub(super) async fn run(mut self) {
        let guard = self.intake.task_guard();
        poll_fn(|cx| self.poll_run(cx)).await;
        drop(guard);
        self.board.shown.lock().closed = true;
        let links = self.lanes.iter_mut().filter_map(|lane| lane.connection.pause());
        join_all(links.map(Link::farewell)).await;
    }

    fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stop.as_mut().poll(cx).is_ready() {
            self.end_all();
            return Poll::Ready(());
        }
        for _ in 0..ROUNDS {
            let now = Instant::now();
            // Commands come before the intake: a flush counts what was pushed before it.
            let flushes = self.poll_commands(cx);
            let mut progress = self.poll_intake(cx, now);
            for done in flushes {
                self.book.flush(done);
                progress = true;
            }
            progress |= self.poll_registry(cx, now);
            progress |= self.poll_lanes(cx, now);
            self.expire(now);
            progress |= self.write(cx, now);
            self.flush(cx, now);
            self.book.tell();
            self.retire();
            self.publish();
            if self.hopeless() {
                self.end_all();
                return Poll::Ready(());
            }
            if self.taken.closed && self.book.live() == 0 {
                return Poll::Ready(());
            }
            if !progress && self.poll_timer(cx).is_pending() {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_commands(&mut self, cx: &mut Context<'_>) -> Vec<oneshot::Sender<()>> {
        let mut flushes = Vec::new();
        while let Poll::Ready(Some(Command::Flush(done))) = self.commands.poll_recv(cx) {
            flushes.push(done);
        }
        flushes
    }

    fn poll_intake(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.intake.poll_take(cx, &mut self.taken).is_pending() {
            return false;
        }
        let mut calls = std::mem::take(&mut self.taken.calls);
        for call in calls.drain(..) {
            let refused = check(&call.message, &self.settings.topic).err();
            self.deadlines.note(call.deadline);
            let job = self.book.admit(call);
            match refused {
                Some(error) => self.book.fail(job, error),
                None => self.unsent.push_back(job),
            }
        }
        self.taken.calls = calls;
        if !self.taken.cancels.is_empty() {
            let cancels: HashSet<Ticket> = self.taken.cancels.drain(..).collect();
            self.end_where(now, &mut |job| cancels.contains(&job.call.ticket()), &|job| {
                job.fails(Kind::Cancelled, "the call was cancelled")
            });
        }
        true
    }

    fn poll_registry(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(registry) = &mut self.registry else { return false };
        let Some(answer) = registry.poll(cx, now) else { return false };
        match answer {
            Ok(nodes) => {
                self.registry_error = None;
                self.apply(&nodes);
            }
            Err(error) => {
                tracing::warn!(id = self.id, %error, "the list of nodes could not be had; the last one is kept");
                self.last_error = Some(error.clone());
                self.registry_error = Some(error);
            }
        }
        self.changed = true;
        true
    }

    /// Uses the registry's list: new nodes are dialed, others get no more messages.
    fn apply(&mut self, nodes: &[Node]) {
        let mut listed: HashSet<Arc<str>> = HashSet::new();
        for node in nodes.iter().take(MAX_NODES) {
            let target = match node_target(&node.addr, &node.port, self.node_protocol, &self.settings.path) {
                Ok(target) => target,
                Err(error) => {
                    tracing::warn!(id = self.id, %error, "a node of the registry cannot be used");
                    self.last_error = Some(error);
                    continue;
                }
            };
            if listed.insert(target.label.clone())
                && !self.lanes.iter().any(|lane| lane.connection.target.label == target.label)
            {
                tracing::info!(id = self.id, node = %target.label, "new node");
                self.add_lane(target);
            }
        }
        if listed.is_empty() {
            return;
        }
        for lane in &mut self.lanes {
            lane.retiring = !listed.contains(&lane.connection.target.label);
        }
    }

    fn poll_lanes(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut progress = false;
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else { break };
            match lane.poll_dial(cx, now) {
                None => {}
                Some(Change::Up) => {
                    tracing::info!(id = self.id, address = %lane.connection.target.label, "connected");
                    self.first_up.get_or_insert(now);
                    (self.changed, progress) = (true, true);
                }
                Some(Change::Failed(error)) => {
                    tracing::warn!(id = self.id, %error, "no connection");
                    self.last_error = Some(error);
                    (self.changed, progress) = (true, true);
                }
            }
            match lane.poll_acks(cx, now, &mut self.book) {
                Ok(acks) => progress |= acks > 0,
                Err(error) => {
                    self.lose(index, now, error);
                    progress = true;
                }
            }
        }
        progress
    }

    /// A lane lost its connection: what was written on it ends as unknown, or goes first again.
    fn lose(&mut self, index: usize, now: Instant, error: Error) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        tracing::warn!(id = self.id, %error, unacked = lane.pending(), "the connection was lost");
        let jobs = lane.lose(now, error.clone());
        if self.settings.resend_unacked {
            for job in jobs.into_iter().rev() {
                self.unsent.push_front(job);
            }
        } else {
            let text = format!("the message was written, but its ack did not come: {}", error.text());
            for job in jobs {
                let error = job.fails(error.kind(), &text);
                self.book.fail(job, error);
            }
        }
        self.last_error = Some(error);
        self.changed = true;
    }

    /// Writes what the windows and sockets take.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.unsent.is_empty() {
            return false;
        }
        let window = self.settings.window;
        let mut open = std::mem::take(&mut self.open);
        open.clear();
        open.extend(
            self.lanes.iter().enumerate().filter(|(_, lane)| lane.open(window)).map(|(index, _)| index),
        );
        let mut wrote = false;
        while let Some(job) = self.unsent.front() {
            if job.call.abandoned() {
                if let Some(job) = self.unsent.pop_front() {
                    let error = job.fails(Kind::Cancelled, "nobody waits for the call any more");
                    self.book.fail(job, error);
                }
                continue;
            }
            let lanes = &self.lanes;
            let pending = |lane: usize| lanes.get(lane).map_or(usize::MAX, Lane::pending);
            let Some(place) = self.spreader.pick(&open, pending) else { break };
            let Some(index) = open.get(place).copied() else { break };
            let Some(lane) = self.lanes.get_mut(index) else { break };
            match lane.poll_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    self.give_up(index, cx, now, error);
                    open.remove(place);
                    wrote = true;
                    continue;
                }
                Poll::Pending => {
                    open.remove(place);
                    continue;
                }
            }
            let Some(job) = self.unsent.pop_front() else { break };
            wrote = true;
            if !lane.carries(&job) {
                let text = format!(
                    "the message field `key` cannot be sent to {}: it does not speak the extension",
                    lane.connection.target.label
                );
                let error = job.fails(Kind::Unsupported, &text);
                self.book.fail(job, error);
                continue;
            }
            if let Err(error) = lane.write(job, now, self.settings.resend_unacked) {
                self.give_up(index, cx, now, error);
                open.remove(place);
            } else if !lane.open(window) {
                open.remove(place);
            }
        }
        self.open = open;
        self.fail_disconnected() || wrote
    }

    /// With `when_disconnected: fail` nothing waits for a connection, once the first tries have ended; else only who
    /// has nowhere else to go.
    fn fail_disconnected(&mut self) -> bool {
        let all = self.when_disconnected == WhenDisconnected::Fail;
        if !(all || self.book.any_hasty())
            || self.unsent.is_empty()
            || self.lanes.iter().any(|lane| lane.connection.is_up() && !lane.retiring)
        {
            return false;
        }
        let unsettled = self.lanes.iter().any(|lane| !lane.connection.settled());
        if unsettled || (self.lanes.is_empty() && self.registry_error.is_none()) {
            return false;
        }
        let (ended, waits) = std::mem::take(&mut self.unsent)
            .into_iter()
            .partition::<VecDeque<_>, _>(|job| all || job.call.fails_when_disconnected());
        self.unsent = waits;
        let any = !ended.is_empty();
        for job in ended {
            let error = job.fails(Kind::Unavailable, "there is no connection");
            let error = match &self.last_error {
                Some(cause) => error.caused_by(cause.clone()),
                None => error,
            };
            self.book.fail(job, error);
        }
        any
    }

    /// A write failed: acks that came before are still read.
    fn give_up(&mut self, index: usize, cx: &mut Context<'_>, now: Instant, error: Error) {
        if let Some(lane) = self.lanes.get_mut(index) {
            while let Ok(1..) = lane.poll_acks(cx, now, &mut self.book) {}
        }
        self.lose(index, now, error);
    }

    fn flush(&mut self, cx: &mut Context<'_>, now: Instant) {
        for index in 0..self.lanes.len() {
            let Some(lane) = self.lanes.get_mut(index) else { break };
            if let Poll::Ready(Err(error)) = lane.poll_flush(cx) {
                self.give_up(index, cx, now, error);
                // Polled again by its timer, which is now.
            }
        }
    }

    /// Lets go of lanes whose node left the list, once their acks have come.
    fn retire(&mut self) {
        let done = |lane: &Lane| lane.retiring && (!lane.connection.is_up() || lane.pending() == 0);
        if !self.lanes.iter().any(done) {
            return;
        }
        for mut lane in std::mem::take(&mut self.lanes) {
            if !done(&lane) {
                self.lanes.push(lane);
                continue;
            }
            tracing::info!(id = self.id, node = %lane.connection.target.label, "the node left");
            if let Some(link) = lane.connection.pause() {
                // Bounded by the link; nothing waits for it.
                tokio::spawn(link.farewell());
            }
        }
        self.changed = true;
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let opening = self.first_up.filter(|_| !self.is_open()).map(|at| at + FURTHER_NODES);
        let timers = self.lanes.iter().filter_map(|lane| lane.connection.timer());
        let registry = self.registry.as_ref().and_then(Registry::timer);
        let at = timers.chain(registry).chain(self.deadlines.next()).chain(opening).min();
        let Some(at) = at else { return Poll::Pending };
        if self.timer_at != Some(at) {
            self.timer_at = Some(at);
            self.timer.as_mut().reset(at);
        }
        let fired = self.timer.as_mut().poll(cx);
        if fired.is_ready() {
            self.timer_at = None;
        }
        fired
    }
}

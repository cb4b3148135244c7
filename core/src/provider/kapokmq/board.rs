//! What a client's task tells about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::error::Error;

/// How far the opening of a client is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// No connection yet; the last error, where a try failed.
    Starting(Option<Error>),
    /// There was a connection.
    Up,
    /// There will be none.
    Failed(Error),
}

/// Waits until a client is open: its first connection, or why there is none.
pub(super) async fn opened(
    phase: &mut watch::Receiver<Phase>,
    label: &str,
    within: std::time::Duration,
) -> Result<(), Error> {
    let decided = phase.wait_for(|phase| !matches!(phase, Phase::Starting(_)));
    let decided = match tokio::time::timeout(within, decided).await {
        Ok(Ok(phase)) => Some(phase.clone()),
        // The time passed, or the task is gone.
        _ => None,
    };
    let phase = match decided {
        Some(phase) => phase,
        None => phase.borrow().clone(),
    };
    match phase {
        Phase::Up => Ok(()),
        Phase::Failed(error) => Err(error),
        Phase::Starting(cause) => {
            let error = super::dial::unavailable(format!("no connection to {label} within {within:?}"));
            Err(match cause {
                Some(cause) => error.caused_by(cause),
                None => error,
            })
        }
    }
}

/// One connection, for people.
#[derive(Debug, Clone)]
pub(super) struct LaneState {
    pub(super) label: Arc<str>,
    pub(super) state: &'static str,
    pub(super) unacked: Arc<AtomicU64>,
    pub(super) last_error: Option<Error>,
}

/// The registry of a cluster, for people.
#[derive(Debug, Clone)]
pub(super) struct RegistryState {
    pub(super) label: Arc<str>,
    /// Why the list in use is not the registry's last answer.
    pub(super) stale: Option<Error>,
}

/// The state of a client: its task writes, `status` reads.
#[derive(Debug, Default)]
pub(super) struct Board {
    pub(super) shown: Mutex<Shown>,
    pub(super) reconnects: Arc<AtomicU64>,
    pub(super) acked: AtomicU64,
}

/// See [`Board`].
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) closed: bool,
    pub(super) lanes: Vec<LaneState>,
    pub(super) registry: Option<RegistryState>,
    pub(super) last_error: Option<Error>,
}

impl Board {
    /// The state of a producer.
    pub(super) fn producer(&self, topic: &str, pending: u64) -> Value {
        let shown = self.shown.lock();
        let up: Vec<&str> =
            shown.lanes.iter().filter(|lane| lane.state == "connected").map(|lane| &*lane.label).collect();
        let unacked: u64 = shown.lanes.iter().map(|lane| lane.unacked.load(Ordering::Relaxed)).sum();
        let mut status = json!({
            "provider": super::PROVIDER,
            "topic": topic,
            "state": shown.state(),
            "connected_to": up,
            "pending": pending,
            "unacked": unacked,
            "acked": self.acked.load(Ordering::Relaxed),
            "reconnects": self.reconnects.load(Ordering::Relaxed),
            "last_error": error_json(shown.last_error.as_ref()),
        });
        if let (Some(registry), Some(fields)) = (&shown.registry, status.as_object_mut()) {
            let nodes: Vec<Value> = shown
                .lanes
                .iter()
                .map(|lane| {
                    json!({
                        "address": &*lane.label,
                        "state": lane.state,
                        "unacked": lane.unacked.load(Ordering::Relaxed),
                        "last_error": error_json(lane.last_error.as_ref()),
                    })
                })
                .collect();
            fields.insert("nodes".to_owned(), nodes.into());
            let registry = json!({
                "address": &*registry.label,
                "stale": registry.stale.is_some(),
                "last_error": error_json(registry.stale.as_ref()),
            });
            fields.insert("registry".to_owned(), registry);
        }
        status
    }
}

impl Shown {
    /// One word for the whole client.
    pub(super) fn state(&self) -> &'static str {
        if self.closed {
            return "closed";
        }
        let any = |name: &str| self.lanes.iter().any(|lane| lane.state == name);
        if any("connected") {
            "connected"
        } else if any("connecting") {
            "connecting"
        } else if any("paused") {
            "paused"
        } else {
            "disconnected"
        }
    }
}

/// An error in a status.
pub(super) fn error_json(error: Option<&Error>) -> Value {
    error.map_or(Value::Null, |error| json!({"kind": error.kind().name(), "message": error.text()}))
}

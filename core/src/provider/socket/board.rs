//! What a client's task tells about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::error::{Error, Kind};

/// How far the opening of a client is.
#[derive(Debug, Clone)]
pub(in crate::provider) enum Phase {
    /// No connection yet; the last error, where a try failed.
    Starting(Option<Error>),
    /// There was a connection.
    Up,
    /// There will be none.
    Failed(Error),
}

/// Waits until a client is open: its first connection, or why there is none.
pub(in crate::provider) async fn opened(
    phase: &mut watch::Receiver<Phase>,
    provider: &'static str,
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
            let text = format!("no connection to {label} within {within:?}");
            let error = Error::new(Kind::Unavailable, text).by(provider);
            Err(match cause {
                Some(cause) => error.caused_by(cause),
                None => error,
            })
        }
    }
}

/// One connection, for people.
#[derive(Debug, Clone)]
pub(in crate::provider) struct LaneState {
    pub(in crate::provider) label: Arc<str>,
    pub(in crate::provider) state: &'static str,
    pub(in crate::provider) unacked: Arc<AtomicU64>,
    pub(in crate::provider) last_error: Option<Error>,
}

/// The registry of a cluster, for people.
#[derive(Debug, Clone)]
pub(in crate::provider) struct RegistryState {
    pub(in crate::provider) label: Arc<str>,
    /// Why the list in use is not the registry's last answer.
    pub(in crate::provider) stale: Option<Error>,
}

/// The state of a client: its task writes, `status` reads.
#[derive(Debug, Default)]
pub(in crate::provider) struct Board {
    pub(in crate::provider) shown: Mutex<Shown>,
    pub(in crate::provider) reconnects: Arc<AtomicU64>,
    pub(in crate::provider) acked: AtomicU64,
    /// Every connection that is live agreed to the extension.
    pub(in crate::provider) extended: AtomicBool,
}

/// See [`Board`].
#[derive(Debug, Default)]
pub(in crate::provider) struct Shown {
    pub(in crate::provider) closed: bool,
    pub(in crate::provider) lanes: Vec<LaneState>,
    pub(in crate::provider) registry: Option<RegistryState>,
    pub(in crate::provider) last_error: Option<Error>,
}

impl Board {
    /// The state of a producer.
    pub(in crate::provider) fn producer(&self, provider: &str, topic: &str, pending: u64) -> Value {
        let shown = self.shown.lock();
        let up: Vec<&str> =
            shown.lanes.iter().filter(|lane| lane.state == "connected").map(|lane| &*lane.label).collect();
        let unacked: u64 = shown.lanes.iter().map(|lane| lane.unacked.load(Ordering::Relaxed)).sum();
        let mut status = json!({
            "provider": provider,
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
    pub(in crate::provider) fn state(&self) -> &'static str {
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
pub(in crate::provider) fn error_json(error: Option<&Error>) -> Value {
    error.map_or(Value::Null, |error| json!({"kind": error.kind().name(), "message": error.text()}))
}

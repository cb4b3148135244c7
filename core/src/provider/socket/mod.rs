//! What the providers share that hold connections: dialing, connections that come back, a consumer over a
//! WebSocket. It knows none of them: what differs is in [`Server`], [`Dialer`] and [`Dialect`].
//!
//! `target` is what a connection is made to, `dial` makes one, `link` is a live WebSocket, `connection` one that
//! comes back after a `backoff`; `front` is the callers' end of a producer; `consumer` is what callers of one see,
//! `receiver` its task, `inbox` what lies between;
//! `trouble` is why there is no connection, for who does not wait for one;
//! `board` is what a task tells of itself, `keys` are the keys of a section that all have.

mod backoff;
mod board;
mod connection;
mod consumer;
mod dial;
mod front;
mod inbox;
mod keys;
mod link;
mod receiver;
mod target;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(in crate::provider) use backoff::Backoff;
pub(in crate::provider) use board::{Board, LaneState, Phase, RegistryState, opened};
pub(in crate::provider) use connection::{Change, Connection};
pub(in crate::provider) use consumer::open;
pub(in crate::provider) use dial::{Dialer, LogIn, Wire};
pub(in crate::provider) use front::Front;
pub(in crate::provider) use keys::{Pace, Prefetch, default_client_id, refuse_foreign};
pub(in crate::provider) use link::Link;
pub(in crate::provider) use target::{Offer, Target, bracketed, plain_url};
#[cfg(feature = "smtp")]
pub(in crate::provider) use trouble::Last;
pub(in crate::provider) use trouble::{Live, Trouble};

use crate::client::Capability;
use crate::error::{Error, Kind, Result};
use crate::message::Delivery;

/// Who is spoken to.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Server {
    /// The provider's name, as in configs and errors.
    pub(in crate::provider) provider: &'static str,
    /// What people call such a server.
    pub(in crate::provider) name: &'static str,
    /// What is said to a user or a password in a URL.
    pub(in crate::provider) no_login: &'static str,
    /// How one of ours is started; empty where there is none.
    pub(in crate::provider) start: &'static str,
    /// What is said when it does not know the endpoint.
    pub(in crate::provider) missing: &'static str,
}

/// What a consumer is told, and may do.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Dialect {
    pub(in crate::provider) server: Server,
    /// Without `ack` a delivery counts as consumed by the server when it was written.
    pub(in crate::provider) capability: Capability,
    /// Reads a pushed frame; the topic is the consumer's own.
    pub(in crate::provider) decode: fn(&Bytes, &Arc<str>) -> Result<Delivery>,
}

/// What a consumer may do more on a connection whose other side agreed to the offered extension.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Extension {
    pub(in crate::provider) capability: Capability,
    /// The frame that gives a delivery back, to come again after this time.
    pub(in crate::provider) nack: fn(&str, Duration) -> String,
}

/// A dialect, and the extension that its target is offered.
#[derive(Debug, Clone, Copy)]
pub(in crate::provider) struct Speech {
    pub(in crate::provider) dialect: Dialect,
    pub(in crate::provider) extension: Option<Extension>,
}

impl From<Dialect> for Speech {
    fn from(dialect: Dialect) -> Speech {
        Speech { dialect, extension: None }
    }
}

impl From<(Dialect, Extension)> for Speech {
    fn from((dialect, extension): (Dialect, Extension)) -> Speech {
        Speech { dialect, extension: Some(extension) }
    }
}

/// The longest body that is copied out of the read buffer: one that is kept long must not pin the rest.
const COPIED_BODY: usize = 16 << 10;

/// A body of its own where it is short, else the view of the frame.
pub(in crate::provider) fn kept(body: Bytes) -> Bytes {
    if body.len() <= COPIED_BODY { Bytes::copy_from_slice(&body) } else { body }
}

/// The topic of a delivery: mostly the consumer's own.
pub(in crate::provider) fn topic_of(topic: &[u8], own: &Arc<str>) -> Arc<str> {
    if topic == own.as_bytes() { own.clone() } else { String::from_utf8_lossy(topic).as_ref().into() }
}

/// Whether trying again without a change would end the same.
pub(in crate::provider) fn permanent(error: &Error) -> bool {
    !error.retryable() || error.kind() == Kind::Protocol
}

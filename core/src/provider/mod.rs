//! The list of providers: one file or folder for each outside system; `socket` is what several share.

pub mod dpmq;
pub mod kapokmq;
pub mod memory;
mod socket;

use std::time::Duration;

use crate::config::{ClientConfig, Connect, WhenDisconnected};
use crate::intake::Limits;

/// What every provider is opened with, beside its own section of the config.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The id in the registry: for logs and for the default of a wire's client id.
    pub id: String,
    /// What the intake may hold, and the deadline of a call that names none.
    pub limits: Limits,
    /// Whether open waits for the first connection.
    pub connect: Connect,
    /// How long open waits for it.
    pub connect_timeout: Duration,
    /// What a send does while there is no connection.
    pub when_disconnected: WhenDisconnected,
}

impl Setup {
    /// The setup that a client's config asks for.
    pub fn from_config(id: &str, config: &ClientConfig) -> Setup {
        Setup {
            id: id.to_owned(),
            limits: config.limits(),
            connect: config.connect,
            connect_timeout: config.connect_timeout.0,
            when_disconnected: config.when_disconnected,
        }
    }
}

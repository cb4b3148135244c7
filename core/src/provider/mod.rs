//! The list of providers: one file or folder for each outside system; `socket` and `http` are what several share.

pub mod callback;
pub mod dingtalk;
pub mod dpmq;
mod http;
pub mod kapokmq;
pub mod memory;
pub mod sms;
#[cfg(feature = "smtp")]
pub mod smtp;
mod socket;
pub mod webhook;

use std::time::Duration;

use crate::clock::Clock;
use crate::config::{ClientConfig, Connect, WhenDisconnected};
use crate::intake::Limits;
use crate::random::Random;

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
    /// The time that signatures and mails bear.
    pub clock: Clock,
    /// What nonces, waits and the choice among nodes are drawn from. Names that no other process may have, as client ids
    /// and those of mails, are the system's.
    pub random: Random,
}

impl Setup {
    /// The setup that a client's config asks for.
    pub fn from_config(id: &str, config: &ClientConfig) -> Setup {
        Setup {
            id: id.to_owned(),
            limits: config.limits(),
            connect: config.connect.unwrap_or_default(),
            connect_timeout: config.connect_timeout.0,
            when_disconnected: config.when_disconnected.unwrap_or_default(),
            clock: Clock::from_system(),
            random: Random::from_system(),
        }
    }
}

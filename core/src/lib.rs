//! The core of ceiba.

pub mod broker;
pub mod client;
pub mod completion;
pub mod config;
pub mod error;
pub mod intake;
pub mod message;
pub mod provider;
pub mod secret;
pub mod wire;

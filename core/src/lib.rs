//! The core of ceiba.

pub mod broker;
pub mod calls;
pub mod client;
pub mod clock;
pub mod completion;
pub mod config;
pub mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod intake;
pub mod log_line;
pub mod message;
pub mod metrics;
pub mod open;
pub mod provider;
pub mod random;
pub mod registry;
pub mod runtime;
pub mod secret;
pub mod settings;
pub mod strategy;
pub mod template;
pub mod tls;
pub mod wire;

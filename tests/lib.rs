//! What the tests of this folder share: a proxy that fails on demand, the frames that pass it, the broker's
//! console, a mail server, an HTTP server, a Redis, a registry of brokers, and the program `ceiba` as a child process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod console;
pub mod frames;
pub mod http;
pub mod mail;
pub mod program;
pub mod proxy;
pub mod redis;
pub mod registry;

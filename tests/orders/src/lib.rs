//! The state that many sends of a strategy share, explored by loom in every order of its steps. The sources are those
//! of the core.

#![cfg(test)]
#![allow(dead_code)]

#[path = "../../../core/src/strategy/breaker.rs"]
mod breaker;
#[path = "../../../core/src/strategy/current.rs"]
mod current;
#[path = "../../../core/src/strategy/sync.rs"]
mod sync;
#[path = "../../../core/src/strategy/timed.rs"]
mod timed;

//! The queue of leases alone: single rules, random lives against a simple model, and what a message costs.

mod bench;
mod memory;
mod rules;
mod simulation;

use bench::{Bench, draft};

//! What a broker with a data folder still has after it was killed, after the power went, and when disk or files
//! run short: the real program in a process of its own, under load.
//!
//! `CEIBA_CRASH_CYCLES` and `CEIBA_POWER_CYCLES` ask for more cycles; `CEIBA_CRASH_SEED` repeats a run.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod broker;
mod crash;
mod crowd;
mod ledger;
mod load;
mod mns;
mod mounts;
mod outbox;
mod power;
mod raw;
mod restart;
mod shortage;

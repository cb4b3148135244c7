//! What happens to calls when the other side fails: a broker that is killed, one that restarts, a peer that is
//! silent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod ledger;
mod reconnect;
mod restart;

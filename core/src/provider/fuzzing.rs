//! Checks of what servers tell their clients against any bytes, for fuzzing.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use super::{dpmq, kapokmq};

/// The address of a node, as a registry tells it, and a pushed frame as it becomes a delivery.
pub(crate) fn provider_texts(data: &[u8]) {
    kapokmq::fuzzing::node(data);
    kapokmq::fuzzing::delivery(data);
    dpmq::fuzzing::delivery(data);
}

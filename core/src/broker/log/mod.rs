//! The log: see `record`.
#![allow(dead_code, reason = "the topics are not moved onto it yet")]

pub(super) mod record;

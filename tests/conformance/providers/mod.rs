//! What each provider brings.

pub(crate) mod dpmq;
pub(crate) mod kapokmq;
pub(crate) mod memory;
pub(crate) mod smtp;

//! What each provider brings.

pub(crate) mod kapokmq;
pub(crate) mod memory;

//! What each provider brings.

pub(crate) mod callback;
pub(crate) mod dpmq;
pub(crate) mod http;
pub(crate) mod kapokmq;
pub(crate) mod memory;
pub(crate) mod smtp;
pub(crate) mod stack;

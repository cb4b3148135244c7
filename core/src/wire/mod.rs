//! Pure codecs of the wires: no input or output, no state beyond a frame.

pub mod dingtalk;
pub mod dpmq;
pub mod kapokmq;
pub mod sign;
pub mod sms;
pub mod smtp;
pub mod webhook;

mod escape;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod json;
mod path;

pub(crate) use escape::push_quoted;
pub(crate) use json::mended;

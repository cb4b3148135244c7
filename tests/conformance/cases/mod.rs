//! The cases. Each starts its own other side and ends with a verdict.

pub(crate) mod body;
pub(crate) mod close;
pub(crate) mod delay;
pub(crate) mod ends;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod state;

//! Rate limits over a real `redis-server`: exact among processes, and bounded when it hangs, dies or lies.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod again;
mod cancel;
mod clock;
mod exact;
mod failures;
mod gate;
mod inner;
mod login;
mod monitor;
mod processes;

//! Checks of what servers push against any bytes, for fuzzing.
#![allow(clippy::panic, clippy::expect_used, reason = "a broken promise ends the run")]

use std::sync::Arc;

use bytes::Bytes;

use super::consumer;

/// A pushed frame, and a time of one by itself.
pub(crate) fn delivery(data: &[u8]) {
    let own = Arc::from("t");
    if let Ok(delivery) = consumer::delivery(&Bytes::copy_from_slice(data), &own) {
        assert!(!delivery.code.is_empty());
    }
    let _ = consumer::created(data);
}

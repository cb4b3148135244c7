//! What is this wire's own of a consumer.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::section::{Place, Settings};
use super::{MAX_FRAME, PROVIDER, SERVER};
use crate::client::{Capability, Consumer};
use crate::error::{Error, Kind, Result};
use crate::message::{Delivery, Message};
use crate::provider::Setup;
use crate::provider::socket::{self, Dialect, Dialer, Extension, kept, topic_of};
use crate::wire::kapokmq::{decode_push, encode_nack};

/// On a broker that speaks the extension.
const EXTENSION: Extension = Extension {
    capability: Capability { message_id: true, nack: true, attempt: true, ..DIALECT.capability },
    nack: |code, delay| {
        // Never earlier than asked for.
        let whole = u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        encode_nack(code, whole)
    },
};

const DIALECT: Dialect = Dialect {
    server: SERVER,
    capability: Capability {
        delay_unit: Some(Duration::from_secs(1)),
        binary_body: false,
        ordered: true,
        message_id: false,
        ack: true,
        nack: false,
        attempt: false,
        redelivery: true,
        max_body: Some(MAX_FRAME as u64 - 64),
    },
    decode: delivery,
};

/// Starts the task, and unless open is lazy waits for the first connection.
pub(super) async fn open(
    setup: &Setup,
    settings: Settings,
    dialer: Arc<Dialer>,
) -> Result<Arc<dyn Consumer>> {
    let Place::One(target) = settings.place else {
        return Err(Error::new(Kind::Unsupported, "a consumer connects to one broker").by(PROVIDER));
    };
    let keys = (settings.pace, settings.prefetch);
    socket::open(setup, (DIALECT, EXTENSION), (target, settings.topic), dialer, keys).await
}

pub(super) fn delivery(frame: &Bytes, own_topic: &Arc<str>) -> Result<Delivery> {
    let push = decode_push(frame)?;
    let created = u64::try_from(push.create_time)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    let mut message = Message::new(kept(push.body));
    if push.key.is_some() {
        message.fields_mut().key = push.key;
    }
    Ok(Delivery {
        topic: topic_of(&push.topic, own_topic),
        message,
        code: push.code,
        created,
        attempt: push.attempt,
    })
}

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
use crate::provider::socket::{self, Dialect, Dialer, kept, topic_of};
use crate::wire::kapokmq::decode_push;

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
    socket::open(setup, DIALECT, (target, settings.topic), dialer, keys).await
}

fn delivery(frame: &Bytes, own_topic: &Arc<str>) -> Result<Delivery> {
    let push = decode_push(frame)?;
    let created = u64::try_from(push.create_time)
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    Ok(Delivery {
        topic: topic_of(&push.topic, own_topic),
        message: Message::new(kept(push.body)),
        code: push.code,
        created,
        attempt: None,
    })
}

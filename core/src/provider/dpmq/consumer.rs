//! What is this wire's own of a consumer.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use chrono::{Local, NaiveDateTime, TimeZone};

use super::section::Settings;
use super::{MAX_BODY, SERVER};
use crate::client::{Capability, Consumer};
use crate::error::Result;
use crate::message::{Delivery, Message};
use crate::provider::Setup;
use crate::provider::socket::{self, Dialect, Dialer, kept, topic_of};
use crate::wire::dpmq::decode_push;

/// What both sides can do. A producer keeps its order over one connection only.
pub(super) const CAPABILITY: Capability = Capability {
    delay_unit: None,
    binary_body: false,
    ordered: true,
    message_id: true,
    ack: false,
    nack: false,
    attempt: false,
    redelivery: false,
    max_body: Some(MAX_BODY as u64),
};

const DIALECT: Dialect = Dialect { server: SERVER, capability: CAPABILITY, decode: delivery };

/// Starts the task, and unless open is lazy waits for the first connection.
pub(super) async fn open(
    setup: &Setup,
    settings: Settings,
    dialer: Arc<Dialer>,
) -> Result<Arc<dyn Consumer>> {
    let keys = (settings.pace, settings.prefetch);
    socket::open(setup, DIALECT, (settings.target, settings.topic), dialer, keys).await
}

pub(super) fn delivery(frame: &Bytes, own_topic: &Arc<str>) -> Result<Delivery> {
    let push = decode_push(frame)?;
    Ok(Delivery {
        topic: topic_of(&push.topic, own_topic),
        created: created(&push.create_time),
        message: Message::new(kept(push.body)),
        code: push.code,
        attempt: None,
    })
}

/// The wire tells no time zone: the server's is taken for this machine's.
pub(super) fn created(text: &[u8]) -> Option<SystemTime> {
    let text = std::str::from_utf8(text).ok()?;
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?;
    Local.from_local_datetime(&time).earliest().map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_frame_becomes_a_delivery() {
        let time = Local::now().format("%Y-%m-%d %H:%M:%S").to_string();
        let frame = format!(
            r#"{{"MessageCode":"c","MessageData":"a\nb","Topic":"t","CreateTime":"{time}","Status":1}}"#
        );
        let own: Arc<str> = Arc::from("t");
        let got = delivery(&Bytes::from(frame), &own).unwrap();
        assert_eq!((&got.message.body()[..], &*got.topic, &*got.code), (&b"a\nb"[..], "t", "c"));
        let age = SystemTime::now().duration_since(got.created.unwrap()).unwrap();
        assert!(age.as_secs() <= 2, "{age:?}");
        assert_eq!(created(b"yesterday"), None);
    }
}

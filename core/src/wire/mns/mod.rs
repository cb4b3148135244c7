//! The MNS wire: HTTP requests with XML bodies, each with a signature. Both sides of it.
//!
//! [`Operation`] is a request before it is signed: a client encodes one, a server decodes it. What comes back is in
//! `message` (of messages), `meta` (of queues, topics and subscriptions) and `refusal` (of what was not done); `sign` has
//! the headers, `code` the table of codes, `xml` reads and writes documents within bounds.

mod code;
mod message;
mod meta;
mod notice;
mod operation;
mod refusal;
#[cfg(test)]
mod round_trip;
mod sign;
#[cfg(test)]
mod vectors;
mod xml;

use crate::error::{Error, Kind, Result};

pub use code::{Code, error, status_error};
pub use message::{
    ATTRIBUTES, Entry, Outgoing, Property, Received, Sent, Unread, Visibility, decode_batch,
    decode_each_received, decode_received, decode_received_batch, encode_batch, encode_received,
    encode_received_batch,
};
pub use meta::{
    Listed, Named, QueueAttributes, QueueMeta, SubscriptionAttributes, SubscriptionMeta, TopicAttributes,
    TopicMeta, decode_list, encode_list,
};
pub use notice::{Notice, encode_account, encode_order};
pub use operation::{Listing, Operation, Request};
pub use refusal::{Failure, NotDecoded, Refusal, decode_failures, encode_failures};
pub use sign::{
    Account, CONTENT_TYPE, Signable, TIME_WINDOW, VERSION, body_md5, content_md5, headers, is_body_md5,
    is_content_md5, is_signature, presented, signature, string_to_sign,
};
pub use xml::{MAX_DEPTH, MAX_DOCUMENT, MAX_ELEMENTS, Malformed, NAMESPACE, is_text};

/// The most messages of a batch.
pub const MAX_BATCH: usize = 16;
/// The longest body of a message in bytes, as it is on the wire, unless a queue or topic says otherwise; and of all
/// bodies of a batch together.
pub const MAX_BODY: usize = 64 << 10;
/// The longest delay of a message, in seconds.
pub const MAX_DELAY: u32 = 604_800;
/// How long a received message may be hidden from others, in seconds.
pub const VISIBILITY: std::ops::RangeInclusive<u32> = 1..=43_200;
/// How long a receive may wait for a message, in seconds.
pub const MAX_WAIT: u32 = 30;
/// The priorities of messages; the lower number comes first.
pub const PRIORITIES: std::ops::RangeInclusive<u32> = 1..=16;
/// The priority of a message that names none.
pub const DEFAULT_PRIORITY: u32 = 8;
/// The longest name of a queue, a topic or a subscription.
pub const MAX_NAME: usize = 256;
/// The most names of one answer to a listing.
pub const MAX_LISTED: u32 = 1000;

/// Whether a queue, topic or subscription can have this name.
pub fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

impl From<Malformed> for Error {
    fn from(Malformed(what): Malformed) -> Error {
        Error::new(Kind::Protocol, format!("the answer is not one of MNS: {what}"))
    }
}

fn missing<T>(value: Option<T>) -> Result<T, Malformed> {
    value.ok_or(Malformed("an element is missing"))
}

fn root<'a>(document: &'a [u8], name: &str) -> Result<xml::Node<'a>, Malformed> {
    let root = xml::read(document)?;
    if root.name == name { Ok(root) } else { Err(Malformed("the root is another element")) }
}

//! The DPMQ wire, both sides: a form by HTTP for each message, its reply, and the frames that a server pushes.
//!
//! Nothing here reads or writes a socket. A reply has HTTP status 200 whether the message was taken or not.

mod push;
mod reply;
mod send;

pub use push::{Push, PushText, decode_push, encode_push_line};
pub use reply::{Reply, decode_reply, encode_reply, is_settings};
pub use send::{SendForm, encode_send};

use crate::error::{Error, Kind, Result};
use crate::wire::path::path;

/// Where messages are sent, by POST.
pub const SEND_PATH: &str = "/ProducerSend";
/// Where the consumers are told, by GET.
pub const CONSUMERS_PATH: &str = "/Console/GetConsumers";
/// Where the settings are told, by GET.
pub const SETTINGS_PATH: &str = "/Console/GetConfig";
/// Field of a form with the body.
pub const DATA_FIELD: &str = "messageData";
/// Field of a form with the topic.
pub const TOPIC_FIELD: &str = "topic";
/// What neither a topic nor a consumer's id may hold.
pub const FORBIDDEN: char = '|';
/// `Status` of every pushed message.
pub const PUSHED: i64 = 0;
/// Digits of a message code.
pub const CODE_DIGITS: usize = 40;

/// The refusal of a topic that holds [`FORBIDDEN`]: the original's text.
pub const BAD_TOPIC: &str = "topic不能包含字符“|”";
/// The refusal of a consumer's id that holds [`FORBIDDEN`].
pub const BAD_CONSUMER: &str = "consumersId不能包含字符“|”";
/// The refusal of an empty topic, which the original takes and loses.
pub const EMPTY_TOPIC: &str = "topic不能为空";
/// The refusal of a topic whose name is too long.
pub const LONG_TOPIC: &str = "topic过长";
/// The refusal of a message that is longer than the server takes.
pub const LONG_MESSAGE: &str = "messageData过长";
/// The refusal of a message that there is no room for now.
pub const NO_ROOM: &str = "消息队列已满";
/// The refusal of a message for which the disk has no room now.
pub const NO_DISK: &str = "磁盘空间不足";
/// The refusal of one topic more than the server holds.
pub const TOO_MANY_TOPICS: &str = "topic数量已达上限";

/// The path of a consumer connection, percent-encoded.
///
/// # Errors
/// `invalid_config` when topic or id is empty or holds a `/` or a `|`.
pub fn consumer_path(topic: &str, client_id: &str) -> Result<String> {
    for (name, value) in [("topic", topic), ("client_id", client_id)] {
        if value.contains(FORBIDDEN) {
            let text = format!("`{name}` is `{value}`: a `{FORBIDDEN}` cannot be carried by the dpmq wire");
            return Err(Error::new(Kind::InvalidConfig, text));
        }
    }
    path("dpmq", "/ConsumersConn", topic, client_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_encoded_and_what_no_server_takes_is_named() {
        assert_eq!(consumer_path("木 t", "a?b#c%").unwrap(), "/ConsumersConn/%E6%9C%A8%20t/a%3Fb%23c%25");
        for (topic, id, name) in
            [("", "c", "topic"), ("t", "", "client_id"), ("a/b", "c", "topic"), ("t", "a|b", "client_id")]
        {
            let error = consumer_path(topic, id).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidConfig);
            assert!(error.message().contains(name), "{error}");
        }
    }
}

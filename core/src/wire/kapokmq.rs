//! The KapokMQ wire, both sides: paths, login texts, and the frames of producers and consumers.
//!
//! Nothing here reads or writes a socket. Decoders of the server's side take what the original server takes
//! (keys in any case, lone surrogates, extra keys) and refuse what it refuses.
//!
//! A client may offer an extension of ours by the header `Ceiba-Wire: 1` in its handshake. A server that knows
//! it answers with the same header, and on that connection
//! - a producer's frame may have a `Key`, and its answer is `ok <MessageCode>` or `no <kind> <text>`,
//! - a pushed frame has an `Attempt`, and the `Key` where there is one, behind the fields of the original,
//! - a consumer may give a delivery back with the frame `nack <MessageCode> <milliseconds>`,
//! - a consumer whose handshake has `Ceiba-Subscription: durable` keeps its subscription while it is away.
//!
//! Without the header all is as the original has it, byte by byte.

mod answer;
mod node;
mod path;
mod push;
mod send;

pub use answer::{Answer, decode_answer, decode_nack, encode_nack, push_accepted, push_refused};
pub use node::{Node, decode_nodes, encode_nodes};
pub use path::{consumer_path, producer_path};
pub use push::{Push, PushText, decode_push, encode_extended_push_line, encode_push, encode_push_line};
pub use send::{
    MAX_DELAY, MAX_KEY, SendFrame, decode_extended_send, decode_send, delay_seconds, encode_keyed_send,
    encode_send,
};

/// What the server asks for first, and again after a wrong key.
pub const PROMPT: &str = "Please enter the secret key";
/// What the server answers to the right key.
pub const LOGIN_OK: &str = "Secret key matching succeeded";
/// What the server answers to a wrong key, before it asks again.
pub const LOGIN_ERROR: &str = "Secret key matching error";
/// What the server answers to each message it accepted.
pub const ACK: &str = "ok";
/// The header of a handshake that offers and accepts the extension.
pub const EXTENSION_HEADER: &str = "ceiba-wire";
/// The version of the extension.
pub const EXTENSION_VERSION: &str = "1";
/// The header of a consumer's handshake that says what its subscription is.
pub const SUBSCRIPTION_HEADER: &str = "ceiba-subscription";
/// A subscription that is kept while its consumer is away.
pub const DURABLE: &str = "durable";
/// The header that carries the key of an HTTP request.
pub const SECRET_HEADER: &str = "secretKey";
/// Where a registry tells its nodes, by POST.
pub const REGISTRY_PATH: &str = "/Registry/GetNodes";
/// `Status` of a message that waits for a consumer or for its ack.
pub const WAITING: i64 = -1;
/// `Status` of a message whose delay has not passed.
pub const DELAYED: i64 = 0;
/// `Status` of a message that was acknowledged.
pub const CONSUMED: i64 = 1;

//! The KapokMQ wire, both sides: paths, login texts, and the frames of producers and consumers.
//!
//! Nothing here reads or writes a socket. Decoders of the server's side take what the original server takes
//! (keys in any case, lone surrogates, extra keys) and refuse what it refuses.

mod node;
mod path;
mod push;
mod send;

pub use node::{Node, decode_nodes, encode_nodes};
pub use path::{consumer_path, producer_path};
pub use push::{Push, PushText, decode_push, encode_push, encode_push_line};
pub use send::{MAX_DELAY, SendFrame, decode_send, delay_seconds, encode_send};

/// What the server asks for first, and again after a wrong key.
pub const PROMPT: &str = "Please enter the secret key";
/// What the server answers to the right key.
pub const LOGIN_OK: &str = "Secret key matching succeeded";
/// What the server answers to a wrong key, before it asks again.
pub const LOGIN_ERROR: &str = "Secret key matching error";
/// What the server answers to each message it accepted.
pub const ACK: &str = "ok";
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

//! Paths whose last two segments name a topic and a client.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, Kind, Result};

/// All but the characters that RFC 3986 calls unreserved.
pub(in crate::wire) const RESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The path, percent-encoded; `wire` is named in errors.
///
/// # Errors
/// `invalid_config` when topic or id is empty or holds a `/`: a server answers such a path with 404.
pub(in crate::wire) fn path(wire: &str, prefix: &str, topic: &str, client_id: &str) -> Result<String> {
    for (name, value) in [("topic", topic), ("client_id", client_id)] {
        if value.is_empty() {
            return Err(Error::new(Kind::InvalidConfig, format!("`{name}` is empty")));
        }
        if value.contains('/') {
            let text = format!("`{name}` is `{value}`: a `/` cannot be carried by the {wire} wire");
            return Err(Error::new(Kind::InvalidConfig, text));
        }
    }
    let topic = utf8_percent_encode(topic, RESERVED);
    let client_id = utf8_percent_encode(client_id, RESERVED);
    Ok(format!("{prefix}/{topic}/{client_id}"))
}

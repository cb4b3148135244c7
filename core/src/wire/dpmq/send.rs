//! The form of a message.

use percent_encoding::utf8_percent_encode;

use super::{DATA_FIELD, TOPIC_FIELD};
use crate::wire::path::RESERVED;

/// The longest url-encoded form. The original reads 10 MB of one and takes what is longer for an empty form:
/// it would answer that the message was taken, and lose it. Longer ones go as multipart, which has no such end.
const URL_ENCODED: usize = 8 << 20;

/// A form, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendForm {
    /// The `Content-Type` of the request.
    pub content_type: String,
    /// The body of the request.
    pub body: Vec<u8>,
}

/// Encodes the form of one message. `boundary` separates the parts of a long one: it must not be in the data,
/// and consist of letters and digits.
pub fn encode_send(data: &str, topic: &str, boundary: impl Fn() -> String) -> SendForm {
    if encoded_len(data) <= URL_ENCODED { url_encoded(data, topic) } else { multipart(data, topic, boundary) }
}

fn encoded_len(text: &str) -> usize {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.len() + 2 * text.bytes().filter(|byte| !plain(byte)).count()
}

fn url_encoded(data: &str, topic: &str) -> SendForm {
    let mut body = Vec::with_capacity(data.len() + topic.len() + 32);
    for (name, value) in [(TOPIC_FIELD, topic), (DATA_FIELD, data)] {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(name.as_bytes());
        body.push(b'=');
        for part in utf8_percent_encode(value, RESERVED) {
            body.extend_from_slice(part.as_bytes());
        }
    }
    SendForm { content_type: "application/x-www-form-urlencoded".to_owned(), body }
}

fn multipart(data: &str, topic: &str, boundary: impl Fn() -> String) -> SendForm {
    let boundary = boundary();
    let mut body = Vec::with_capacity(data.len() + topic.len() + 512);
    for (name, value) in [(TOPIC_FIELD, topic), (DATA_FIELD, data)] {
        let head = format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value.as_bytes());
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    SendForm { content_type: format!("multipart/form-data; boundary={boundary}"), body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_url_encoded() {
        let form = encode_send("a b&c=木+%\n", "t|1", || panic!("no parts"));
        assert_eq!(form.content_type, "application/x-www-form-urlencoded");
        assert_eq!(form.body, b"topic=t%7C1&messageData=a%20b%26c%3D%E6%9C%A8%2B%25%0A");
        assert_eq!(encoded_len("a b&c=木+%\n"), "a%20b%26c%3D%E6%9C%A8%2B%25%0A".len());
    }

    #[test]
    fn a_long_one_goes_in_parts() {
        let data = "<".repeat(URL_ENCODED / 3 + 1);
        let form = encode_send(&data, "t", || "b0".to_owned());
        assert_eq!(form.content_type, "multipart/form-data; boundary=b0");
        let text = String::from_utf8(form.body).unwrap();
        let expected = format!(
            "--b0\r\nContent-Disposition: form-data; name=\"topic\"\r\n\r\nt\r\n\
             --b0\r\nContent-Disposition: form-data; name=\"messageData\"\r\n\r\n{data}\r\n--b0--\r\n"
        );
        assert!(text == expected);
        assert!(encode_send(&"<".repeat(URL_ENCODED / 3), "t", || panic!()).body.len() < URL_ENCODED + 100);
    }
}

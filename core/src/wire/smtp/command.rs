//! What a client writes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Features;

/// Ends the data: a line with a dot alone. What came before ends with a line end.
pub const END_OF_DATA: &[u8] = b".\r\n";

/// `EHLO`, with a name that holds no control character.
pub fn ehlo(name: &str) -> String {
    format!("EHLO {name}\r\n")
}

/// `MAIL`, with the size where the server takes one.
pub fn mail_from(address: &str, size: usize, features: &Features) -> String {
    match features.size {
        Some(_) => format!("MAIL FROM:<{address}> SIZE={size}\r\n"),
        None => format!("MAIL FROM:<{address}>\r\n"),
    }
}

/// `RCPT`.
pub fn rcpt_to(address: &str) -> String {
    format!("RCPT TO:<{address}>\r\n")
}

/// `AUTH PLAIN` with all it needs.
pub fn auth_plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}\r\n", STANDARD.encode(format!("\0{user}\0{password}")))
}

/// One answer of `AUTH LOGIN`: the user, then the password.
pub fn auth_login(text: &str) -> String {
    format!("{}\r\n", STANDARD.encode(text))
}

/// A message as data: each line ends with CR and LF, whatever it ended with before, and a dot at the start of a line
/// is doubled. So nothing in it can end the data.
pub fn data(message: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(message.len() + message.len() / 32 + 2);
    let mut line_start = true;
    let mut bytes = message.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' | b'\n' => {
                if byte == b'\r' {
                    bytes.next_if_eq(&b'\n');
                }
                data.extend_from_slice(b"\r\n");
                line_start = true;
            }
            _ => {
                if line_start && byte == b'.' {
                    data.push(b'.');
                }
                data.push(byte);
                line_start = false;
            }
        }
    }
    if !line_start || data.is_empty() {
        data.extend_from_slice(b"\r\n");
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_message_ends_the_data() {
        for (message, wanted) in [
            ("", "\r\n"),
            ("a", "a\r\n"),
            ("a\r\n", "a\r\n"),
            (".", "..\r\n"),
            ("a\n.\nb", "a\r\n..\r\nb\r\n"),
            ("a\r.\rb", "a\r\n..\r\nb\r\n"),
            ("a\r\n.\r\nb", "a\r\n..\r\nb\r\n"),
            ("a\n\r.\r\n", "a\r\n\r\n..\r\n"),
            ("a\r\r\n.\r\n", "a\r\n\r\n..\r\n"),
        ] {
            assert_eq!(String::from_utf8(data(message.as_bytes())).unwrap(), wanted, "{message:?}");
        }
    }

    #[test]
    fn credentials_are_encoded() {
        // The example of RFC 4616.
        assert_eq!(auth_plain("tim", "tanstaaftanstaaf"), "AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\r\n");
        assert_eq!(auth_login("tim"), "dGlt\r\n");
    }
}

//! Addresses of mail: `name@example.com` and `A Name <name@example.com>`.

use lettre::Address;
use lettre::message::Mailbox;

use crate::error::{Error, Kind, Result};

/// The longest address with its name that is read, in bytes.
const MAX_TEXT: usize = 1000;
/// The longest local part, in bytes.
const MAX_LOCAL: usize = 64;
/// Characters of a wrong address that are shown.
const SHOWN: usize = 80;

/// Reads one address. `what` says whose it is, for errors.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn mailbox(text: &str, what: &str) -> Result<Mailbox> {
    let shown: String =
        text.chars().take(SHOWN).map(|sign| if sign.is_control() { '?' } else { sign }).collect();
    let wrong = |why: &str| Error::new(Kind::InvalidArgument, format!("{what} `{shown}` {why}"));
    if text.chars().any(char::is_control) {
        return Err(wrong("holds a line end or another control character"));
    }
    if text.len() > MAX_TEXT {
        return Err(wrong("is too long"));
    }
    let text = text.trim();
    let (name, address) = match text.split_once('<') {
        Some((name, rest)) => match rest.strip_suffix('>') {
            Some(address) => (unquoted(name.trim()).ok_or_else(|| wrong("has a wrong name"))?, address),
            None => return Err(wrong("has no `>` at its end")),
        },
        None => (None, text),
    };
    let Some((local, domain)) = address.rsplit_once('@') else {
        return Err(wrong("is no address: there is no `@`"));
    };
    if !local.is_ascii() {
        return Err(wrong("cannot be sent to: it is not ASCII in front of the `@`"));
    }
    let words = || local.split('.').all(|word| !word.is_empty() && word.bytes().all(is_atom));
    if local.len() > MAX_LOCAL || !words() {
        return Err(wrong("is no address: it is wrong in front of the `@`"));
    }
    // No host holds one, and the parser would decode it.
    if domain.contains('%') {
        return Err(wrong("is no address: it is wrong behind the `@`"));
    }
    // Hosts in other scripts are written in ASCII on the wire.
    let domain = match url::Host::parse(domain) {
        Ok(url::Host::Domain(domain)) if is_domain(&domain) => domain,
        // `[127.0.0.1]`: hosts that are numbers stand in brackets.
        _ => match domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(number) if number.parse::<std::net::Ipv4Addr>().is_ok() => domain.to_owned(),
            _ => return Err(wrong("is no address: it is wrong behind the `@`")),
        },
    };
    let address = Address::new(local, domain).map_err(|_| wrong("is no address"))?;
    Ok(Mailbox::new(name, address))
}

/// Reads a list with commas between the addresses.
///
/// # Errors
/// `invalid_argument`.
pub(super) fn mailboxes(text: &str, what: &str) -> Result<Vec<Mailbox>> {
    split(text).into_iter().map(|one| mailbox(one, what)).collect()
}

/// The parts of a list. A comma within quotes is part of a name.
pub(super) fn split(text: &str) -> Vec<&str> {
    let mut quoted = false;
    let mut escaped = false;
    let parts = text.split(move |sign| {
        let was_escaped = escaped;
        escaped = quoted && sign == '\\' && !was_escaped;
        if sign == '"' && !was_escaped {
            quoted = !quoted;
        }
        sign == ',' && !quoted
    });
    // Line ends stay, to be refused.
    parts.map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty()).collect()
}

// A name without its quotes; none where there is none.
fn unquoted(name: &str) -> Option<Option<String>> {
    if name.is_empty() {
        return Some(None);
    }
    let Some(rest) = name.strip_prefix('"') else {
        return (!name.contains(['"', '<', '>'])).then(|| Some(name.to_owned()));
    };
    let mut text = String::new();
    let mut signs = rest.chars();
    loop {
        match signs.next()? {
            '\\' => text.push(signs.next()?),
            '"' => return signs.as_str().is_empty().then_some(Some(text)),
            sign => text.push(sign),
        }
    }
}

fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_domain(domain: &str) -> bool {
    domain.len() <= 253
        && domain.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        for (text, name, address) in [
            ("a@example.com", None, "a@example.com"),
            (" <a@example.com> ", None, "a@example.com"),
            ("Zoë Müller <z.m+x@example.com>", Some("Zoë Müller"), "z.m+x@example.com"),
            ("\"Doe, \\\"J\\\" <x>\" <j@example.com>", None, ""),
            ("\"Doe, John\" <j@example.com>", Some("Doe, John"), "j@example.com"),
            ("a@bücher.example", None, "a@xn--bcher-kva.example"),
            ("root@localhost", None, "root@localhost"),
            ("a@[127.0.0.1]", None, "a@[127.0.0.1]"),
        ] {
            if address.is_empty() {
                mailbox(text, "recipient").unwrap_err();
                continue;
            }
            let read = mailbox(text, "recipient").unwrap();
            assert_eq!((read.name.as_deref(), read.email.to_string().as_str()), (name, address));
        }
        let list = mailboxes("\"Doe, John\" <j@example.com>, a@example.com,", "cc").unwrap();
        assert_eq!(list.len(), 2);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(65));
        for text in [
            "",
            "a",
            "@example.com",
            "a@",
            "a b@example.com",
            "a@exa mple.com",
            "a@example.com, b@example.com",
            "a@b@example.com",
            "a@example.com\r\nBcc: b@example.com",
            "a\0@example.com",
            "<a@example.com",
            "a@example.com>",
            "a..b@example.com",
            ".a@example.com",
            "a@example..com",
            "a@-> x",
            "ä@example.com",
            "a@[::1",
            "a@127.0.0.1",
            "a@[127.0.0.1",
            "\"a\"@example.com",
            "x <a@example.com> y",
            "a@example.com> SIZE=1",
            "a@exämple_.com",
            "a@example%2ecom",
            "a@%65xample.com",
            &long,
        ] {
            let error = mailbox(text, "recipient").err().unwrap_or_else(|| panic!("{text:?} was taken"));
            assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
            assert!(!error.message().contains(['\r', '\n', '\0']), "{error}");
        }
    }
}

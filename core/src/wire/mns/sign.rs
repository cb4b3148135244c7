//! How requests are signed: HMAC-SHA-1 over method, digest, type, date, the headers of the service and the resource.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use ring::hmac;

use super::Request;
use crate::wire::sign::{base64, hex};

/// The version of the protocol, as its header tells it.
pub const VERSION: &str = "2015-06-06";
/// The type of every body.
pub const CONTENT_TYPE: &str = "application/xml";
/// How far the time of a request may be from the server's.
pub const TIME_WINDOW: Duration = Duration::from_secs(15 * 60);

/// Whose name a request is sent in.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    /// Id of the access key.
    pub key_id: &'a str,
    /// Its secret.
    pub key_secret: &'a str,
    /// The token of temporary credentials.
    pub security_token: Option<&'a str>,
}

/// What a signature is of.
#[derive(Debug, Clone, Copy)]
pub struct Signable<'a> {
    /// The method, in capitals.
    pub method: &'a str,
    /// The header `Content-MD5`, empty where there is none.
    pub content_md5: &'a str,
    /// The header `Content-Type`, empty where there is none.
    pub content_type: &'a str,
    /// The header `Date`.
    pub date: &'a str,
    /// Every header whose name begins with `x-mns-`, with its name in lower case.
    pub headers: &'a [(&'a str, &'a str)],
    /// The path with its query, as the request has it.
    pub resource: &'a str,
}

/// The text that is signed.
pub fn string_to_sign(of: &Signable<'_>) -> String {
    let mut lines: Vec<String> =
        of.headers.iter().map(|(name, value)| format!("{name}:{}", value.trim())).collect();
    lines.sort();
    let Signable { method, content_md5, content_type, date, resource, .. } = of;
    format!("{method}\n{content_md5}\n{content_type}\n{date}\n{}\n{resource}", lines.join("\n"))
}

/// The signature.
pub fn signature(key_secret: &str, of: &Signable<'_>) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key_secret.as_bytes());
    base64(hmac::sign(&key, string_to_sign(of).as_bytes()).as_ref())
}

/// Whether a signature is the right one, in time that does not depend on where it differs.
pub fn is_signature(key_secret: &str, of: &Signable<'_>, presented: &str) -> bool {
    let Ok(presented) = STANDARD.decode(presented) else { return false };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key_secret.as_bytes());
    hmac::verify(&key, string_to_sign(of).as_bytes(), &presented).is_ok()
}

/// The access key's id and the signature that a header `Authorization` presents.
pub fn presented(authorization: &str) -> Option<(&str, &str)> {
    let (id, signature) = authorization.strip_prefix("MNS ")?.trim().split_once(':')?;
    (!id.is_empty() && !signature.is_empty()).then_some((id, signature))
}

/// The header `Content-MD5` of a body: Base64 of the hexadecimal digits, as the official SDKs have it.
pub fn content_md5(body: &[u8]) -> String {
    base64(hex(&Md5::digest(body)).as_bytes())
}

/// Whether a header `Content-MD5` is that of the body: of the digits, or of the bytes as RFC 1864 means it.
pub fn is_content_md5(body: &[u8], header: &str) -> bool {
    let digest = Md5::digest(body);
    match STANDARD.decode(header.trim()) {
        Ok(told) => {
            told.as_slice() == digest.as_slice() || told.eq_ignore_ascii_case(hex(&digest).as_bytes())
        }
        Err(_) => false,
    }
}

/// The digest of a message's body as answers tell it: hexadecimal digits in capitals.
pub fn body_md5(body: &[u8]) -> String {
    hex(&Md5::digest(body)).to_ascii_uppercase()
}

/// Whether a digest is that of a message's body.
pub fn is_body_md5(body: &[u8], told: &str) -> bool {
    hex(&Md5::digest(body)).eq_ignore_ascii_case(told.trim())
}

/// Every header of a request but `Host` and `Content-Length`, the names in lower case. The request's own body may have
/// been taken out: `body` is what is sent. `time` is the request's.
pub fn headers(
    account: Account<'_>,
    request: &Request,
    body: &[u8],
    time: SystemTime,
) -> Vec<(&'static str, String)> {
    let date = httpdate::fmt_http_date(time);
    let digest = content_md5(body);
    let mut own = vec![("x-mns-version", VERSION)];
    own.extend(request.headers.iter().map(|(name, value)| (*name, value.as_str())));
    let signature = signature(
        account.key_secret,
        &Signable {
            method: request.method,
            content_md5: &digest,
            content_type: CONTENT_TYPE,
            date: &date,
            headers: &own,
            resource: &request.resource,
        },
    );
    let mut headers = vec![
        ("content-type", CONTENT_TYPE.to_owned()),
        ("authorization", format!("MNS {}:{signature}", account.key_id)),
    ];
    headers.extend(own.into_iter().map(|(name, value)| (name, value.to_owned())));
    headers.push(("date", date));
    headers.push(("content-md5", digest));
    if let Some(token) = account.security_token {
        headers.push(("security-token", token.to_owned()));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_digests() {
        // From RFC 1321, appendix A.5.
        assert_eq!(body_md5(b"abc"), "900150983CD24FB0D6963F7D28E17F72");
        assert!(is_body_md5(b"abc", "900150983cd24fb0d6963f7d28e17f72") && !is_body_md5(b"abd", ""));
        let header = content_md5(b"abc");
        assert_eq!(header, "OTAwMTUwOTgzY2QyNGZiMGQ2OTYzZjdkMjhlMTdmNzI=");
        assert!(is_content_md5(b"abc", &header) && is_content_md5(b"abc", "kAFQmDzST7DWlj99KOF/cg=="));
        assert!(
            !is_content_md5(b"abd", &header) && !is_content_md5(b"abc", "") && !is_content_md5(b"abc", "?")
        );
    }

    #[test]
    fn a_signature_is_checked_as_it_is_made() {
        let of = Signable {
            method: "GET",
            content_md5: "",
            content_type: "",
            date: "d",
            headers: &[("x-mns-version", " v "), ("x-mns-marker", "m")],
            resource: "/queues",
        };
        assert_eq!(string_to_sign(&of), "GET\n\n\nd\nx-mns-marker:m\nx-mns-version:v\n/queues");
        let made = signature("s", &of);
        assert!(is_signature("s", &of, &made) && !is_signature("t", &of, &made));
        assert!(!is_signature("s", &Signable { resource: "/topics", ..of }, &made));
        assert!(!is_signature("s", &of, "") && !is_signature("s", &of, "%"));
    }

    #[test]
    fn what_is_presented() {
        assert_eq!(presented("MNS id:s+/="), Some(("id", "s+/=")));
        for wrong in ["", "MNS", "MNS id", "MNS :s", "MNS id:", "Basic id:s"] {
            assert_eq!(presented(wrong), None, "{wrong}");
        }
    }
}

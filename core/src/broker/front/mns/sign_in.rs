//! Who may ask: the signature of a request's head, its time, and the digest of its body.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};

use super::Front;
use super::answer::{Answer, refused};
use crate::wire::mns::{Code, Signable, TIME_WINDOW, VERSION, is_content_md5, is_signature, presented};

fn text(headers: &HeaderMap, name: impl header::AsHeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Front {
    /// Whether the request of this head may be made.
    pub(super) fn sign_in(&self, method: &str, target: &str, headers: &HeaderMap) -> Result<(), Answer> {
        let checked = self.check(method, target, headers);
        if let Err(Code::InvalidAccessKeyId | Code::SignatureDoesNotMatch) = checked {
            self.hub.counters.failed_logins.fetch_add(1, Ordering::Relaxed);
        }
        checked.map_err(refused)
    }

    fn check(&self, method: &str, target: &str, headers: &HeaderMap) -> Result<(), Code> {
        let authorization = text(headers, header::AUTHORIZATION);
        if authorization.is_empty() {
            return Err(Code::MissingAuthorizationHeader);
        }
        let (id, signature) = presented(authorization).ok_or(Code::InvalidAuthorizationHeader)?;
        let date = text(headers, header::DATE);
        if date.is_empty() {
            return Err(Code::MissingDateHeader);
        }
        let time = httpdate::parse_http_date(date).map_err(|_| Code::InvalidDateHeader)?;
        match text(headers, "x-mns-version") {
            "" => return Err(Code::MissingVersionHeader),
            VERSION => {}
            _ => return Err(Code::InvalidVersionHeader),
        }
        let secret = self.config.keys.get(id).ok_or(Code::InvalidAccessKeyId)?;
        let own: Vec<(&str, &str)> = headers
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-mns-"))
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
            .collect();
        let signable = Signable {
            method,
            content_md5: text(headers, "content-md5"),
            content_type: text(headers, header::CONTENT_TYPE),
            date,
            headers: &own,
            resource: target,
        };
        if !is_signature(secret.expose(), &signable, signature) {
            return Err(Code::SignatureDoesNotMatch);
        }
        if distance(time, SystemTime::now()) > TIME_WINDOW {
            return Err(Code::TimeExpired);
        }
        Ok(())
    }
}

fn distance(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|before| before.duration())
}

/// Whether this is the body that the head tells of.
pub(super) fn body(headers: &HeaderMap, body: &[u8]) -> Result<(), Answer> {
    let digest = text(headers, "content-md5");
    if !digest.is_empty() && !is_content_md5(body, digest) {
        return Err(refused(Code::InvalidDigest));
    }
    let kind = text(headers, header::CONTENT_TYPE).to_ascii_lowercase();
    if !body.is_empty() && !kind.contains("xml") {
        return Err(refused(Code::InvalidContentType));
    }
    Ok(())
}

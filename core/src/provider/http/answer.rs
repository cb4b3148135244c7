//! What came back, and what its status means.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::error::{Error, Kind, Outcome, Result};

/// Waits that an answer names are not longer than this: the sums with the clock must not overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(7 * 86_400);

/// An answer.
#[derive(Debug)]
pub(in crate::provider) struct Answer {
    /// The HTTP status.
    pub(in crate::provider) status: u16,
    /// How long to wait before the next request, where it says so.
    pub(in crate::provider) retry_after: Option<Duration>,
    /// The body, or why there is none.
    pub(in crate::provider) body: Result<Bytes>,
}

impl Answer {
    /// Whether the status is one of success.
    pub(in crate::provider) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The error that the status means, of the server at `label`.
    pub(in crate::provider) fn error(&self, label: &str) -> Error {
        let (kind, retryable, text) = match self.status {
            401 | 407 => (Kind::Authentication, false, "asks for other credentials"),
            402 | 403 => (Kind::Permission, false, "does not allow it"),
            404 | 410 => (Kind::NotFound, false, "has nothing there"),
            408 | 425 => (Kind::Unavailable, true, "asks to try again"),
            413 | 414 | 431 => (Kind::TooLarge, false, "takes no request of this size"),
            429 => (Kind::Throttled, true, "asks for fewer requests"),
            300..=399 => (Kind::Protocol, false, "leads elsewhere, which is not followed"),
            400..=499 => (Kind::InvalidArgument, false, "refuses the request"),
            501 | 505 => (Kind::Unsupported, false, "does not know such requests"),
            500..=599 => (Kind::Unavailable, true, "is out of order"),
            _ => (Kind::Protocol, false, "gives an answer that is not one of success"),
        };
        let error = Error::new(kind, format!("{label} {text} (HTTP status {})", self.status));
        let error = error.retryable_is(retryable).outcome_is(self.outcome());
        match self.retry_after {
            Some(wait) if retryable => error.after(wait),
            _ => error,
        }
    }

    // A server that says what it did not do is believed; one that failed may have failed after it was done. Many that
    // did what was asked lead on to a page that says so; and a 503 is of one that turned it away only where it says when
    // to come again: others come from a proxy that lost the server behind it.
    fn outcome(&self) -> Outcome {
        match self.status {
            400..=499 | 501 | 505 => Outcome::NotSent,
            503 if self.retry_after.is_some() => Outcome::NotSent,
            _ => Outcome::Unknown,
        }
    }
}

/// The wait that a header names: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are a long wait too.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer { status, retry_after: Some(Duration::from_secs(7)), body: Ok(Bytes::new()) }
    }

    #[test]
    fn each_status_has_its_kind() {
        use Outcome::{NotSent, Unknown};
        for (status, kind, retryable, outcome) in [
            (301, Kind::Protocol, false, Unknown),
            (302, Kind::Protocol, false, Unknown),
            (303, Kind::Protocol, false, Unknown),
            (400, Kind::InvalidArgument, false, NotSent),
            (401, Kind::Authentication, false, NotSent),
            (403, Kind::Permission, false, NotSent),
            (404, Kind::NotFound, false, NotSent),
            (408, Kind::Unavailable, true, NotSent),
            (410, Kind::NotFound, false, NotSent),
            (413, Kind::TooLarge, false, NotSent),
            (422, Kind::InvalidArgument, false, NotSent),
            (429, Kind::Throttled, true, NotSent),
            (500, Kind::Unavailable, true, Unknown),
            (502, Kind::Unavailable, true, Unknown),
            (503, Kind::Unavailable, true, NotSent),
            (504, Kind::Unavailable, true, Unknown),
            (999, Kind::Protocol, false, Unknown),
        ] {
            let error = answer(status).error("http://a");
            assert_eq!(
                (error.kind(), error.retryable(), error.outcome()),
                (kind, retryable, outcome),
                "{status}"
            );
            assert_eq!(error.retry_after(), retryable.then_some(Duration::from_secs(7)), "{status}");
        }
    }

    #[test]
    fn a_503_turned_the_message_away_only_where_it_says_when_to_come_again() {
        let mut answer = answer(503);
        answer.retry_after = None;
        let error = answer.error("http://a");
        assert_eq!(
            (error.kind(), error.retryable(), error.outcome()),
            (Kind::Unavailable, true, Outcome::Unknown)
        );
    }

    #[test]
    fn waits_are_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, wait) in [
            ("7", Some(7)),
            ("0", Some(0)),
            (" 12 ", Some(12)),
            ("99999999999999999999999", Some(7 * 86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(retry_after(&headers, now), wait.map(Duration::from_secs), "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}

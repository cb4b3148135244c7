//! The codes of refusals: the HTTP status each comes with, and what it means for a call.

use crate::error::{Error, Kind, Outcome};

/// What a code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meaning {
    kind: Kind,
    retryable: bool,
    // Whether it may have been done all the same.
    unknown: bool,
}

const fn lasting(kind: Kind) -> Meaning {
    Meaning { kind, retryable: false, unknown: false }
}

const fn passing(kind: Kind) -> Meaning {
    Meaning { kind, retryable: true, unknown: false }
}

const OF_SERVICE: Meaning = Meaning { kind: Kind::Unavailable, retryable: true, unknown: true };

macro_rules! codes {
    ($($code:ident = $name:literal, $status:literal, $meaning:expr, $text:literal;)*) => {
        /// A code of a refusal.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "their texts are in the table")]
        pub enum Code {
            $($code,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Code] = &[$(Code::$code,)*];

            /// The code as it is written.
            pub const fn name(self) -> &'static str {
                match self { $(Code::$code => $name,)* }
            }

            /// The HTTP status of an answer with it.
            pub const fn status(self) -> u16 {
                match self { $(Code::$code => $status,)* }
            }

            /// What it says, in words.
            pub const fn text(self) -> &'static str {
                match self { $(Code::$code => $text,)* }
            }

            const fn meaning(self) -> Meaning {
                match self { $(Code::$code => $meaning,)* }
            }
        }
    };
}

codes! {
    AccessDenied = "AccessDenied", 403, lasting(Kind::Permission), "the key may not do this";
    InvalidAccessKeyId = "InvalidAccessKeyId", 403, lasting(Kind::Authentication), "the access key does not exist";
    SignatureDoesNotMatch = "SignatureDoesNotMatch", 403, lasting(Kind::Authentication),
        "the signature is another than the request's";
    // The next attempt is signed with another time, put right by the server's.
    TimeExpired = "TimeExpired", 408, passing(Kind::Authentication), "the request's time is too far from the server's";
    InvalidAuthorizationHeader = "InvalidAuthorizationHeader", 400, lasting(Kind::Authentication),
        "the header Authorization is not as it must be";
    MissingAuthorizationHeader = "MissingAuthorizationHeader", 400, lasting(Kind::Authentication),
        "the header Authorization is missing";
    InvalidDateHeader = "InvalidDateHeader", 400, lasting(Kind::InvalidArgument), "the header Date is no date";
    MissingDateHeader = "MissingDateHeader", 400, lasting(Kind::InvalidArgument), "the header Date is missing";
    MissingVersionHeader = "MissingVersionHeader", 400, lasting(Kind::InvalidArgument),
        "the header x-mns-version is missing";
    InvalidVersionHeader = "InvalidVersionHeader", 400, lasting(Kind::InvalidArgument),
        "the header x-mns-version is not known";
    InvalidContentType = "InvalidContentType", 400, lasting(Kind::InvalidArgument), "the header Content-Type is not XML";
    // Spelled as the service spells it. The body was changed on its way: another try may get through.
    InvalidDigest = "InvalidDegist", 400, passing(Kind::Protocol), "the header Content-MD5 is not that of the body";
    InvalidArgument = "InvalidArgument", 400, lasting(Kind::InvalidArgument), "a value is not one that may be";
    InvalidRequestUrl = "InvalidRequestURL", 400, lasting(Kind::InvalidArgument), "the address is not one of the service";
    InvalidQueryString = "InvalidQueryString", 400, lasting(Kind::InvalidArgument), "the query is not as it must be";
    MalformedXml = "MalformedXML", 400, lasting(Kind::InvalidArgument), "the XML is not well formed";
    MissingReceiptHandle = "MissingReceiptHandle", 400, lasting(Kind::InvalidArgument), "ReceiptHandle is missing";
    MissingVisibilityTimeout = "MissingVisibilityTimeout", 400, lasting(Kind::InvalidArgument),
        "VisibilityTimeout is missing";
    MessageNotExist = "MessageNotExist", 404, lasting(Kind::NotFound), "there is no such message";
    ReceiptHandleError = "ReceiptHandleError", 400, lasting(Kind::NotFound),
        "the receipt handle is not valid, or no longer";
    QueueNotExist = "QueueNotExist", 404, lasting(Kind::NotFound), "there is no such queue";
    QueueAlreadyExist = "QueueAlreadyExist", 409, lasting(Kind::InvalidArgument),
        "there is such a queue with other attributes";
    QueueDeletedRecently = "QueueDeletedRecently", 400, passing(Kind::Unavailable),
        "a queue of this name was deleted a moment ago";
    InvalidQueueName = "InvalidQueueName", 400, lasting(Kind::InvalidArgument), "no queue can have this name";
    QueueNameLengthError = "QueueNameLengthError", 400, lasting(Kind::InvalidArgument),
        "a queue's name has from 1 to 256 characters";
    QpsLimitExceeded = "QpsLimitExceeded", 400, passing(Kind::Throttled), "there are too many requests in a second";
    TopicNotExist = "TopicNotExist", 404, lasting(Kind::NotFound), "there is no such topic";
    TopicAlreadyExist = "TopicAlreadyExist", 409, lasting(Kind::InvalidArgument),
        "there is such a topic with other attributes";
    TopicNameInvalid = "TopicNameInvalid", 400, lasting(Kind::InvalidArgument), "no topic can have this name";
    TopicNameLengthError = "TopicNameLengthError", 400, lasting(Kind::InvalidArgument),
        "a topic's name has from 1 to 256 characters";
    SubscriptionNotExist = "SubscriptionNotExist", 404, lasting(Kind::NotFound), "there is no such subscription";
    SubscriberNotExist = "SubscriberNotExist", 404, lasting(Kind::NotFound), "there is no such subscriber";
    SubscriptionAlreadyExist = "SubscriptionAlreadyExist", 409, lasting(Kind::InvalidArgument),
        "there is such a subscription with other attributes";
    // Spelled as the service spells it.
    SubscriptionNameInvalid = "SubsriptionNameInvalid", 400, lasting(Kind::InvalidArgument),
        "no subscription can have this name";
    SubscriptionNameLengthError = "SubscriptionNameLengthError", 400, lasting(Kind::InvalidArgument),
        "a subscription's name has from 1 to 256 characters";
    EndpointInvalid = "EndpointInvalid", 400, lasting(Kind::InvalidArgument), "nothing can be pushed to this endpoint";
    InternalError = "InternalError", 500, OF_SERVICE, "the service failed";
    InternalServerError = "InternalServerError", 500, OF_SERVICE, "the service failed";
}

impl Code {
    /// The code of this name.
    pub fn find(name: &str) -> Option<Code> {
        Code::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// The error of a code, known or not, that came with a status.
pub fn error(code: &str, status: u16, text: String) -> Error {
    let meaning = Code::find(code).map_or_else(|| unlisted(code, status), Code::meaning);
    let error = Error::new(meaning.kind, text).retryable_is(meaning.retryable);
    if meaning.unknown { error.outcome_is(Outcome::Unknown) } else { error }
}

/// What a code means that is not in the table: what its name says, or its status.
fn unlisted(code: &str, status: u16) -> Meaning {
    let ends = |end: &str| code.ends_with(end);
    if code.contains("SecurityToken") || code.contains("AccessKey") {
        lasting(Kind::Authentication)
    } else if code.contains("Throttl") || ends("LimitExceeded") {
        passing(Kind::Throttled)
    } else if ends("NotExist") || ends("NotFound") {
        lasting(Kind::NotFound)
    } else {
        by_status(status)
    }
}

/// What a status means that came without a code: from something between us and the service.
pub fn status_error(status: u16, text: String) -> Error {
    let meaning = by_status(status);
    let error = Error::new(meaning.kind, text).retryable_is(meaning.retryable);
    if meaning.unknown { error.outcome_is(Outcome::Unknown) } else { error }
}

fn by_status(status: u16) -> Meaning {
    match status {
        401 | 407 => lasting(Kind::Authentication),
        403 => lasting(Kind::Permission),
        404 | 410 => lasting(Kind::NotFound),
        408 | 425 => passing(Kind::Unavailable),
        413 | 414 | 431 => lasting(Kind::TooLarge),
        429 => passing(Kind::Throttled),
        400..=499 => lasting(Kind::InvalidArgument),
        501 | 505 => lasting(Kind::Unsupported),
        500..=599 => OF_SERVICE,
        _ => Meaning { kind: Kind::Protocol, retryable: false, unknown: true },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_one_name_and_its_meaning() {
        for code in Code::ALL {
            assert_eq!(Code::find(code.name()), Some(*code));
            assert!((400..=500).contains(&code.status()), "{code:?}");
            let error = error(code.name(), code.status(), "x".into());
            // What is refused was not done; what failed may have been.
            assert_eq!(error.outcome() == Outcome::Unknown, code.status() == 500, "{code:?}");
            assert_ne!(error.kind(), Kind::Internal);
        }
    }

    #[test]
    fn codes_of_each_sort() {
        for (code, status, kind, retryable) in [
            ("AccessDenied", 403, Kind::Permission, false),
            ("InvalidAccessKeyId", 403, Kind::Authentication, false),
            ("TimeExpired", 408, Kind::Authentication, true),
            ("QueueNotExist", 404, Kind::NotFound, false),
            ("ReceiptHandleError", 400, Kind::NotFound, false),
            ("InvalidDegist", 400, Kind::Protocol, true),
            ("QpsLimitExceeded", 400, Kind::Throttled, true),
            ("InternalError", 500, Kind::Unavailable, true),
            ("InvalidSecurityToken.Expired", 403, Kind::Authentication, false),
            ("Throttling.User", 400, Kind::Throttled, true),
            ("AccountLimitExceeded", 400, Kind::Throttled, true),
            ("SomethingNotExist", 400, Kind::NotFound, false),
            ("Whatever", 400, Kind::InvalidArgument, false),
            ("Whatever", 503, Kind::Unavailable, true),
            ("Whatever", 302, Kind::Protocol, false),
        ] {
            let error = error(code, status, String::new());
            assert_eq!((error.kind(), error.retryable()), (kind, retryable), "{code}");
        }
        assert_eq!(status_error(502, String::new()).outcome(), Outcome::Unknown);
        assert_eq!(status_error(413, String::new()).kind(), Kind::TooLarge);
    }
}

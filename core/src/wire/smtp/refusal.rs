//! What a negative reply means.

use super::Reply;
use crate::error::{Error, Kind};

/// What the reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The greeting, `EHLO` and `STARTTLS`.
    Hello,
    /// `AUTH`.
    Login,
    /// `MAIL`.
    Sender,
    /// `RCPT`.
    Recipient,
    /// `DATA`, and the message itself.
    Message,
}

impl Step {
    const fn refused(self) -> &'static str {
        match self {
            Step::Hello => "refused the connection",
            Step::Login => "refused the login",
            Step::Sender => "refused the sender",
            Step::Recipient => "refused the recipient",
            Step::Message => "refused the message",
        }
    }
}

/// The error that a negative reply of the server called `label` means. Temporary refusals can be retried, others not.
///
/// The text of a reply to a login is not told: it could repeat what was written.
pub fn refused(reply: &Reply, step: Step, label: &str) -> Error {
    let said = match step {
        Step::Login => reply.code.to_string(),
        _ => reply.shown(),
    };
    let temporary = (400..500).contains(&reply.code);
    let kind = if temporary { of_temporary(reply, step) } else { of_permanent(reply, step) };
    Error::new(kind, format!("{label} {}: {said}", step.refused())).retryable_is(temporary)
}

/// Whether the reply to `RCPT` says that one mail takes no more recipients: a further mail may take them.
pub fn is_full(reply: &Reply) -> bool {
    reply.code == 452 && matches!(reply.status(), None | Some((_, 5, 3)))
}

fn of_temporary(reply: &Reply, step: Step) -> Kind {
    match (reply.code, reply.status()) {
        (421, _) => Kind::Unavailable,
        _ if matches!(step, Step::Hello | Step::Login) => Kind::Unavailable,
        // Policy: greylisting and rates.
        (_, Some((_, 7, _))) => Kind::Throttled,
        // Too many recipients.
        (_, Some((_, 5, 3))) => Kind::Throttled,
        (452, None) if step == Step::Recipient => Kind::Throttled,
        _ => Kind::Unavailable,
    }
}

fn of_permanent(reply: &Reply, step: Step) -> Kind {
    match (reply.code, reply.status()) {
        (530 | 534 | 535 | 538, _) => Kind::Authentication,
        _ if step == Step::Login => Kind::Authentication,
        (_, Some((_, 3, 4) | (_, 2, 3))) => Kind::TooLarge,
        // The mailbox of the recipient is full: nothing that the sender can change.
        (_, Some((_, 2, 2))) => Kind::Unavailable,
        (552, _) if step != Step::Recipient => Kind::TooLarge,
        (552, _) => Kind::Unavailable,
        (_, Some((_, 7, _))) => Kind::Permission,
        (501 | 553, Some((_, 1, 3 | 7))) | (_, Some((_, 1, 3 | 7))) | (501 | 555, _) => Kind::InvalidArgument,
        (550 | 551 | 553 | 556, _) | (_, Some((_, 1, _))) if step == Step::Recipient => Kind::NotFound,
        (500 | 502 | 503 | 504, _) => Kind::Protocol,
        _ => Kind::Permission,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_mail_is_told_from_a_full_disk() {
        for (code, text, full) in [
            (452, "4.5.3 too many", true),
            (452, "too many", true),
            (452, "4.2.2 mailbox full", false),
            (452, "4.3.1 disk full", false),
            (451, "4.5.3 too many", false),
            (552, "5.5.3 too many", false),
        ] {
            assert_eq!(is_full(&Reply { code, lines: vec![text.to_owned()] }), full, "{code} {text}");
        }
    }

    #[test]
    fn refusals_are_classified() {
        use Kind::{Authentication, InvalidArgument, NotFound, Permission, Throttled, TooLarge, Unavailable};
        for (code, text, step, kind) in [
            (421, "4.3.0 closing", Step::Message, Unavailable),
            (450, "4.2.0 greylisted", Step::Recipient, Unavailable),
            (451, "4.7.1 greylisted", Step::Recipient, Throttled),
            (451, "local error", Step::Message, Unavailable),
            (452, "4.5.3 too many", Step::Recipient, Throttled),
            (452, "too many", Step::Recipient, Throttled),
            (452, "4.3.1 disk full", Step::Sender, Unavailable),
            (454, "4.7.0 try later", Step::Login, Unavailable),
            (454, "4.7.0 no TLS now", Step::Hello, Unavailable),
            (535, "5.7.8 wrong", Step::Login, Authentication),
            (500, "no", Step::Login, Authentication),
            (530, "5.7.0 log in first", Step::Sender, Authentication),
            (550, "5.1.1 no such user", Step::Recipient, NotFound),
            (550, "no such user", Step::Recipient, NotFound),
            (550, "5.7.1 relaying denied", Step::Recipient, Permission),
            (554, "spam", Step::Message, Permission),
            (552, "too big", Step::Message, TooLarge),
            (552, "5.3.4 too big", Step::Sender, TooLarge),
            (552, "5.2.2 full", Step::Recipient, Unavailable),
            (501, "5.1.3 bad address", Step::Recipient, InvalidArgument),
            (553, "5.1.7 bad sender", Step::Sender, InvalidArgument),
            (550, "no", Step::Sender, Permission),
        ] {
            let reply = Reply { code, lines: vec![text.to_owned()] };
            let error = refused(&reply, step, "smtp://h:25");
            assert_eq!((error.kind(), error.retryable()), (kind, code < 500), "{code} {text}: {error}");
            assert_eq!(error.message().contains(text), step != Step::Login, "{error}");
        }
    }
}

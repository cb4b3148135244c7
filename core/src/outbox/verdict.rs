//! What a failed send means for the outbox: whether it may be tried again, and with which recipients.

use std::collections::HashSet;

use serde_json::json;

use super::config::OnUnknown;
use super::stored::Lost;
use crate::error::{Error, Kind, Outcome, Part, Whole};
use crate::message::Message;

/// The longest text of an error that a row keeps, in characters.
const LONGEST: usize = 1000;

/// What follows a failed send.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Trying again cannot help, or must not be done: why.
    Never(&'static str),
    /// It may be tried again as it is.
    Again,
    /// Only some recipients failed: what is to be tried again, and those whom that cannot help.
    Rest(Message, Vec<Lost>),
}

/// Whether this is the fault of the message or of the caller, so that no attempt helps. What was cancelled below, and not
/// by the caller, is a failure like others.
fn hopeless(kind: Kind, cancelled: bool) -> bool {
    match kind {
        Kind::InvalidArgument
        | Kind::InvalidConfig
        | Kind::Unsupported
        | Kind::TooLarge
        | Kind::WouldDeadlock
        | Kind::Forked => true,
        Kind::Cancelled => cancelled,
        _ => false,
    }
}

/// Whether an attempt that ended so was one: what was held back on this side counts for nothing.
pub(super) fn counts(error: &Error) -> bool {
    match error.kind() {
        Kind::Limited | Kind::CircuitOpen | Kind::Closed => false,
        // It may be the other side's queue.
        Kind::QueueFull => error.attempts() > 0,
        // As each of them says.
        Kind::AllFailed => {
            let mut members = error.parts().iter().filter_map(|part| part.error.as_ref()).peekable();
            members.peek().is_none() || members.any(counts)
        }
        _ => true,
    }
}

/// See [`Verdict`]; `cancelled` says that the caller did so.
pub(super) fn of(message: &Message, error: &Error, on_unknown: OnUnknown, cancelled: bool) -> Verdict {
    if error.kind() == Kind::Partial {
        return of_partial(message, error.parts(), on_unknown, cancelled);
    }
    if hopeless(error.kind(), cancelled) {
        return Verdict::Never("no other attempt can help");
    }
    if error.outcome() == Outcome::Unknown && on_unknown == OnUnknown::Stop {
        return Verdict::Never("whether it was sent is unknown, and `on_unknown` says stop");
    }
    Verdict::Again
}

fn of_partial(message: &Message, parts: &[Part], on_unknown: OnUnknown, cancelled: bool) -> Verdict {
    let failed = || {
        parts
            .iter()
            .filter(|part| part.of == Whole::Recipient)
            .filter_map(|part| part.error.as_ref().map(|error| (part, error)))
    };
    if failed().next().is_none() {
        return Verdict::Never("some have it, and nobody says which");
    }
    let stops = |error: &Error| on_unknown == OnUnknown::Stop && error.outcome() == Outcome::Unknown;
    let again = |error: &Error| !hopeless(error.kind(), cancelled) && !stops(error);
    let helped: Vec<&Part> = failed().filter(|(_, error)| again(error)).map(|(part, _)| part).collect();
    if helped.is_empty() {
        return Verdict::Never("no other attempt can help those that failed");
    }
    let named = message.fields().map_or(&[][..], |fields| fields.recipients.as_slice());
    let left: Vec<String> = if named.is_empty() {
        helped.iter().map(|part| part.name.to_string()).collect()
    } else {
        // Those that get a copy stand behind those that the message names.
        let names: HashSet<&str> =
            helped.iter().filter(|part| !part.is_copy()).map(|part| &*part.name).collect();
        let copies = helped.iter().filter(|part| part.is_copy()).map(|part| part.name.to_string());
        named.iter().filter(|name| names.contains(name.as_str())).cloned().chain(copies).collect()
    };
    if left.is_empty() {
        return Verdict::Never("some have it, and those that failed are none of the message's recipients");
    }
    let lost = failed().filter(|(_, error)| !again(error)).filter_map(|(part, _)| Lost::of(part)).collect();
    // The number is made before the copy, so that both have it.
    message.number();
    let mut rest = Message::clone(message);
    rest.fields_mut().recipients = left;
    rest.set_rest();
    Verdict::Rest(rest, lost)
}

/// The text, cut where it is too long.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// An error as a row keeps it.
pub(super) fn noted(error: &Error) -> String {
    let mut noted = json!({
        "kind": error.kind().name(),
        "outcome": error.outcome().name(),
        "message": shortened(&error.text()),
    });
    if let (Some(provider), Some(object)) = (error.provider(), noted.as_object_mut()) {
        object.insert("provider".into(), provider.into());
    }
    noted.to_string()
}

/// The error of a row that is given up before its attempts are used up.
pub(super) fn ended(error: &Error, why: &str) -> String {
    noted(&error.clone().at(why))
}

/// The end of a message that reached everybody but those whom no attempt can help.
pub(super) fn lost(lost: &[Lost]) -> String {
    let names: Vec<String> = lost.iter().map(|lost| format!("{}: {}", lost.recipient, lost.why)).collect();
    let text = format!("all others have it; no attempt can help {}", names.join("; "));
    json!({"kind": Kind::Partial.name(), "outcome": "not_sent", "message": shortened(&text)}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind) -> Error {
        Error::new(kind, "by the test")
    }

    #[test]
    fn what_is_never_tried_again() {
        let message = Message::new("x");
        for kind in Kind::ALL {
            let never = matches!(of(&message, &error(kind), OnUnknown::Again, true), Verdict::Never(_));
            let expected = hopeless(kind, true) || kind == Kind::Partial;
            assert_eq!(never, expected, "{kind}");
        }
        let unknown = error(Kind::Timeout).outcome_is(Outcome::Unknown);
        assert!(matches!(of(&message, &unknown, OnUnknown::Again, true), Verdict::Again));
        assert!(matches!(of(&message, &unknown, OnUnknown::Stop, true), Verdict::Never(_)));
    }

    #[test]
    fn what_another_than_the_caller_cancelled_is_tried_again() {
        let message = Message::new("x");
        let of = |error: &Error, on_unknown, by_caller| super::of(&message, error, on_unknown, by_caller);
        let cancelled = error(Kind::Cancelled);
        assert!(matches!(of(&cancelled, OnUnknown::Stop, false), Verdict::Again));
        assert!(matches!(of(&cancelled, OnUnknown::Again, true), Verdict::Never(_)));
        let unknown = error(Kind::Cancelled).outcome_is(Outcome::Unknown);
        assert!(matches!(of(&unknown, OnUnknown::Stop, false), Verdict::Never(_)));
        let part = |name: &str, kind| Part::failed(Whole::Recipient, name, error(kind));
        let partial = error(Kind::Partial).made_of(vec![
            part("a", Kind::Cancelled),
            Part::sent(Whole::Recipient, "b", None),
            part("c", Kind::TooLarge),
        ]);
        let Verdict::Rest(rest, lost) = of(&partial, OnUnknown::Again, false) else { panic!("no rest") };
        assert_eq!((rest.fields().unwrap().recipients.as_slice(), lost.len()), (&["a".to_owned()][..], 1));
        assert!(matches!(of(&partial, OnUnknown::Again, true), Verdict::Never(_)));
    }

    #[test]
    fn after_a_part_failed_only_that_part_is_left() {
        let message =
            Message::new("x").with(|f| f.recipients = ["a", "b", "c", "d"].map(String::from).to_vec());
        let failed = |name: &str, kind| Part::failed(Whole::Recipient, name, error(kind));
        let partial = error(Kind::Partial).made_of(vec![
            failed("d", Kind::Throttled),
            Part::sent(Whole::Recipient, "a", None),
            failed("b", Kind::Unavailable),
            failed("c", Kind::InvalidArgument),
            failed("cc:e", Kind::Unavailable),
        ]);
        let Verdict::Rest(rest, lost) = of(&message, &partial, OnUnknown::Again, true) else {
            panic!("no rest")
        };
        assert_eq!(rest.fields().unwrap().recipients, ["b", "d", "cc:e"]);
        assert!(rest.is_rest());
        assert_eq!(lost.len(), 1);
        assert_eq!(lost[0].recipient, "c");
        assert_eq!(rest.number(), message.number());
    }

    #[test]
    fn of_whom_it_is_unknown_whether_he_has_it_gets_it_again_unless_told_to_stop() {
        let message = Message::new("x").with(|f| f.recipients = ["a", "b"].map(String::from).to_vec());
        let failed = |name: &str, outcome| {
            Part::failed(Whole::Recipient, name, error(Kind::Timeout).outcome_is(outcome))
        };
        let unsent = failed("b", Outcome::NotSent);
        let partial = error(Kind::Partial).made_of(vec![failed("a", Outcome::Unknown), unsent]);
        for (on_unknown, left, lost_ones) in
            [(OnUnknown::Again, &["a", "b"][..], 0), (OnUnknown::Stop, &["b"][..], 1)]
        {
            let Verdict::Rest(rest, lost) = of(&message, &partial, on_unknown, true) else {
                panic!("no rest")
            };
            assert_eq!(
                (&rest.fields().unwrap().recipients[..], lost.len()),
                (&left.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..], lost_ones)
            );
        }
        let all = error(Kind::Partial).made_of(vec![failed("a", Outcome::Unknown)]);
        assert!(matches!(of(&message, &all, OnUnknown::Stop, true), Verdict::Never(_)));
    }

    #[test]
    fn what_every_member_held_back_is_no_attempt() {
        let member = |name: &str, kind| Part::failed(Whole::Member, name, error(kind));
        let all = |kinds: [Kind; 2]| {
            error(Kind::AllFailed).made_of(vec![member("a", kinds[0]), member("b", kinds[1])])
        };
        assert!(!counts(&all([Kind::CircuitOpen, Kind::Limited])));
        assert!(counts(&all([Kind::CircuitOpen, Kind::Unavailable])));
        assert!(counts(&error(Kind::AllFailed)));
        let within = error(Kind::AllFailed).made_of(vec![Part::failed(
            Whole::Member,
            "inner",
            all([Kind::CircuitOpen, Kind::CircuitOpen]),
        )]);
        assert!(!counts(&within));
    }

    #[test]
    fn a_partial_error_that_names_nobody_ends_it() {
        let silent = error(Kind::Partial);
        assert!(matches!(of(&Message::new("x"), &silent, OnUnknown::Again, true), Verdict::Never(_)));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("短い"), "短い");
        assert_eq!(shortened(&"é".repeat(1001)).chars().count(), 1001);
    }
}

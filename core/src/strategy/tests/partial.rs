//! Some recipients have the message: nobody gets it twice, and nobody is forgotten.

use super::*;
use crate::error::{Part, Whole};

fn retry(times: u32, inner: &Arc<StandIn>) -> Arc<dyn Producer> {
    wrap(json!({"type": "retry", "max_attempts": times}), inner.clone())
}

fn partial(parts: Vec<Part>) -> Step {
    let error = Error::new(Kind::Partial, "some failed").by("script").tried(1).outcome_is(Outcome::Unknown);
    Step::Fails(error.made_of(parts))
}

fn bounced(name: &str, kind: Kind) -> Part {
    Part::failed(Whole::Recipient, name, Error::new(kind, "refused"))
}

fn reached(name: &str) -> Part {
    Part::sent(Whole::Recipient, name, None)
}

fn partly(results: &[(&str, bool)]) -> Step {
    let part =
        |(name, sent): &(&str, bool)| if *sent { reached(name) } else { bounced(name, Kind::Throttled) };
    partial(results.iter().map(part).collect())
}

fn to(recipients: &[&str]) -> Arc<Message> {
    let recipients = recipients.iter().map(|name| (*name).to_owned()).collect();
    Arc::new(Message::new("text").with(|fields| fields.recipients = recipients))
}

fn recipients_of(message: &Message) -> Vec<String> {
    message.fields().map(|fields| fields.recipients.clone()).unwrap_or_default()
}

/// Whom each send was for.
fn sent_to(inner: &Arc<StandIn>) -> Vec<String> {
    inner.messages().iter().map(|message| recipients_of(message).concat()).collect()
}

/// What is said of each recipient: none for one that has the message.
fn ends(parts: &[Part]) -> Vec<(String, Option<Kind>)> {
    let recipients = parts.iter().filter(|part| part.of == Whole::Recipient);
    recipients.map(|part| (part.name.to_string(), part.error.as_ref().map(Error::kind))).collect()
}

fn end(name: &str, kind: Option<Kind>) -> (String, Option<Kind>) {
    (name.to_owned(), kind)
}

#[tokio::test(start_paused = true)]
async fn a_partial_failure_is_tried_again_for_those_that_failed() {
    let first = partly(&[("a", true), ("b", false), ("c", false)]);
    let second = partly(&[("b", true), ("c", false)]);
    let inner = StandIn::new([first.clone(), second], Step::Sent);
    let receipt = retry(3, &inner).send(&seconds(9), to(&["a", "b", "c"])).await.unwrap();
    let sent_to: Vec<_> = inner.messages().iter().map(|message| recipients_of(message).concat()).collect();
    assert_eq!(sent_to, ["abc", "bc", "c"]);
    let parts = receipt.parts.unwrap();
    assert_eq!(parts.iter().map(|part| &*part.name).collect::<String>(), "abc");
    assert!(parts.iter().all(|part| part.error.is_none()));

    let inner = StandIn::new([first], partly(&[("b", true), ("c", false)]));
    let error = retry(2, &inner).send(&seconds(9), to(&["a", "b", "c"])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Partial);
    let ends: Vec<_> = error
        .parts()
        .iter()
        .filter(|part| part.of == Whole::Recipient)
        .map(|part| (&*part.name, part.error.is_none()))
        .collect();
    assert_eq!(ends, [("a", true), ("b", true), ("c", false)], "the last word about each");
}

#[tokio::test(start_paused = true)]
async fn a_failover_that_is_stopped_keeps_who_has_the_message() {
    let one = StandIn::new([], partly(&[("x", true), ("y", false)]));
    let late = after(100, fails(Kind::Unavailable));
    let (two, three) = (StandIn::new([], late), StandIn::good());
    let producer = group(json!({"type": "failover"}), &[&one, &two, &three]);
    let ctx = Context::within(Duration::from_millis(100));
    let error = producer.send(&ctx, to(&["x", "y"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), three.count()), (Kind::Partial, Outcome::Unknown, 0));
    assert_eq!(sent_to(&two), ["y"]);
    assert_eq!(ends(error.parts())[0], end("x", None));
    assert!(ends(error.parts())[1].1.is_some(), "{error:?}");
    let members = error.parts().iter().filter(|part| part.of == Whole::Member);
    assert_eq!(members.map(|part| &*part.name).collect::<Vec<_>>(), ["m0", "m1"]);

    // And a retry outside goes on with the one that is left.
    let tried = wrap(json!({"type": "retry", "max_attempts": 2}), producer);
    two.becomes(fails(Kind::Unavailable));
    three.becomes(fails(Kind::Unavailable));
    tried.send(&seconds(9), to(&["x", "y"])).await.unwrap_err();
    let xs =
        [&one, &two, &three].iter().flat_map(|inner| sent_to(inner)).filter(|to| to.contains('x')).count();
    assert!(xs <= 2, "x was sent to once in each of the two calls, not {xs} times");
}

#[tokio::test(start_paused = true)]
async fn who_has_it_is_unknown_so_nobody_gets_it_again() {
    let inner = StandIn::new([partial(vec![])], Step::Sent);
    let error = retry(3, &inner).send(&seconds(9), to(&["x", "y"])).await.unwrap_err();
    assert_eq!((error.kind(), inner.count()), (Kind::Partial, 1));
    let any = wrap(json!({"type": "retry", "max_attempts": 3, "retry_on": "any"}), inner.clone());
    inner.becomes(partial(vec![bounced("z", Kind::Throttled)]));
    let error = any.send(&seconds(9), to(&["x", "y"])).await.unwrap_err();
    assert_eq!((error.kind(), inner.count()), (Kind::Partial, 2), "the names are others than the message's");

    let (have, fail, other) = (StandIn::good(), StandIn::new([], fails(Kind::Unavailable)), StandIn::good());
    let members = vec![
        Member::new("all", group(json!({"type": "fan_out"}), &[&have, &fail])),
        Member::new("other", other.clone()),
    ];
    let producer = section(json!({"type": "failover"})).group(&setup("failover"), members).unwrap();
    let error = producer.send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((error.kind(), have.count(), other.count()), (Kind::Partial, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn recipients_of_the_config_are_named_from_the_second_attempt_on() {
    let inner = StandIn::new([partly(&[("ann", true), ("bob", false)])], Step::Sent);
    let receipt = retry(2, &inner).send(&seconds(9), message()).await.unwrap();
    assert_eq!(sent_to(&inner), ["", "bob"]);
    assert_eq!(ends(&receipt.parts.unwrap()), [end("ann", None), end("bob", None)]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_failed_is_sent_again_and_others_are_not() {
    let first = partial(vec![reached("a"), bounced("b", Kind::Throttled), bounced("cc:c", Kind::Throttled)]);
    let inner = StandIn::new([first, partly(&[("b", true), ("cc:c", false)])], Step::Sent);
    let receipt = retry(3, &inner).send(&seconds(9), to(&["a", "b"])).await.unwrap();
    assert_eq!(sent_to(&inner), ["ab", "bcc:c", "cc:c"]);
    let rest: Vec<bool> = inner.messages().iter().map(|message| message.is_rest()).collect();
    assert_eq!(rest, [false, true, true], "the provider leaves out the copies that were sent");
    assert_eq!(ends(&receipt.parts.unwrap()), [end("a", None), end("b", None), end("cc:c", None)]);
}

#[tokio::test(start_paused = true)]
async fn a_recipient_whom_no_retry_helps_is_not_sent_to_again() {
    let first =
        || partial(vec![reached("a"), bounced("bad", Kind::InvalidArgument), bounced("c", Kind::Throttled)]);
    let inner = StandIn::new([first()], Step::Sent);
    let error = retry(3, &inner).send(&seconds(9), to(&["a", "bad", "c"])).await.unwrap_err();
    assert_eq!(sent_to(&inner), ["abadc", "c"]);
    assert_eq!((error.kind(), error.retryable(), error.attempts()), (Kind::Partial, false, 2));
    let said = [end("a", None), end("bad", Some(Kind::InvalidArgument)), end("c", None)];
    assert_eq!(ends(error.parts()), said, "the bad one is not forgotten");

    let inner = StandIn::new([first()], Step::Sent);
    let any = wrap(json!({"type": "retry", "max_attempts": 3, "retry_on": "any"}), inner.clone());
    any.send(&seconds(9), to(&["a", "bad", "c"])).await.unwrap();
    assert_eq!(sent_to(&inner), ["abadc", "badc"]);

    let inner =
        StandIn::new([partial(vec![reached("a"), bounced("bad", Kind::InvalidArgument)])], Step::Sent);
    let error = retry(3, &inner).send(&seconds(9), to(&["a", "bad"])).await.unwrap_err();
    assert_eq!((error.kind(), inner.count()), (Kind::Partial, 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_word_about_the_one_that_is_left_is_that_of_the_last_attempt() {
    let inner = StandIn::new([partly(&[("a", true), ("b", false)])], fails(Kind::Unavailable));
    let error = retry(2, &inner).send(&seconds(9), to(&["a", "b"])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Partial);
    assert_eq!(ends(error.parts()), [end("a", None), end("b", Some(Kind::Unavailable))]);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_named_among_the_failed_has_it() {
    let inner = StandIn::new([partial(vec![bounced("b", Kind::Throttled)])], fails(Kind::Unavailable));
    let error = retry(2, &inner).send(&seconds(9), to(&["a", "b"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Partial, Outcome::Unknown));
    assert_eq!(ends(error.parts()), [end("a", None), end("b", Some(Kind::Unavailable))]);
}

#[tokio::test(start_paused = true)]
async fn a_member_of_a_fan_out_that_sent_to_some_makes_the_whole_partial() {
    let some = StandIn::new([], partly(&[("a", true), ("b", false)]));
    let none = StandIn::new([], fails(Kind::Unavailable));
    let all = group(json!({"type": "fan_out"}), &[&some, &none]);
    let producer = wrap(json!({"type": "retry", "max_attempts": 3}), all);
    let error = producer.send(&seconds(9), to(&["a", "b"])).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable(), error.outcome()), (Kind::Partial, false, Outcome::Unknown));
    assert_eq!((some.count(), none.count()), (1, 1), "a has it");
}

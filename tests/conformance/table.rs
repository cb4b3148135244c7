//! Which cases do not apply to which provider, and why: all of it is here.
//!
//! [`RULES`] says what each trait rules out, the lists below it who has which traits. A case that is ruled out tests that
//! the thing is refused where there is something to refuse, and names its trait; both have to agree with this table.

use Trait::*;

/// What a provider does not do, or does otherwise than most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trait {
    SendsOnly,
    NoAcks,
    NoNack,
    NoOrder,
    NoDelays,
    TextOnly,
    MendedLines,
    NoLimit,
    ShortBodies,
    NoEmptyBody,
    NoSecret,
    NoConnection,
    NeverSilent,
    AsksFirst,
    BoundedByItsMembers,
    // These rule out nothing: the cases ask otherwise.
    ConnectsForEach,
    Strategies,
    Members,
    FewMessages,
    Requests,
}

/// What a trait means for the suite.
pub(crate) struct Rule {
    pub(crate) of: Trait,
    pub(crate) reason: &'static str,
    /// The cases that it rules out.
    pub(crate) cases: &'static [&'static str],
}

pub(crate) const RULES: [Rule; 20] = [
    Rule {
        of: SendsOnly,
        reason: "there is no consumer of this kind, and opening one is refused",
        cases: &[
            "what_is_not_acknowledged_comes_again",
            "a_lost_consumers_messages_go_to_the_next",
            "nack_gives_back_after_its_delay",
            "several_consumers_share_as_the_mode_says",
            "receivers_of_one_consumer_share",
            "many_acks_outstanding_in_any_order",
            "an_unknown_code_harms_nothing",
            "close_during_receives",
            "receive_is_empty_at_its_deadline",
            "cancelling_a_receive",
        ],
    },
    Rule {
        of: NoAcks,
        reason: "the wire has no ack: a delivery counts as consumed when it is written",
        cases: &[
            "what_is_not_acknowledged_comes_again",
            "a_lost_consumers_messages_go_to_the_next",
            "nack_gives_back_after_its_delay",
            "many_acks_outstanding_in_any_order",
            "an_unknown_code_harms_nothing",
        ],
    },
    Rule { of: NoNack, reason: "the wire has no nack", cases: &["nack_gives_back_after_its_delay"] },
    Rule {
        of: NoOrder,
        reason: "messages go over several connections or brokers, or in requests without an order",
        cases: &["one_producer_keeps_its_order"],
    },
    Rule {
        of: NoDelays,
        reason: "the other side has no delays, and they are refused",
        cases: &[
            "a_delay_is_never_early",
            "a_finer_delay_is_rounded_up",
            "a_delayed_message_holds_up_no_other",
        ],
    },
    Rule {
        of: TextOnly,
        reason: "the body is text, and other bytes are refused",
        cases: &["a_body_that_is_not_utf_8"],
    },
    Rule {
        of: MendedLines,
        reason: "line ends become those of the wire",
        cases: &["texts_arrive_unchanged"],
    },
    Rule {
        of: NoLimit,
        reason: "the provider itself has no limit of size",
        cases: &["a_body_over_the_limit_is_too_large"],
    },
    Rule {
        of: ShortBodies,
        reason: "bodies are shorter: the longest that is meant to arrive does",
        cases: &["a_body_of_16_mib"],
    },
    Rule {
        of: NoEmptyBody,
        reason: "the body is a parameter of the template, which wants each, and an empty one is refused",
        cases: &["an_empty_body"],
    },
    Rule { of: NoSecret, reason: "there is no secret", cases: &["a_wrong_secret_is_refused"] },
    Rule {
        of: NoConnection,
        reason: "there is no connection that could be lost",
        cases: &[
            "close_during_an_outage",
            "close_while_connecting",
            "an_absent_other_side_ends_in_not_sent",
            "when_disconnected_fail_fails_at_once",
            "a_send_waits_for_the_reconnect",
            "a_full_producer_gives_back_pressure",
            "nobody_at_the_address_fails_open",
            "lazy_open_returns_at_once",
        ],
    },
    Rule {
        of: NeverSilent,
        reason: "there is no other side that could be silent",
        cases: &[
            "a_silent_other_side_ends_in_timeout_and_unknown",
            "cancelled_after_it_was_written_is_unknown",
            "flush_honours_its_deadline",
        ],
    },
    Rule {
        of: AsksFirst,
        reason: "the server is asked before the message is written: silence then is not sent",
        cases: &[
            "a_silent_other_side_ends_in_timeout_and_unknown",
            "cancelled_after_it_was_written_is_unknown",
        ],
    },
    Rule {
        of: BoundedByItsMembers,
        reason: "each member has a bound of its own: a message that one has no room for goes to the next at once, and is \
                 refused at once where none has",
        cases: &["a_full_producer_gives_back_pressure"],
    },
    Rule {
        of: ConnectsForEach,
        reason: "it connects when it sends: its state is not that of a connection, a server that is silent and a \
                 secret that is wrong are found out by a send, and a try to connect is an attempt",
        cases: &[],
    },
    Rule {
        of: Strategies,
        reason: "receipts and errors may name the provider below, and a control command names its strategy",
        cases: &[],
    },
    Rule {
        of: Members,
        reason: "where each member refuses a message the error is `all_failed`, made of theirs, which are alike",
        cases: &[],
    },
    Rule { of: FewMessages, reason: "20 messages a minute: a case sends no more", cases: &[] },
    Rule { of: Requests, reason: "a message is a request: a case sends no more than 1500", cases: &[] },
];

impl Trait {
    pub(crate) fn rule(self) -> &'static Rule {
        RULES.iter().find(|rule| rule.of == self).expect("each trait has a rule")
    }

    /// How many messages a case may send.
    pub(crate) fn most_messages(self) -> Option<usize> {
        match self {
            FewMessages => Some(20),
            Requests => Some(1500),
            _ => None,
        }
    }
}

pub(crate) const MEMORY: &[Trait] = &[NoLimit, NoSecret, NoConnection, NeverSilent];

pub(crate) const KAPOKMQ: &[Trait] = &[TextOnly];
pub(crate) const KAPOKMQ_PLAIN: &[Trait] = &[TextOnly, NoNack];
pub(crate) const KAPOKMQ_CLUSTER: &[Trait] = &[TextOnly, NoOrder];

pub(crate) const DPMQ: &[Trait] = &[NoOrder, NoAcks, NoDelays, TextOnly, NoSecret];
pub(crate) const DPMQ_ONE_CONNECTION: &[Trait] = &[NoAcks, NoDelays, TextOnly, NoSecret];

pub(crate) const SMTP: &[Trait] = &[SendsOnly, NoOrder, NoDelays, TextOnly, MendedLines, NoLimit, AsksFirst];
pub(crate) const SMTP_ONE_CONNECTION: &[Trait] =
    &[SendsOnly, NoDelays, TextOnly, MendedLines, NoLimit, AsksFirst];

pub(crate) const WEBHOOK: &[Trait] = &[SendsOnly, NoOrder, NoDelays, ConnectsForEach, Requests];
pub(crate) const WEBHOOK_TEMPLATE: &[Trait] =
    &[SendsOnly, NoOrder, NoDelays, TextOnly, ShortBodies, ConnectsForEach, Requests];
pub(crate) const SMS: &[Trait] =
    &[SendsOnly, NoOrder, NoDelays, TextOnly, NoLimit, ShortBodies, ConnectsForEach, Requests];
pub(crate) const SMS_TENCENT: &[Trait] =
    &[SendsOnly, NoOrder, NoDelays, TextOnly, NoLimit, ShortBodies, NoEmptyBody, ConnectsForEach, Requests];
pub(crate) const DINGTALK_ROBOT: &[Trait] =
    &[SendsOnly, NoOrder, NoDelays, TextOnly, ShortBodies, ConnectsForEach, FewMessages];
pub(crate) const DINGTALK_GATEWAY: &[Trait] =
    &[SendsOnly, NoOrder, NoDelays, TextOnly, ShortBodies, ConnectsForEach, Requests];

pub(crate) const CALLBACK: &[Trait] = &[SendsOnly, NoOrder, NoDelays, NoLimit, NoSecret, NoConnection];

pub(crate) const STACK_OF_MEMORY: &[Trait] =
    &[SendsOnly, NoOrder, NoLimit, NoSecret, NoConnection, NeverSilent, Strategies, Members];
pub(crate) const STACK_OF_KAPOKMQ: &[Trait] =
    &[SendsOnly, NoOrder, TextOnly, BoundedByItsMembers, Strategies, Members];
pub(crate) const LAYERS_ON_KAPOKMQ: &[Trait] = &[SendsOnly, TextOnly, Strategies];

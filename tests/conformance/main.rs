//! One suite for every provider, written against `Producer` and `Consumer` and gated by `Capability`.
//!
//! A provider joins with a `Harness`, a line in `suite!` and its traits in `table`, which says what does not apply to whom.
//! A case that is ruled out tests that the thing is refused instead, and says so on stderr; so a capability that
//! disappears, and one that nobody knew of, fails the suite.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cases;
mod harness;
mod inbox;
mod providers;
mod stage;
mod table;

macro_rules! cases {
    ($harness:expr; $($file:ident: $($case:ident)*;)*) => {
        $($(
            #[test]
            fn $case() {
                let harness = $harness;
                let name = (module_path!(), stringify!($case));
                crate::harness::run(&harness, name, crate::cases::$file::$case(&harness));
            }
        )*)*

        /// Each case that the traits rule out is a case.
        #[test]
        fn excluded_cases_exist() {
            let harness = $harness;
            let known = [$($(stringify!($case)),*),*];
            for of in crate::harness::Harness::traits(&harness) {
                for case in of.rule().cases {
                    assert!(known.contains(case), "there is no case `{case}`");
                }
            }
        }
    };
}

macro_rules! suite {
    ($($provider:ident => $harness:expr;)*) => {
        $(mod $provider {
            cases! { $harness;
                send: a_message_arrives_and_is_acknowledged a_receipt_names_provider_and_attempts
                    one_producer_keeps_its_order many_senders_each_get_their_receipt
                    a_batch_has_a_result_for_each_message a_bad_message_fails_alone_in_its_batch
                    a_field_that_cannot_be_sent_is_named flush_waits_for_earlier_sends;
                receive: what_is_not_acknowledged_comes_again a_lost_consumers_messages_go_to_the_next
                    nack_gives_back_after_its_delay several_consumers_share_as_the_mode_says
                    receivers_of_one_consumer_share many_acks_outstanding_in_any_order an_unknown_code_harms_nothing;
                delay: a_delay_is_never_early a_finer_delay_is_rounded_up
                    a_delayed_message_holds_up_no_other;
                body: an_empty_body a_body_of_16_mib a_body_that_is_not_utf_8 texts_arrive_unchanged
                    a_body_over_the_limit_is_too_large;
                close: close_during_sends close_during_receives close_during_submits use_after_close
                    close_during_an_outage close_while_connecting;
                ends: a_deadline_that_passed_sends_nothing receive_is_empty_at_its_deadline
                    a_silent_other_side_ends_in_timeout_and_unknown
                    an_absent_other_side_ends_in_not_sent when_disconnected_fail_fails_at_once
                    a_send_waits_for_the_reconnect cancelled_before_it_is_written_is_not_sent
                    cancelled_after_it_was_written_is_unknown cancelling_a_receive
                    a_full_producer_gives_back_pressure flush_honours_its_deadline;
                state: status_is_json_without_the_secret a_wrong_secret_is_refused
                    nobody_at_the_address_fails_open lazy_open_returns_at_once;
            }
        })*
    };
}

suite! {
    memory => crate::providers::memory::Memory;
    kapokmq => crate::providers::kapokmq::KapokMq::WorkQueue;
    kapokmq_publish_subscribe => crate::providers::kapokmq::KapokMq::PublishSubscribe;
    kapokmq_plain => crate::providers::kapokmq::KapokMq::Plain;
    dpmq => crate::providers::dpmq::Dpmq::Pool;
    dpmq_one_connection => crate::providers::dpmq::Dpmq::OneConnection;
    smtp => crate::providers::smtp::Smtp::Pool;
    smtp_one_connection => crate::providers::smtp::Smtp::OneConnection;
    kapokmq_cluster => crate::providers::kapokmq::KapokMq::Cluster;
    webhook => crate::providers::http::Http::Webhook;
    webhook_template => crate::providers::http::Http::WebhookTemplate;
    sms_aliyun => crate::providers::http::Http::Aliyun;
    sms_tencent => crate::providers::http::Http::Tencent;
    sms_http => crate::providers::http::Http::SmsGateway;
    dingtalk_robot => crate::providers::http::Http::Robot;
    dingtalk_gateway => crate::providers::http::Http::DingTalkGateway;
    callback => crate::providers::callback::Callback::Blocks;
    callback_hands_over => crate::providers::callback::Callback::HandsOver;
    stack_of_memory => crate::providers::stack::Stack::OfMemory;
    stack_of_kapokmq => crate::providers::stack::Stack::OfKapokMq;
    layers_on_kapokmq => crate::providers::stack::Stack::OnKapokMq;
}

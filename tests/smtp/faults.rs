//! What goes wrong at each step of the dialog, and what is said of it: the kind, whether the mail may have been sent,
//! and whether a retry may help.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ceiba_core::error::{Kind, Outcome, Whole};
use ceiba_tests::mail::{Act, MailServer, Settings};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{letter, to_server, within};

fn failing(at: &'static str, act: Act) -> Settings {
    let rules =
        Arc::new(move |seen: ceiba_tests::mail::Seen<'_>| seen.line.starts_with(at).then(|| act.clone()));
    Settings { rules, ..Settings::default() }
}

const STEPS: [&str; 7] = ["<connect>", "EHLO", "MAIL", "RCPT", "DATA", "<data>", "<end>"];

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_at_each_step_has_its_kind_and_sends_nothing() {
    use Kind::{Authentication, InvalidArgument, NotFound, Permission, Throttled, TooLarge, Unavailable};
    for (at, reply, kind) in [
        ("<connect>", "421 4.3.2 too busy", Unavailable),
        ("<connect>", "554 5.7.1 go away", Permission),
        ("EHLO", "421 4.7.0 later", Unavailable),
        ("EHLO", "550 5.7.1 not you", Permission),
        ("AUTH", "454 4.7.0 later", Unavailable),
        ("AUTH", "535 5.7.8 no", Authentication),
        ("MAIL", "451 4.3.0 later", Unavailable),
        ("MAIL", "452 4.3.1 disk full", Unavailable),
        ("MAIL", "530 5.7.0 log in", Authentication),
        ("MAIL", "550 5.7.1 not from you", Permission),
        ("MAIL", "552 5.3.4 too big", TooLarge),
        ("RCPT", "450 4.7.1 greylisted", Throttled),
        ("RCPT", "451 4.3.0 later", Unavailable),
        ("RCPT", "452 4.5.3 too many", Throttled),
        ("RCPT", "550 5.1.1 nobody", NotFound),
        ("RCPT", "550 nobody", NotFound),
        ("RCPT", "554 5.7.1 no relay", Permission),
        ("RCPT", "501 5.1.3 bad", InvalidArgument),
        ("DATA", "451 4.3.0 later", Unavailable),
        ("DATA", "554 5.7.1 no", Permission),
        ("<end>", "421 4.3.0 closing", Unavailable),
        ("<end>", "451 4.7.1 later", Throttled),
        ("<end>", "452 4.3.1 disk full", Unavailable),
        ("<end>", "552 too big", TooLarge),
        ("<end>", "554 5.7.1 spam", Permission),
    ] {
        for pipelining in [true, false] {
            let mut settings = failing(at, Act::Say(reply));
            if !pipelining {
                settings.features.retain(|feature| *feature != "PIPELINING");
            }
            settings.login = Some(("u", "p"));
            let server = MailServer::start(settings).await;
            let more = json!({"when_disconnected": "fail"});
            let producer = to_server(&server, json!({"user": "u", "password": "p"}), more).await;
            let error = producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap_err();
            let temporary = reply.starts_with('4');
            assert_eq!((error.kind(), error.retryable()), (kind, temporary), "{at} {reply}: {error}");
            assert_eq!(error.outcome(), Outcome::NotSent, "{at} {reply}: {error}");
            assert_eq!((error.provider(), error.parts().len()), (Some("smtp"), 0), "{error:?}");
            assert!(server.mails().is_empty());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_closes_is_unknown_only_after_the_end_of_the_data() {
    for at in STEPS {
        let server = MailServer::start(failing(at, Act::Close)).await;
        let producer = to_server(&server, json!({}), json!({"when_disconnected": "fail"})).await;
        let mut message = (*letter(&["ann@example.test"])).clone();
        if at == "<data>" {
            // More than a socket takes: the loss shows before the end.
            message.set_body("a line of text\n".repeat(1 << 19));
        }
        // Making a mail of that size takes seconds in a build for tests on a loaded machine.
        let error = producer.send(&within(60.0), Arc::new(message)).await.unwrap_err();
        assert_eq!((error.kind(), error.retryable()), (Kind::Unavailable, true), "{at}: {error}");
        let wanted = if at == "<end>" { Outcome::Unknown } else { Outcome::NotSent };
        assert_eq!(error.outcome(), wanted, "{at}: {error}");
        assert_eq!(server.mails().len(), usize::from(at == "<end>"), "{at}");
        // Nothing is sent again by itself.
        assert_eq!(server.connections(), 1, "{at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_at_each_step_ends_at_the_deadline() {
    for at in STEPS {
        let server = MailServer::start(failing(at, Act::Silence)).await;
        let producer = to_server(&server, json!({}), json!({})).await;
        let start = Instant::now();
        let error = producer.send(&within(0.4), letter(&["ann@example.test"])).await.unwrap_err();
        let took = start.elapsed();
        assert_eq!(error.kind(), Kind::Timeout, "{at}: {error}");
        // In `<data>` the server reads the mail and its end, and says nothing either.
        let wanted = if matches!(at, "<end>" | "<data>") { Outcome::Unknown } else { Outcome::NotSent };
        assert_eq!(error.outcome(), wanted, "{at}: {error}");
        assert_eq!(error.attempts(), u32::from(wanted == Outcome::Unknown), "{at}: {error}");
        assert!(took >= Duration::from_millis(390) && took < Duration::from_secs(3), "{at}: {took:?}");
        producer.close(&within(5.0)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_send_and_a_closed_producer_end_at_once_with_their_outcome() {
    for (at, outcome) in [("RCPT", Outcome::NotSent), ("<end>", Outcome::Unknown)] {
        for by_close in [false, true] {
            let server = MailServer::start(failing(at, Act::Silence)).await;
            let producer = to_server(&server, json!({}), json!({})).await;
            let token = CancellationToken::new();
            let ctx = within(20.0).cancelled_by(token.clone());
            let send = tokio::spawn({
                let producer = producer.clone();
                async move { producer.send(&ctx, letter(&["ann@example.test"])).await }
            });
            let started = Instant::now();
            while !(server.lines().iter().any(|line| line.starts_with("RCPT"))
                && (at == "RCPT" || !server.mails().is_empty()))
            {
                assert!(started.elapsed() < Duration::from_secs(10), "{at} was not reached");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let kind = if by_close {
                let late = producer.close(&within(0.1)).await.unwrap_err();
                assert_eq!(late.kind(), Kind::Timeout);
                Kind::Closed
            } else {
                token.cancel();
                Kind::Cancelled
            };
            let error =
                tokio::time::timeout(Duration::from_secs(2), send).await.unwrap().unwrap().unwrap_err();
            assert_eq!((error.kind(), error.outcome()), (kind, outcome), "{at}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_smtp_is_a_protocol_error() {
    for (at, reply) in [
        ("<connect>", "HTTP/1.1 400 Bad Request"),
        ("EHLO", "250_x"),
        ("MAIL", "999 x"),
        ("RCPT", "250-a\r\n251 b"),
        ("DATA", "250 not what was asked for"),
        ("DATA", "354 go\r\n250 2.0.0 Ok: queued"),
        ("MAIL", "334 more"),
        ("RCPT", "354 more"),
        ("RCPT", "334 more"),
        ("<end>", "354 more"),
        ("<end>", "what?"),
    ] {
        let server = MailServer::start(failing(at, Act::Say(reply))).await;
        let producer = to_server(&server, json!({}), json!({"when_disconnected": "fail"})).await;
        let error = producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Protocol, "{at}: {error}");
        let wanted = if at == "<end>" { Outcome::Unknown } else { Outcome::NotSent };
        assert_eq!(error.outcome(), wanted, "{at}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_asks_for_more_is_none() {
    for (feature, reply) in [("AUTH PLAIN", "334 "), ("AUTH LOGIN", "354 go on")] {
        let mut settings = failing("AUTH", Act::Say(reply));
        settings.features = vec![feature];
        settings.login = Some(("u", "p"));
        let server = MailServer::start(settings).await;
        let more = json!({"when_disconnected": "fail"});
        let producer = to_server(&server, json!({"user": "u", "password": "p"}), more).await;
        let error = producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Protocol, Outcome::NotSent), "{feature}: {error}");
        assert!(server.mails().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_has_its_result() {
    let rules = |seen: ceiba_tests::mail::Seen<'_>| match seen.line {
        line if line.contains("<no-") => Some(Act::Say("550 5.1.1 nobody")),
        line if line.contains("<later-") => Some(Act::Say("451 4.7.1 greylisted")),
        _ => None,
    };
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let producer = to_server(&server, json!({}), json!({})).await;
    let send = |recipients: &'static [&'static str]| {
        let producer = producer.clone();
        async move { producer.send(&within(10.0), letter(recipients)).await }
    };

    let receipt = send(&["ann@example.test", "Bob <bob@example.test>"]).await.unwrap();
    let parts = receipt.parts.unwrap();
    assert_eq!(&*parts[1].name, "Bob <bob@example.test>");
    assert!(parts.iter().all(|part| part.error.is_none() && part.of == Whole::Recipient));
    assert_eq!(server.mails().last().unwrap().to, ["ann@example.test", "bob@example.test"]);
    assert_eq!(server.mails().last().unwrap().header("message-id").as_deref(), receipt.message_id.as_deref());
    assert!(send(&["ann@example.test"]).await.unwrap().parts.is_none());

    let before = server.mails().len();
    let error = send(&["ann@example.test", "no-1@example.test", "later-1@example.test"]).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.retryable()), (Kind::Partial, Outcome::NotSent, true));
    let kinds: Vec<_> =
        error.parts().iter().map(|part| part.error.as_ref().map(|error| error.kind())).collect();
    assert_eq!(kinds, [None, Some(Kind::NotFound), Some(Kind::Throttled)]);
    assert_eq!(server.mails().len(), before + 1);
    assert_eq!(server.mails().last().unwrap().to, ["ann@example.test"]);

    let error = send(&["ann@example.test", "no-1@example.test"]).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Partial, false));
    // All refused: the kind of the refusals, and the connection is still good.
    let before = (server.mails().len(), server.connections());
    let error = send(&["no-1@example.test", "no-2@example.test"]).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable(), error.parts().len()), (Kind::NotFound, false, 2));
    let error = send(&["no-1@example.test", "later-1@example.test"]).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Throttled, true));
    assert_eq!(send(&["no-1@example.test"]).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!((server.mails().len(), server.connections()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_with_the_recipients_that_failed() {
    let tries = std::sync::atomic::AtomicUsize::new(0);
    let rules = move |seen: ceiba_tests::mail::Seen<'_>| {
        let late = seen.line.contains("<bob@");
        let first = late && tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        first.then_some(Act::Say("451 4.7.1 greylisted"))
    };
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let more = json!({"strategies": [{"type": "retry", "max_attempts": 3}]});
    let producer = to_server(&server, json!({}), more).await;
    let receipt =
        producer.send(&within(10.0), letter(&["ann@example.test", "bob@example.test"])).await.unwrap();
    assert_eq!(receipt.attempts, 2);
    let to: Vec<_> = server.mails().into_iter().map(|mail| mail.to).collect();
    assert_eq!(to, [["ann@example.test"], ["bob@example.test"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_recipients_go_as_many_mails() {
    let server = MailServer::start(Settings::default()).await;
    let producer = to_server(&server, json!({"recipients_per_mail": 500}), json!({})).await;
    let names: Vec<String> = (0..10_000).map(|number| format!("p{number}@example.test")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let receipt = producer.send(&within(60.0), letter(&names)).await.unwrap();
    assert_eq!(receipt.parts.unwrap().len(), 10_000);
    let mails = server.mails();
    assert_eq!(mails.len(), 20);
    let to: std::collections::HashSet<String> = mails.into_iter().flat_map(|mail| mail.to).collect();
    assert_eq!(to.len(), 10_000);
    for wrong in [vec![], names.iter().copied().chain(["p@example.test"]).collect()] {
        let error = producer.send(&within(10.0), letter(&wrong)).await.unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::InvalidArgument, Outcome::NotSent), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_too_large_for_the_server_is_not_written() {
    let settings = Settings { features: vec!["SIZE 1000"], ..Settings::default() };
    let server = MailServer::start(settings).await;
    let producer = to_server(&server, json!({}), json!({})).await;
    let mut large = (*letter(&["ann@example.test"])).clone();
    large.set_body("x".repeat(2000));
    let error = producer.send(&within(10.0), Arc::new(large)).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::TooLarge, false), "{error}");
    producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();
    assert_eq!((server.mails().len(), server.connections()), (1, 1));
}

/// The mail's own lines never end the data, whatever is in them.
#[tokio::test(flavor = "multi_thread")]
async fn dots_and_line_ends_of_a_text_stay_in_the_mail() {
    let server = MailServer::start(Settings::default()).await;
    let producer = to_server(&server, json!({}), json!({})).await;
    for text in [
        ".",
        "a\n.\nRCPT TO:<eve@example.test>\nb",
        "a\r\n.\r\nMAIL FROM:<x>\r\n",
        "a\r.\rb",
        "..\n.",
        "\n.\n",
        "",
    ] {
        let mut message = (*letter(&["ann@example.test"])).clone();
        message.set_body(text);
        producer.send(&within(10.0), Arc::new(message)).await.unwrap();
        let mail = server.mails().pop().unwrap();
        let (_, body) = mail.text.split_once("\n\n").unwrap();
        let wanted = text.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(body.trim_end_matches('\n'), wanted.trim_end_matches('\n'), "{text:?}");
    }
    assert_eq!(server.mails().len(), 7);
    assert_eq!(server.connections(), 1);
    assert!(!server.lines().iter().any(|line| line.contains("eve@")), "{:?}", server.lines());
}

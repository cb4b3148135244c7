//! Who gets a mail once some of its recipients failed: copies are recipients like others, and whoever has it gets it no
//! second time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ceiba_core::error::{Kind, Outcome};
use ceiba_tests::mail::{Act, MailServer, Seen, Settings};
use serde_json::json;

use crate::{letter, to_server, within};

// Refuses the first of these commands for now.
fn once(word: &'static str) -> Settings {
    let tries = AtomicUsize::new(0);
    let rules = move |seen: Seen<'_>| {
        let first = seen.line.contains(word) && tries.fetch_add(1, Ordering::Relaxed) == 0;
        first.then_some(Act::Say("451 4.7.1 greylisted"))
    };
    Settings { rules: Arc::new(rules), ..Settings::default() }
}

fn recipients(server: &MailServer) -> Vec<Vec<String>> {
    server.mails().into_iter().map(|mail| mail.to).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_copy_makes_the_send_partial() {
    let server = MailServer::start(Settings {
        rules: Arc::new(|seen: Seen<'_>| seen.line.contains("<no-").then_some(Act::Say("550 5.1.1 nobody"))),
        ..Settings::default()
    })
    .await;
    let producer = to_server(&server, json!({"bcc": "no-1@example.test"}), json!({})).await;
    let error = producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome(), error.retryable()), (Kind::Partial, Outcome::NotSent, false));
    let told: Vec<(&str, bool)> =
        error.parts().iter().map(|part| (&*part.name, part.error.is_some())).collect();
    assert_eq!(told, [("ann@example.test", false), ("bcc:no-1@example.test", true)]);
    assert_eq!(recipients(&server), [["ann@example.test"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_mails_nobody_twice_copies_among_them() {
    let copies = json!({"cc": "carl@example.test", "bcc": "eve@example.test"});
    for (failing, first, then) in [
        ("<eve@", vec!["ann@example.test", "carl@example.test"], "eve@example.test"),
        ("<carl@", vec!["ann@example.test", "eve@example.test"], "carl@example.test"),
        ("<ann@", vec!["carl@example.test", "eve@example.test"], "ann@example.test"),
    ] {
        for own in [true, false] {
            let server = MailServer::start(once(failing)).await;
            let more = json!({"strategies": [{"type": "retry", "max_attempts": 3}]});
            let mut section = copies.clone();
            section["to"] = json!("ann@example.test");
            let producer = to_server(&server, section, more).await;
            let names: &[&str] = if own { &["ann@example.test"] } else { &[] };
            let receipt = producer.send(&within(10.0), letter(names)).await.unwrap();
            assert_eq!(receipt.attempts, 2, "{failing}");
            assert_eq!(recipients(&server), [first.clone(), vec![then]], "{failing}");
            let mails = server.mails();
            assert_eq!(mails[0].header("message-id"), mails[1].header("message-id"));
            for mail in &mails {
                assert_eq!(mail.header("cc").as_deref(), Some("carl@example.test"), "{}", mail.text);
                assert!(!mail.text.contains("eve@"), "{}", mail.text);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_attempts_of_a_mail_have_one_message_id_and_another_mail_another() {
    let ends = AtomicUsize::new(0);
    let rules = move |seen: Seen<'_>| {
        let first = seen.line == "<end>" && ends.fetch_add(1, Ordering::Relaxed) == 0;
        first.then_some(Act::Close)
    };
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let more = json!({"strategies": [{"type": "retry", "max_attempts": 3}]});
    let producer = to_server(&server, json!({}), more).await;
    let message = letter(&["ann@example.test"]);
    let receipt = producer.send(&within(10.0), message.clone()).await.unwrap();
    // The same message once more is another mail.
    producer.send(&within(10.0), message).await.unwrap();
    let ids: Vec<_> = server.mails().iter().map(|mail| mail.header("message-id").unwrap()).collect();
    assert_eq!((ids.len(), receipt.message_id.as_deref()), (3, Some(ids[0].as_str())));
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_one_mail_has_no_room_for_gets_the_next() {
    for pipelining in [true, false] {
        let count = AtomicUsize::new(0);
        let rules = move |seen: Seen<'_>| {
            if seen.line.starts_with("MAIL") {
                count.store(0, Ordering::Relaxed);
            }
            let full = seen.line.starts_with("RCPT") && count.fetch_add(1, Ordering::Relaxed) >= 3;
            full.then_some(Act::Say("452 4.5.3 too many recipients"))
        };
        let mut settings = Settings { rules: Arc::new(rules), ..Settings::default() };
        if !pipelining {
            settings.features.retain(|feature| *feature != "PIPELINING");
        }
        let server = MailServer::start(settings).await;
        let producer = to_server(&server, json!({}), json!({})).await;
        let names: Vec<String> = (0..8).map(|number| format!("p{number}@example.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let receipt = producer.send(&within(10.0), letter(&names)).await.unwrap();
        assert_eq!(receipt.parts.unwrap().len(), 8);
        let sizes: Vec<usize> = recipients(&server).iter().map(Vec::len).collect();
        assert_eq!(sizes, [3, 3, 2]);
        assert_eq!(recipients(&server).concat(), names);
        // The server's limit was learned: nobody is refused any more.
        let before = server.lines().len();
        producer.send(&within(10.0), letter(&names)).await.unwrap();
        let rcpt = server.lines().split_off(before).iter().filter(|line| line.starts_with("RCPT")).count();
        assert_eq!(rcpt, 8);
    }
}

/// Replies that are longer than what the network holds: whoever reads none of them waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn long_replies_to_many_recipients_stop_nobody() {
    let reply: &'static str = Box::leak(format!("550 5.1.1 {}", "nobody ".repeat(400)).into_boxed_str());
    let rules = move |seen: Seen<'_>| seen.line.contains("<no-").then_some(Act::Say(reply));
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let producer = to_server(&server, json!({"recipients_per_mail": 10_000}), json!({})).await;
    let names: Vec<String> = (0..9_000).map(|number| format!("no-{number}@example.test")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.push("ann@example.test");
    let error = producer.send(&within(30.0), letter(&names)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Partial, "{error}");
    assert_eq!(recipients(&server), [["ann@example.test"]]);
}

//! Connections: how many, how long they are kept, and what happens when one died in the meantime.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ceiba_core::error::{Kind, Outcome};
use ceiba_tests::mail::{Act, MailServer, Seen, Settings};
use ceiba_tests::proxy::Proxy;
use futures_util::future::join_all;
use serde_json::json;

use crate::{letter, to_server, try_open, within};

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_and_used_again() {
    let server = MailServer::start(Settings::default()).await;
    let producer = to_server(&server, json!({"connections": 3}), json!({})).await;
    let sends = (0..60).map(|_| async {
        producer.send(&within(20.0), letter(&["ann@example.test"])).await.unwrap();
    });
    join_all(sends).await;
    assert_eq!(server.mails().len(), 60);
    assert!(server.connections() <= 3, "{} connections", server.connections());
    let status = producer.status();
    assert_eq!(
        (status["sent"].as_u64(), status["state"].as_str()),
        (Some(60), Some("connected")),
        "{status}"
    );
    producer.close(&within(5.0)).await.unwrap();
    let quits = server.lines().iter().filter(|line| *line == "QUIT").count() as u64;
    assert_eq!(quits, server.connections());
    let error = producer.send(&within(5.0), letter(&["ann@example.test"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Closed, Outcome::NotSent));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_died_costs_no_mail() {
    let server = MailServer::start(Settings::default()).await;
    let proxy = Proxy::start(server.address(), None).await;
    let section = json!({"url": format!("smtp://{}", proxy.address()), "tls": "none", "connections": 3});
    let producer = try_open(section, json!({})).await.unwrap();
    let all = || {
        join_all((0..3).map(|_| async { producer.send(&within(10.0), letter(&["ann@example.test"])).await }))
    };
    for round in 1..=5 {
        for sent in all().await {
            sent.unwrap();
        }
        // Each mail came once.
        assert_eq!(server.mails().len(), 3 * round);
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(20)).await;
        proxy.mend();
    }
}

/// Servers that tire of an idle client say so with 421, at the next command or before it.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_after_each_mail_is_no_error() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let rules = move |seen: Seen<'_>| {
        let second = seen.line.starts_with("MAIL") && counted.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        second.then_some(Act::SayAndClose("421 4.4.2 idle for too long"))
    };
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let producer = to_server(&server, json!({}), json!({})).await;
    for sent in 1..=4 {
        producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();
        assert_eq!(server.mails().len(), sent);
    }
}

/// What goes wrong once the mail itself was begun is no matter of an idle connection: it is told, and not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_used_connection_that_closes_in_a_mail_sends_it_no_second_time() {
    for (at, unknown) in [("<end>", true), ("<data>", false)] {
        let count = Arc::new(AtomicUsize::new(0));
        let rules = move |seen: Seen<'_>| {
            (seen.line == at && count.fetch_add(1, Ordering::Relaxed) == 1).then_some(Act::Close)
        };
        let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
        let producer = to_server(&server, json!({}), json!({})).await;
        producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();
        let error = producer.send(&within(10.0), letter(&["bob@example.test"])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{at}: {error}");
        if unknown {
            assert_eq!(error.outcome(), Outcome::Unknown, "{at}: {error}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let to: Vec<_> = server.mails().into_iter().map(|mail| mail.to).collect();
        let bobs = to.iter().filter(|to| to[..] == ["bob@example.test"]).count();
        assert_eq!((bobs, server.connections()), (usize::from(unknown), 1), "{at}");
    }
}

/// A network between may forget an idle connection and say nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_that_went_silent_costs_some_seconds_and_no_mail() {
    let count = Arc::new(AtomicUsize::new(0));
    let rules = move |seen: Seen<'_>| {
        let again = seen.line.starts_with("MAIL")
            && seen.connection < 3
            && count.fetch_add(1, Ordering::Relaxed) >= 3;
        again.then_some(Act::Silence)
    };
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let producer = to_server(&server, json!({"connections": 3}), json!({})).await;
    let ctx = within(10.0);
    let three = join_all((0..3).map(|_| producer.send(&ctx, letter(&["ann@example.test"])))).await;
    three.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(server.connections(), 3);
    // One wait for all of them.
    let begun = std::time::Instant::now();
    producer.send(&within(25.0), letter(&["ann@example.test"])).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    assert_eq!((server.mails().len(), server.connections()), (4, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_of_an_eager_open_may_die_before_the_first_mail() {
    let rules =
        |seen: Seen<'_>| (seen.line.starts_with("MAIL") && seen.connection == 0).then_some(Act::Close);
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let more = json!({"connect": "eager", "when_disconnected": "fail"});
    let producer = to_server(&server, json!({}), more).await;
    producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();
    assert_eq!((server.mails().len(), server.connections()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_after_its_time() {
    let server = MailServer::start(Settings::default()).await;
    let producer = to_server(&server, json!({"idle_time": "200ms"}), json!({})).await;
    producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();
    let started = std::time::Instant::now();
    while !server.lines().iter().any(|line| line == "QUIT") {
        assert!(started.elapsed() < Duration::from_secs(5), "the idle connection stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_wait_for_a_server_that_comes_back_unless_told_otherwise() {
    let server = MailServer::start(Settings::default()).await;
    let proxy = Proxy::start(server.address(), None).await;
    proxy.cut();
    let section = json!({"url": format!("smtp://{}", proxy.address()), "tls": "none"});
    let eager = json!({"connect": "eager", "connect_timeout": "1s"});
    let error = try_open(section.clone(), eager).await.map(drop).unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Unavailable, true), "{error}");

    let fails = try_open(section.clone(), json!({"when_disconnected": "fail"})).await.unwrap();
    let error = fails.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unavailable, Outcome::NotSent));

    let waits = try_open(section, json!({})).await.unwrap();
    let error = waits.send(&within(0.5), letter(&["ann@example.test"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::NotSent));
    assert!(
        error.text().contains("closed the connection") || error.text().contains("lost"),
        "{}",
        error.text()
    );
    assert_eq!(waits.status()["state"], "disconnected");
    let send = tokio::spawn({
        let waits = waits.clone();
        async move { waits.send(&within(20.0), letter(&["ann@example.test"])).await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.mend();
    send.await.unwrap().unwrap();
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_the_hasty_fail_at_once_behind_those_who_wait() {
    let server = MailServer::start(Settings::default()).await;
    for most in [1, 1000] {
        let proxy = Proxy::start(server.address(), None).await;
        proxy.cut();
        let section = json!({"url": format!("smtp://{}", proxy.address()), "tls": "none", "connections": 1});
        let producer = try_open(section, json!({"max_pending": most})).await.unwrap();
        let waiting = tokio::spawn({
            let producer = producer.clone();
            async move { producer.send(&within(60.0), letter(&["ann@example.test"])).await }
        });
        let begun = std::time::Instant::now();
        while producer.status()["state"] != "disconnected" {
            assert!(begun.elapsed() < Duration::from_secs(10), "{}", producer.status());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let begun = std::time::Instant::now();
        let hasty = within(30.0).failing_when_disconnected();
        let error = producer.send(&hasty, letter(&["bob@example.test"])).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        // Where there is no room it does not come to look for a connection.
        let kind = if most == 1 { Kind::QueueFull } else { Kind::Unavailable };
        assert_eq!((error.kind(), error.outcome()), (kind, Outcome::NotSent), "{error}");
        assert!(!waiting.is_finished());
        proxy.mend();
        waiting.await.unwrap().unwrap();
        let hasty = within(30.0).failing_when_disconnected();
        producer.send(&hasty, letter(&["bob@example.test"])).await.unwrap();
    }
}

/// A server that takes fewer connections than there may be is still there: who could not connect waits for one of those.
#[tokio::test(flavor = "multi_thread")]
async fn refused_connections_end_no_mail_while_others_are_at_work() {
    let rules = |seen: Seen<'_>| {
        let refused = seen.line == "<connect>" && seen.connection >= 4;
        refused.then_some(Act::SayAndClose("421 4.7.0 too many connections"))
    };
    for config in ["wait", "fail"] {
        let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
        let more = json!({"when_disconnected": config});
        let producer = to_server(&server, json!({"connections": 8}), more).await;
        // Four connections, before anybody is refused.
        let first = join_all((0..4).map(|_| async {
            producer.send(&within(30.0), letter(&["ann@example.test"])).await.unwrap();
        }));
        first.await;
        let sends = (0..2000).map(|_| async {
            let ctx = within(60.0).failing_when_disconnected();
            producer.send(&ctx, letter(&["ann@example.test"])).await
        });
        let failed: Vec<_> = join_all(sends).await.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{config}: {} failed: {}", failed.len(), failed[0]);
        assert_eq!(server.mails().len(), 2004);
        assert!(server.connections() > 4, "nobody was refused");
        assert_eq!(producer.status()["state"], "connected");
        producer.close(&within(5.0)).await.unwrap();
    }
    let none = |seen: Seen<'_>| {
        (seen.line == "<connect>").then_some(Act::SayAndClose("421 4.7.0 too many connections"))
    };
    let server = MailServer::start(Settings { rules: Arc::new(none), ..Settings::default() }).await;
    let producer = to_server(&server, json!({"connections": 2}), json!({})).await;
    let begun = std::time::Instant::now();
    let sends = (0..50).map(|_| async {
        let ctx = within(60.0).failing_when_disconnected();
        producer.send(&ctx, letter(&["ann@example.test"])).await.unwrap_err().kind()
    });
    assert!(join_all(sends).await.iter().all(|kind| *kind == Kind::Unavailable));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_sends_than_there_is_room_for_wait_until_their_deadline() {
    let rules = |seen: Seen<'_>| (seen.line == "<end>").then_some(Act::Silence);
    let server = MailServer::start(Settings { rules: Arc::new(rules), ..Settings::default() }).await;
    let producer = to_server(&server, json!({"connections": 1}), json!({"max_pending": 2})).await;
    // The second ends while the first still has the connection.
    let mut sends = Vec::new();
    for seconds in [2.5, 1.0] {
        let producer = producer.clone();
        sends.push(tokio::spawn(async move {
            producer.send(&within(seconds), letter(&["ann@example.test"])).await
        }));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let error = producer.send(&within(0.2), letter(&["ann@example.test"])).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::QueueFull, Outcome::NotSent), "{error}");
    let mut outcomes = Vec::new();
    for send in sends {
        outcomes.push(send.await.unwrap().unwrap_err().outcome());
    }
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::NotSent]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_eager_open_logs_in() {
    let settings = Settings { login: Some(("u", "right")), ..Settings::default() };
    let server = MailServer::start(settings.clone()).await;
    let open = |password: &str| {
        let section =
            json!({"url": format!("smtp://u@{}", server.address()), "tls": "none", "password": password});
        try_open(section, json!({"connect": "eager"}))
    };
    let error = open("wrong").await.map(drop).unwrap_err();
    assert_eq!((error.kind(), error.retryable()), (Kind::Authentication, false), "{error}");
    let producer = open("right").await.unwrap();
    producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();
    // The connection of the open is the one of the send.
    assert_eq!(server.connections(), 2);

    let only_login = Settings { features: vec!["AUTH LOGIN"], ..settings.clone() };
    let server = MailServer::start(only_login).await;
    let login = json!({"user": "u", "password": "right"});
    let producer = to_server(&server, login.clone(), json!({"connect": "eager"})).await;
    producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap();

    let none = Settings { features: vec!["AUTH CRAM-MD5"], ..settings };
    let server = MailServer::start(none).await;
    let producer = to_server(&server, login, json!({})).await;
    let error = producer.send(&within(10.0), letter(&["ann@example.test"])).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Authentication, "{error}");
}

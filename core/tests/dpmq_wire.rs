//! The DPMQ front against raw sockets: each row of the wire, and what is mended of the original.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod socket;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode};
use ceiba_core::wire::kapokmq::Node;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use socket::{Answer, Ended, LONG, Socket, http, post, start, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};

async fn dpmq() -> Broker {
    start(|config| config.dpmq = true).await
}

async fn consumer(address: SocketAddr, topic: &str, id: &str) -> Socket {
    Socket::dial(address, &format!("/ConsumersConn/{topic}/{id}")).await.unwrap()
}

/// Sends without a key; the answer.
async fn send(address: SocketAddr, form: &str) -> Answer {
    http(address, "POST", "/ProducerSend", "", form).await
}

/// Sends and returns the code.
async fn sent(address: SocketAddr, topic: &str, data: &str) -> String {
    let answer = send(address, &format!("messageData={data}&topic={topic}")).await;
    let value: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(value["code"], 0, "{answer:?}");
    value["msg"].as_str().unwrap().to_owned()
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    http(address, "GET", path, "", "").await
}

async fn consumed(broker: &Broker, count: u64) {
    until("the consumption", || broker.status().acknowledged == count).await;
}

#[tokio::test]
async fn a_message_is_sent_by_http_and_pushed() {
    let broker = dpmq().await;
    let mut socket = consumer(broker.address(), "t", "c").await;
    let before = chrono::Local::now().naive_local() - Duration::from_secs(1);
    let answer = send(broker.address(), "messageData=early+%3Cb%3E&topic=t").await;
    assert_eq!((answer.status, answer.kind.as_str()), (200, "application/json; charset=utf-8"));
    let code = answer.body.strip_prefix(r#"{"code":0,"msg":""#).unwrap().strip_suffix("\"}").unwrap();
    assert_eq!(code.len(), 40);
    assert!(code.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)), "{code}");
    let frame = socket.text().await;
    let head =
        format!(r#"{{"MessageCode":"{code}","MessageData":"early \u003cb\u003e","Topic":"t","CreateTime":""#);
    let rest = frame.strip_prefix(&head).unwrap_or_else(|| panic!("{frame}"));
    let time = rest.strip_suffix("\",\"Status\":0}\n").unwrap_or_else(|| panic!("{frame}"));
    let time = chrono::NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M:%S").unwrap();
    assert!(time >= before && time <= chrono::Local::now().naive_local(), "{time} is not local");
    consumed(&broker, 1).await;
    let status = broker.status();
    assert_eq!((status.accepted, status.pushed, status.waiting, status.unacked), (1, 1, 0, 0));
    socket.quiet(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_multipart_form_and_empty_data_are_taken() {
    let broker = dpmq().await;
    let mut socket = consumer(broker.address(), "t", "c").await;
    let body = concat!(
        "--b\r\nContent-Disposition: form-data; name=\"messageData\"\r\n\r\nin\r\nparts\r\n",
        "--b\r\nContent-Disposition: form-data; name=\"topic\"\r\n\r\nt\r\n--b--\r\n"
    );
    let mut stream = TcpStream::connect(broker.address()).await.unwrap();
    let head = format!(
        "POST /ProducerSend HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\
         Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains(r#"{"code":0,"msg":""#), "{answer}");
    assert_eq!(socket.push().await["MessageData"], "in\r\nparts");
    sent(broker.address(), "t", "").await;
    assert_eq!(socket.push().await["MessageData"], "");
}

#[tokio::test]
async fn a_topic_with_a_bar_is_refused() {
    let broker = dpmq().await;
    let answer = send(broker.address(), "messageData=x&topic=a%7Cb").await;
    assert_eq!((answer.status, answer.kind.as_str()), (200, "application/json; charset=utf-8"));
    assert_eq!(answer.body, r#"{"code":-1,"msg":"topic不能包含字符“|”"}"#);
    for path in ["/ConsumersConn/a%7Cb/c", "/ConsumersConn/t/a%7Cb"] {
        match Socket::dial(broker.address(), path).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 400, "{path}"),
            other => panic!("{path}: {:?}", other.map(|_| "accepted")),
        }
    }
    assert_eq!(broker.status().accepted, 0);
}

#[tokio::test]
async fn mended_an_empty_topic_is_refused() {
    let broker = dpmq().await;
    for form in ["messageData=x&topic=", "messageData=x", "", "{\"topic\":\"t\"}"] {
        let answer = send(broker.address(), form).await;
        assert_eq!(answer.status, 200);
        assert!(answer.body.starts_with(r#"{"code":-1,"msg":""#), "{form}: {}", answer.body);
    }
    let long = send(broker.address(), &format!("messageData=x&topic={}", "t".repeat(5000))).await;
    assert!(long.body.starts_with(r#"{"code":-1"#), "{}", long.body);
    assert_eq!((broker.status().accepted, broker.status().topics), (0, 0));
}

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let broker = dpmq().await;
    for path in ["/ConsumersConn//c", "/ConsumersConn/t/", "/ConsumersConn/t", "/ConsumersConn/t%2Fu/c"] {
        match Socket::dial(broker.address(), path).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 404, "{path}"),
            other => panic!("{path}: {:?}", other.map(|_| "accepted")),
        }
    }
    assert_eq!(get(broker.address(), "/ConsumersConn/t/c").await.status, 400);
    assert_eq!(get(broker.address(), "/ProducerSend").await.status, 404);
    let posted = http(broker.address(), "POST", "/Console/GetConsumers", "test", "").await;
    assert_eq!((posted.status, posted.body.as_str()), (404, "404 page not found"));
}

#[tokio::test]
async fn every_consumer_of_the_topic_gets_each_message() {
    let broker = dpmq().await;
    let address = broker.address();
    let mut sockets = Vec::new();
    for id in ["c1", "c2", "c3"] {
        sockets.push(consumer(address, "t", id).await);
    }
    let mut other = consumer(address, "u", "c1").await;
    until("the joins", || broker.status().consumers == 4).await;
    let mut codes = Vec::new();
    for number in 0..100 {
        codes.push(sent(address, "t", &number.to_string()).await);
    }
    for socket in &mut sockets {
        for (number, code) in codes.iter().enumerate() {
            let push = socket.push().await;
            assert_eq!(push["MessageData"], number.to_string());
            assert_eq!(
                (&push["MessageCode"], &push["Status"]),
                (&Value::from(code.as_str()), &Value::from(0))
            );
        }
    }
    other.quiet(Duration::from_millis(100)).await;
    consumed(&broker, 300).await;
    assert_eq!(broker.status().waiting, 0);
}

#[tokio::test]
async fn mended_codes_are_unique() {
    let broker = dpmq().await;
    let mut codes = HashSet::new();
    for _ in 0..500 {
        codes.insert(sent(broker.address(), "t", "the+same").await);
    }
    assert_eq!(codes.len(), 500);
    // The original's console knows a message by the first 32 digits.
    let code = codes.iter().next().unwrap();
    let found = post(broker.address(), "/Console/GetMessage", &format!("messageCode={}", &code[..32])).await;
    assert!(found.contains(r#""MessageData":"the same""#), "{found}");
}

#[tokio::test]
async fn mended_messages_wait_for_the_first_consumer_of_their_topic() {
    let broker = dpmq().await;
    let address = broker.address();
    for number in 0..10 {
        sent(address, "t", &number.to_string()).await;
    }
    // The original discards them as soon as any other topic has a consumer.
    let mut other = consumer(address, "u", "c").await;
    sent(address, "u", "x").await;
    assert_eq!(other.push().await["MessageData"], "x");
    let mut late = consumer(address, "t", "c").await;
    for number in 0..10 {
        assert_eq!(late.push().await["MessageData"], number.to_string());
    }
    late.quiet(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn consumed_when_written_and_never_again() {
    let broker = start(|config| {
        config.dpmq = true;
        config.redeliver_after = Duration::from_millis(200);
    })
    .await;
    let mut first = consumer(broker.address(), "t", "c").await;
    sent(broker.address(), "t", "x").await;
    assert_eq!(first.push().await["MessageData"], "x");
    first.quiet(Duration::from_millis(600)).await;
    drop(first);
    let mut again = consumer(broker.address(), "t", "c").await;
    again.quiet(Duration::from_millis(400)).await;
    let status = broker.status();
    assert_eq!((status.waiting, status.unacked, status.redelivered, status.stored_bytes), (0, 0, 0, 0));
}

#[tokio::test]
async fn the_console() {
    let broker = dpmq().await;
    let address = broker.address();
    let none = get(address, "/Console/GetConsumers").await;
    assert_eq!((none.status, none.kind.as_str()), (200, "application/json; charset=utf-8"));
    assert_eq!(none.body, r#"{"code":0,"data":{}}"#);
    let _b = consumer(address, "t2", "b").await;
    let _a = consumer(address, "t1", "a%3C").await;
    until("the joins", || broker.status().consumers == 2).await;
    let both = get(address, "/Console/GetConsumers").await;
    assert_eq!(both.body, r#"{"code":0,"data":{"a\u003c":"t1","b":"t2"}}"#);
    let settings = get(address, "/Console/GetConfig").await;
    assert_eq!((settings.status, settings.kind.as_str()), (200, "application/json; charset=utf-8"));
    assert_eq!(
        settings.body,
        r#"{"code":0,"data":{"messageChanBuffer":0,"pushMessagesSpeed":0,"sendRetryCount":0}}"#
    );
    // By POST, with the key, it is KapokMQ's.
    let kapokmq = post(address, "/Console/GetConfig", "").await;
    assert!(kapokmq.contains(r#""pushType":1"#), "{kapokmq}");
}

#[tokio::test]
async fn mended_an_id_on_several_topics_is_listed_for_each() {
    let broker = dpmq().await;
    let address = broker.address();
    let _first = consumer(address, "t1", "c").await;
    until("the first", || broker.status().consumers == 1).await;
    let _second = consumer(address, "t2", "c").await;
    until("the second", || broker.status().consumers == 2).await;
    let listed = get(address, "/Console/GetConsumers").await;
    assert_eq!(listed.body, r#"{"code":0,"data":{"c":"t1","c|t2":"t2"}}"#);
}

#[tokio::test]
async fn mended_a_closed_consumer_is_gone_at_once() {
    let broker = dpmq().await;
    let address = broker.address();
    let mut polite = consumer(address, "t", "polite").await;
    let rude = consumer(address, "t", "rude").await;
    until("the joins", || broker.status().consumers == 2).await;
    let at = tokio::time::Instant::now();
    polite.0.close(None).await.unwrap();
    drop(rude);
    until("the end of both", || broker.status().consumers == 0).await;
    assert!(at.elapsed() < Duration::from_secs(2), "{:?}", at.elapsed());
    assert_eq!(get(address, "/Console/GetConsumers").await.body, r#"{"code":0,"data":{}}"#);
    assert!(matches!(polite.ended().await, Ended::Dropped | Ended::Closed(_)));
}

#[tokio::test]
async fn mended_pings_are_answered_and_what_a_consumer_says_is_ignored() {
    let broker = dpmq().await;
    let mut socket = consumer(broker.address(), "t", "c").await;
    socket.0.send(Message::Ping("are you there".into())).await.unwrap();
    let pong = tokio::time::timeout(LONG, socket.0.next()).await.expect("no pong in time");
    assert!(matches!(&pong, Some(Ok(Message::Pong(data))) if data == "are you there"), "{pong:?}");
    for text in ["ok", "", "0e1c1d30a6950cb14c9e79c66fa4e21b6b016082"] {
        socket.send(text).await;
    }
    sent(broker.address(), "t", "x").await;
    assert_eq!(socket.push().await["MessageData"], "x");
    let _ = socket.0.send(Message::text("x".repeat(100_000))).await;
    assert!(matches!(socket.ended().await, Ended::Closed(1009) | Ended::Dropped));
}

#[tokio::test]
async fn the_newest_of_two_equal_consumers_stays() {
    let broker = dpmq().await;
    let mut first = consumer(broker.address(), "t", "c").await;
    until("the first", || broker.status().consumers == 1).await;
    let mut second = consumer(broker.address(), "t", "c").await;
    assert_eq!(first.ended().await, Ended::Closed(1000));
    sent(broker.address(), "t", "x").await;
    assert_eq!(second.push().await["MessageData"], "x");
    assert_eq!(broker.status().consumers, 1);
}

#[tokio::test]
async fn mended_a_consumer_that_does_not_read_keeps_nothing_from_others() {
    let broker = dpmq().await;
    let address = broker.address();
    let _deaf = consumer(address, "t", "deaf").await;
    let mut socket = consumer(address, "t", "c").await;
    until("the joins", || broker.status().consumers == 2).await;
    // More than the buffers between hold.
    let data = "x".repeat(1 << 20);
    for _ in 0..24 {
        sent(address, "t", &data).await;
        assert_eq!(socket.push().await["MessageData"].as_str().unwrap().len(), data.len());
    }
    assert!(broker.status().waiting > 0, "the deaf one's messages wait");
}

#[tokio::test]
async fn mended_connections_come_and_go_under_load() {
    let broker = dpmq().await;
    let address = broker.address();
    let mut steady = consumer(address, "t", "steady").await;
    until("the join", || broker.status().consumers == 1).await;
    let churn = tokio::spawn(async move {
        for round in 0..200 {
            drop(consumer(address, "t", &format!("c{}", round % 7)).await);
        }
    });
    for number in 0..300 {
        sent(address, "t", &number.to_string()).await;
    }
    let mut seen = HashSet::new();
    while seen.len() < 300 {
        let push = steady.push().await;
        let number: u32 = push["MessageData"].as_str().unwrap().parse().unwrap();
        assert!(seen.insert(number), "{number} came twice");
    }
    churn.await.unwrap();
    until("the end of the others", || broker.status().consumers == 1).await;
}

#[tokio::test]
async fn topics_are_shared_and_the_first_use_fixes_the_mode() {
    let broker = dpmq().await;
    let address = broker.address();
    // Made by KapokMQ as a work queue: one consumer gets a message.
    let mut producer = Socket::producer(address, "work").await;
    let mut one = consumer(address, "work", "one").await;
    let mut two = consumer(address, "work", "two").await;
    until("the joins", || broker.status().consumers == 2).await;
    for number in 0..10 {
        producer.produce(&number.to_string(), 0).await;
    }
    consumed(&broker, 10).await;
    let (mut by_one, mut by_two) = (0, 0);
    while by_one + by_two < 10 {
        tokio::select! {
            _ = one.push() => by_one += 1,
            _ = two.push() => by_two += 1,
        }
    }
    one.quiet(Duration::from_millis(100)).await;
    two.quiet(Duration::from_millis(100)).await;
    // Made by DPMQ: every consumer, KapokMQ's with its ack.
    let mut dpmq = consumer(address, "all", "d").await;
    until("the join", || broker.status().consumers == 3).await;
    let mut kapokmq = Socket::consumer(address, "all", "k").await;
    until("the join", || broker.status().consumers == 4).await;
    let code = sent(address, "all", "x").await;
    assert_eq!(dpmq.push().await["MessageCode"], code);
    let push = kapokmq.push().await;
    assert_eq!((&push["MessageData"], &push["MessageCode"]), (&"x".into(), &Value::from(&code[..32])));
    assert_eq!(broker.status().waiting, 1, "KapokMQ's consumer has not acknowledged");
    kapokmq.send(push["MessageCode"].as_str().unwrap()).await;
    until("the ack", || broker.status().waiting == 0).await;
    let clients = post(address, "/Console/GetClients", "").await;
    for id in ["one", "two", "d", "k"] {
        assert!(clients.contains(&format!(r#""ConsumerId":"{id}""#)), "{clients}");
    }
    let listed = get(address, "/Console/GetConsumers").await;
    assert_eq!(listed.body, r#"{"code":0,"data":{"d":"all","one":"work","two":"work"}}"#);
}

#[tokio::test]
async fn a_delayed_message_of_kapokmq_comes_when_it_is_due() {
    let broker = dpmq().await;
    let mut socket = consumer(broker.address(), "t", "c").await;
    until("the join", || broker.status().consumers == 1).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    producer.produce("late", 1).await;
    socket.quiet(Duration::from_millis(700)).await;
    assert_eq!(socket.push().await["MessageData"], "late");
}

#[tokio::test]
async fn without_room_a_message_is_refused_with_its_own_text() {
    let broker = start(|config| {
        config.dpmq = true;
        config.limits.stored_bytes = 1000;
        config.limits.topics = 1;
        config.limits.frame_bytes = 2000;
    })
    .await;
    let address = broker.address();
    sent(address, "t", &"x".repeat(800)).await;
    let full = send(address, &format!("messageData={}&topic=t", "x".repeat(800))).await.body;
    let many = send(address, "messageData=x&topic=u").await.body;
    let long = send(address, &format!("messageData={}&topic=t", "x".repeat(2001))).await.body;
    let distinct: HashSet<&String> = [&full, &many, &long].into();
    assert_eq!(distinct.len(), 3, "{distinct:?}");
    assert!(distinct.iter().all(|answer| answer.starts_with(r#"{"code":-1,"msg":""#)), "{distinct:?}");
    let mut socket = consumer(address, "t", "c").await;
    socket.push().await;
    until("room", || broker.status().stored_bytes == 0).await;
    sent(address, "t", &"x".repeat(800)).await;
    // A consumer of one topic too many is told so.
    let mut other = consumer(address, "u", "c").await;
    assert_eq!(other.ended().await, Ended::Closed(1013));
}

#[tokio::test]
async fn a_stop_closes_consumers_with_a_reason() {
    let broker = dpmq().await;
    let mut socket = consumer(broker.address(), "t", "c").await;
    until("the join", || broker.status().consumers == 1).await;
    let (stopped, ended) = tokio::join!(broker.stop(Duration::from_secs(5)), socket.ended());
    assert!(stopped);
    assert_eq!(ended, Ended::Closed(1001));
}

/// It has no secret, so it is there only when it was asked for.
#[tokio::test]
async fn off_unless_the_configuration_says_so() {
    let standard = BrokerConfig::new(ceiba_core::secret::Secret::new("test"));
    assert!(!standard.dpmq);
    let broker = start(|config| {
        config.delivery = DeliveryMode::PublishSubscribe;
        config.nodes = vec![Node::at("10.0.0.7", 8011)];
    })
    .await;
    for path in ["/Console/GetConsumers", "/Console/GetConfig", "/ConsumersConn/t/c"] {
        let answer = get(broker.address(), path).await;
        assert_eq!((answer.status, answer.body.as_str()), (404, "404 page not found"), "{path}");
    }
    assert_eq!(send(broker.address(), "messageData=x&topic=t").await.status, 404);
    assert_eq!(broker.status().accepted, 0);
}

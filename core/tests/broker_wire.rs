//! The broker's side of the wire: login, frames, HTTP, and how bad ones end.

mod socket;

use std::time::Duration;

use ceiba_core::secret::Secret;
use ceiba_core::wire::kapokmq::Node;
use futures_util::SinkExt;
use socket::{Ended, Socket, http, post, send_frame, start, until};
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};

#[tokio::test]
async fn a_wrong_key_is_asked_for_again_and_the_third_closes() {
    let broker = start(|_| {}).await;
    for path in ["/Producers/Conn/t/p", "/Consumers/Conn/t/c"] {
        let mut socket = Socket::dial(broker.address(), path).await.unwrap();
        for _ in 0..3 {
            assert_eq!(socket.text().await, "Please enter the secret key");
            socket.send("wrong").await;
            assert_eq!(socket.text().await, "Secret key matching error");
        }
        assert_eq!(socket.ended().await, Ended::Closed(1008));
    }
    let mut socket = Socket::dial(broker.address(), "/Producers/Conn/t/p").await.unwrap();
    socket.text().await;
    socket.send("").await;
    assert_eq!(socket.text().await, "Secret key matching error");
    assert_eq!(socket.text().await, "Please enter the secret key");
    socket.0.send(Message::binary("test")).await.unwrap();
    assert_eq!(socket.text().await, "Secret key matching succeeded");
    assert_eq!(broker.status().failed_logins, 7);
    assert_eq!(broker.status().producers, 1);
}

#[tokio::test]
async fn a_login_that_takes_too_long_is_closed() {
    let broker = start(|config| config.limits.login = Duration::from_millis(200)).await;
    let mut socket = Socket::dial(broker.address(), "/Producers/Conn/t/p").await.unwrap();
    assert_eq!(socket.text().await, "Please enter the secret key");
    assert_eq!(socket.ended().await, Ended::Closed(1008));
}

#[tokio::test]
async fn before_the_login_little_may_be_sent() {
    let broker = start(|_| {}).await;
    let mut socket = Socket::dial(broker.address(), "/Producers/Conn/t/p").await.unwrap();
    // The server may drop while this is being written.
    let _ = socket.0.send(Message::text("x".repeat(10 << 20))).await;
    assert_eq!(socket.ended().await, Ended::Dropped);
}

#[tokio::test]
async fn paths_that_lead_nowhere() {
    let broker = start(|_| {}).await;
    for (path, status) in [
        ("/Producers/Conn//p", 404),
        ("/Consumers/Conn//c", 404),
        ("/Producers/Conn/t/", 404),
        ("/Producers/Conn/t%2Fu/p", 404),
        ("/Producers/Conn/t/p%2F", 404),
        ("/Producers/Conn/t", 404),
        ("/", 404),
        ("/Producers/Conn/%FF/p", 400),
    ] {
        match Socket::dial(broker.address(), path).await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), status, "{path}"),
            Err(error) => panic!("{path}: {error}"),
            Ok(_) => panic!("{path} was accepted"),
        }
    }
    let plain = http(broker.address(), "GET", "/Producers/Conn/t/p", "", "").await;
    assert_eq!((plain.status, plain.body.as_str()), (400, "Bad Request"));
    let unknown = http(broker.address(), "GET", "/Console/Ping", "test", "").await;
    assert_eq!((unknown.status, unknown.body.as_str()), (404, "404 page not found"));
    assert_eq!(unknown.kind, "text/plain");
}

#[tokio::test]
async fn acks_come_in_order_and_a_bad_frame_drops_after_them() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    for number in 0..1000 {
        producer.0.feed(Message::text(send_frame(&number.to_string(), 0))).await.unwrap();
    }
    producer.0.flush().await.unwrap();
    for _ in 0..1000 {
        assert_eq!(producer.text().await, "ok");
    }
    producer.0.feed(Message::text(send_frame("good", 0))).await.unwrap();
    producer.0.feed(Message::text("bad")).await.unwrap();
    producer.0.flush().await.unwrap();
    assert_eq!(producer.text().await, "ok");
    assert_eq!(producer.ended().await, Ended::Dropped);
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    for number in 0..1000 {
        assert_eq!(consumer.consume().await, number.to_string());
    }
    assert_eq!(consumer.consume().await, "good");
    until("the last ack", || broker.status().acknowledged == 1001).await;
    let status = broker.status();
    assert_eq!((status.accepted, status.bad_frames, status.waiting, status.stored_bytes), (1001, 1, 0, 0));
}

#[tokio::test]
async fn mended_frames() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    producer.send(&send_frame("x", i64::MAX)).await;
    assert_eq!(producer.ended().await, Ended::Dropped);
    let mut producer = Socket::producer(broker.address(), "t").await;
    let bytes = b"{\"MessageData\":\"a\xffb\",\"DelayTime\":0}";
    let frame = Frame::message(&bytes[..], OpCode::Data(Data::Text), true);
    producer.0.send(Message::Frame(frame)).await.unwrap();
    assert_eq!(producer.ended().await, Ended::Closed(1007));
    let mut producer = Socket::producer(broker.address(), "t").await;
    producer.0.send(Message::binary(&bytes[..])).await.unwrap();
    assert_eq!(producer.text().await, "ok");
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    assert_eq!(consumer.consume().await, "a\u{fffd}b");
    consumer.quiet(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_frame_over_the_cap_is_refused_by_its_head() {
    let broker = start(|config| config.limits.frame_bytes = 100_000).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let body = "x".repeat(99_000);
    producer.produce(&body, 0).await;
    let _ = producer.0.send(Message::text(send_frame(&"x".repeat(200_000), 0))).await;
    assert!(matches!(producer.ended().await, Ended::Closed(1009) | Ended::Dropped));
    assert_eq!(broker.status().accepted, 1);
}

#[tokio::test]
async fn a_large_message_passes() {
    let broker = start(|_| {}).await;
    let mut producer = Socket::producer(broker.address(), "t").await;
    let mut consumer = Socket::consumer(broker.address(), "t", "c").await;
    let body = "<\"木>".repeat(1 << 19);
    producer.produce(&body, 0).await;
    assert!(consumer.consume().await == body);
}

#[tokio::test]
async fn http_sends_and_the_console() {
    let broker = start(|config| {
        config.secret = Secret::new("test");
        config.nodes = vec![Node::at("10.0.0.7", 8011)];
    })
    .await;
    let address = broker.address();
    let refused = http(address, "POST", "/Console/Ping", "tesd", "").await;
    assert_eq!((refused.status, refused.kind.as_str()), (200, "application/json; charset=utf-8"));
    assert_eq!(refused.body, r#"{"code":-1,"msg":"Secret key matching error"}"#);
    assert_eq!(post(address, "/Console/Ping", "").await, r#"{"code":0}"#);
    let sent = post(address, "/Producer/Send", "messageData=a+%3Cb%3E&topic=t&delayTime=0").await;
    let code = sent.strip_prefix(r#"{"code":0,"msg":""#).unwrap().strip_suffix("\"}").unwrap();
    assert_eq!(code.len(), 32);
    let found = post(address, "/Console/GetMessage", &format!("messageCode={code}")).await;
    assert!(found.starts_with(&format!(
        r#"{{"code":0,"data":{{"MessageCode":"{code}","MessageData":"a \u003cb\u003e","Topic":"t","CreateTime":"#
    )));
    assert!(found.ends_with(r#","ConsumedTime":0,"DelayTime":0,"Status":-1}}"#));
    let mut consumer = Socket::consumer(address, "t", "c").await;
    assert_eq!(consumer.push().await["MessageCode"], code);
    consumer.send(code).await;
    until("the ack", || broker.status().acknowledged == 1).await;
    let found = post(address, "/Console/GetMessage", &format!("messageCode={code}")).await;
    assert!(found.contains(r#""Status":1"#), "{found}");
    assert_eq!(
        post(address, "/Console/CountMessage", "").await,
        r#"{"code":0,"data":{"all":1,"consumed":1,"delay":0,"unconsumed":0}}"#
    );
    let clients = post(address, "/Console/GetClients", "").await;
    assert!(clients.starts_with(
        r#"{"code":0,"consumers":[{"ConsumerId":"c","Topic":"t","ConsumerIp":"127.0.0.1","JoinTime":"#
    ));
    assert!(clients.ends_with(r#"}],"producers":null}"#));
    let nodes = http(address, "POST", "/Registry/GetNodes", "test", "").await;
    assert_eq!(nodes.kind, "text/plain; charset=utf-8");
    let (own, port) = ("127.0.0.1", address.port());
    assert_eq!(
        nodes.body,
        format!(
            r#"[{{"Name":"mq:{own}:{port}","Addr":"{own}","Port":"{port}"}},{}]"#,
            r#"{"Name":"mq:10.0.0.7:8011","Addr":"10.0.0.7","Port":"8011"}"#
        )
    );
    let overflow =
        post(address, "/Producer/Send", "messageData=a&topic=t&delayTime=9223372036854775807").await;
    assert!(overflow.starts_with(r#"{"code":-1,"msg":{"Func":"ParseInt""#));
}

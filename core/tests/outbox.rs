//! The calls on a client with an outbox, from its opening to its close.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::calls::{self, outbox};
use ceiba_core::config::ClientConfig;
use ceiba_core::error::{Kind, Result};
use ceiba_core::message::{Disposition, Message};
use serde_json::{Value, json};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        let path = std::env::temp_dir().join(format!("ceiba-outbox-calls-{:032x}", rand::random::<u128>()));
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn url(&self) -> String {
        format!("sqlite:{}/outbox.db", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn open(id: &str, value: Value) -> Result<Arc<str>> {
    calls::producer_open(Some(id), ClientConfig::from_json(value).unwrap(), None).await
}

async fn receive_one(id: &str, topic: &str) -> String {
    let config = json!({"role": "consumer", "provider": {"type": "memory", "topic": topic}});
    calls::consumer_open(Some(id), ClientConfig::from_json(config).unwrap()).await.unwrap();
    let mut deliveries = calls::consumer_receive(id, 1, Some(Duration::from_secs(5))).await.unwrap();
    let delivery = deliveries.pop().expect("nothing came");
    calls::consumer_ack(id, vec![delivery.code]).await.unwrap();
    calls::consumer_close(id, None).await.unwrap();
    String::from_utf8(delivery.message.body().to_vec()).unwrap()
}

async fn send(id: &str, body: &str) -> Result<ceiba_core::message::Receipt> {
    calls::producer_send(id, Message::new(body.to_owned()), None).await
}

/// The text for a scraper has these samples of the outbox of this producer.
fn scraped(id: &str, wanted: &[(&str, &str)]) {
    let metrics = calls::metrics();
    let labels =
        format!(r#"id="{id}",role="producer",provider="memory",strategy="outbox",type="outbox",place="0""#);
    for (name, value) in wanted {
        let line = format!("ceiba_strategy_{name}{{{labels}}} {value}");
        assert!(metrics.lines().any(|there| there == line), "{line}\nis not in\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_counted_by_state_for_a_scraper() {
    let folder = Folder::new();
    open(
        "counted",
        json!({"provider": {"type": "memory", "topic": "counted", "capacity": 1},
               "strategies": [{"type": "outbox", "url": folder.url(), "max_attempts": 1, "keep_done": "1h"}]}),
    )
    .await
    .unwrap();
    for body in ["through", "late", "never"] {
        send("counted", body).await.unwrap();
    }
    assert_eq!(outbox::drain("counted", None).await.unwrap()["given_up"], 2, "the topic is full");
    scraped("counted", &[("rows_dead", "2"), ("rows_pending", "0"), ("given_up_total", "2")]);
    assert_eq!(receive_one("counted-c", "counted").await, "through");
    let rows = outbox::list("counted", json!({"state": "dead"}), None).await.unwrap();
    outbox::retry("counted", json!({"ids": [rows["rows"][0]["id"]]}), None).await.unwrap();
    assert_eq!(receive_one("counted-c", "counted").await, "late");
    send("counted", "fills").await.unwrap();
    send("counted", "waits").await.unwrap();
    let status = || calls::producer_status("counted").unwrap()["strategies"][0].clone();
    let until = tokio::time::Instant::now() + Duration::from_secs(30);
    // Counted from time to time.
    while status()["rows_pending"] != 1 {
        assert!(tokio::time::Instant::now() < until, "{}", status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    scraped(
        "counted",
        &[
            ("rows_pending", "1"),
            ("rows_leased", "0"),
            ("rows_done", "1"),
            ("rows_dead", "1"),
            ("stored_total", "3"),
            ("sent_total", "1"),
            ("failed_total", "2"),
        ],
    );
    assert!(status()["oldest_ms"].as_u64().is_some_and(|age| age > 0), "{}", status());
    assert!(calls::metrics().contains("ceiba_strategy_oldest_seconds{"));
    calls::producer_close("counted", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_stored_looked_at_and_drained() {
    let folder = Folder::new();
    // A topic that holds one message refuses the second.
    open(
        "slice",
        json!({"provider": {"type": "memory", "topic": "slice", "capacity": 1},
               "strategies": [{"type": "outbox", "url": folder.url()}, {"type": "retry", "max_attempts": 2}]}),
    )
    .await
    .unwrap();
    assert_eq!(send("slice", "first").await.unwrap().disposition, Disposition::Sent);
    let receipt = send("slice", "second").await.unwrap();
    assert_eq!((receipt.disposition, receipt.attempts), (Disposition::Stored, 2));
    assert_eq!(receipt.to_json()["stored"], true);
    let row = receipt.message_id.unwrap();
    // By the client's id, and by the store's address, as the program does.
    for target in ["slice".to_owned(), folder.url()] {
        let rows = outbox::list(&target, json!({"state": "pending"}), None).await.unwrap();
        assert_eq!((rows["rows"][0]["id"].as_str(), rows["next"].is_null()), (Some(&*row), true));
        assert_eq!(
            outbox::show(&target, json!({"id": &*row}), None).await.unwrap()["message"]["body"],
            "second"
        );
        let stats = outbox::stats(&target, json!({}), None).await.unwrap();
        assert_eq!(
            (&stats["producers"][0]["producer"], &stats["producers"][0]["pending"]),
            (&json!("slice"), &json!(1))
        );
    }
    let drained = outbox::drain("slice", None).await.unwrap();
    assert_eq!(drained, json!({"sent": 0, "failed": 1, "given_up": 0}), "the topic is full");
    assert_eq!(receive_one("slice-c", "slice").await, "first");
    assert_eq!(outbox::drain("slice", None).await.unwrap()["sent"], 1);
    assert_eq!(receive_one("slice-c", "slice").await, "second");
    let rows = outbox::list("slice", json!({}), None).await.unwrap();
    assert_eq!(rows["rows"], json!([]));
    scraped(
        "slice",
        &[
            ("stored_total", "1"),
            ("not_stored_total", "0"),
            ("sent_total", "1"),
            ("failed_total", "1"),
            ("given_up_total", "0"),
            ("store_failures_total", "0"),
            ("rows_pending", "0"),
            ("rows_leased", "0"),
            ("rows_done", "0"),
            ("rows_dead", "0"),
        ],
    );
    calls::producer_close("slice", None).await.unwrap();
    let error = outbox::list("slice", json!({}), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UnknownId);
}

#[tokio::test(flavor = "multi_thread")]
async fn always_through_submits() {
    let folder = Folder::new();
    let queue = ceiba_core::completion::CompletionQueue::new(100).unwrap();
    let queue = Arc::new(queue);
    let config = json!({"provider": {"type": "memory", "topic": "always"},
                        "strategies": [{"type": "outbox", "url": folder.url(), "when": "always"}]});
    calls::producer_open(Some("always"), ClientConfig::from_json(config).unwrap(), Some(queue.clone()))
        .await
        .unwrap();
    for token in 0..20 {
        calls::producer_submit("always", token, token.to_string().as_bytes(), Duration::ZERO).unwrap();
    }
    calls::producer_flush("always", None).await.unwrap();
    for number in 0..20 {
        assert_eq!(receive_one("always-c", "always").await, number.to_string());
    }
    calls::producer_close("always", None).await.unwrap();
    let stats = outbox::stats(&folder.url(), json!({}), None).await.unwrap();
    assert_eq!(stats["producers"], json!([]), "all were sent and none is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_puts_rows_right_without_the_producer() {
    let folder = Folder::new();
    let config = json!({"provider": {"type": "memory", "topic": "right", "capacity": 1},
                        "strategies": [{"type": "outbox", "url": folder.url(), "max_attempts": 1, "schedule": "1s"}]});
    open("right", config.clone()).await.unwrap();
    for body in ["sent", "dead", "dropped"] {
        send("right", body).await.unwrap();
    }
    let url = folder.url();
    let dead = json!({"state": "dead"});
    let mut rows = Vec::new();
    for _ in 0..500 {
        rows = outbox::list(&url, dead.clone(), None).await.unwrap()["rows"].as_array().unwrap().clone();
        if rows.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rows.len(), 2, "a run gives both up");
    calls::producer_close("right", None).await.unwrap();
    let (first, second) = (&rows[0]["id"], &rows[1]["id"]);
    assert_eq!(outbox::drop_rows(&url, json!({"ids": [second]}), None).await.unwrap()["dropped"], 1);
    let lines = outbox::export(&url, json!({}), None).await.unwrap();
    assert_eq!((lines["lines"].as_array().unwrap().len(), lines["next"].is_null()), (1, true));
    assert_eq!(outbox::import(&url, json!({"lines": lines["lines"]}), None).await.unwrap()["known"], 1);
    assert_eq!(outbox::retry(&url, json!({"ids": [first]}), None).await.unwrap()["retried"], 1);
    assert_eq!(outbox::drain(&url, None).await.unwrap_err().kind(), Kind::Unsupported);
    assert_eq!(receive_one("right-c", "right").await, "sent");
    open("right", config).await.unwrap();
    assert_eq!(receive_one("right-c", "right").await, "dead");
    assert_eq!(outbox::retry_all("right", json!({}), None).await.unwrap()["retried"], 0);
    let purged = outbox::purge("right", json!({"older": "7d", "state": "dead"}), None).await.unwrap();
    assert_eq!(purged["purged"], 0);
    for (options, named) in
        [(json!({"oldr": "7d"}), "`older`"), (json!({"older": "7d", "state": "leased"}), "`state`")]
    {
        let error = outbox::purge("right", options, None).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.message().contains(named), "{error}");
    }
    calls::producer_close("right", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_is_outermost_and_its_notifier_is_held() {
    let folder = Folder::new();
    let own = || json!({"type": "outbox", "url": folder.url()});
    let memory = || json!({"type": "memory", "topic": "held"});
    for (strategies, named) in [
        (json!([{"type": "retry", "max_attempts": 2}, own()]), "outermost"),
        (json!([own(), own()]), "outermost"),
        (
            json!([{"type": "failover", "members": [{"provider": memory(), "strategies": [own()]}]}]),
            "a member has no outbox",
        ),
        (json!([{"type": "outbox", "url": folder.url(), "wen": "always"}]), "did you mean `when`"),
    ] {
        let error = open("held", json!({"provider": memory(), "strategies": strategies})).await.unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidConfig);
        assert!(error.message().contains(named), "{error}");
    }
    let mut telling = own();
    telling["notify"] = "held-ops".into();
    let config = json!({"provider": memory(), "strategies": [telling]});
    assert_eq!(open("held", config.clone()).await.unwrap_err().kind(), Kind::UnknownId);
    open("held-ops", json!({"provider": memory()})).await.unwrap();
    open("held", config).await.unwrap();
    let member = json!({"provider": memory(), "strategies": [{"type": "failover", "members": ["held"]}]});
    let error = open("held-pair", member).await.unwrap_err();
    assert!(error.kind() == Kind::InvalidConfig && error.message().contains("member `held`"), "{error}");
    assert_eq!(calls::producer_close("held-ops", None).await.unwrap_err().kind(), Kind::InUse);
    let error = outbox::list("held-ops", json!({}), None).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    calls::producer_close("held", None).await.unwrap();
    calls::producer_close("held-ops", None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_an_outbox_opens_without_its_server() {
    let folder = Folder::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let config = json!({"provider": {"type": "kapokmq", "url": format!("ws://{address}"), "topic": "t", "secret_key": "s"},
                        "strategies": [{"type": "outbox", "url": folder.url()}], "deadline": "300ms"});
    open("alone", config).await.unwrap();
    let receipt = send("alone", "kept").await.unwrap();
    assert_eq!(receipt.disposition, Disposition::Stored);
    let began = std::time::Instant::now();
    calls::producer_close("alone", Some(Duration::from_secs(5))).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
}

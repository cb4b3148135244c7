//! Strategies in strategies.

use super::*;

#[tokio::test(start_paused = true)]
async fn they_nest_in_any_order_and_the_status_shows_them() {
    let (one, two) = (StandIn::new([], fails(Kind::Unavailable)), StandIn::good());
    let pair = group(json!({"type": "failover", "name": "lines"}), &[&one, &two]);
    let broken = wrap(json!({"type": "circuit_breaker", "consecutive": 5}), pair);
    let tried = wrap(json!({"type": "retry", "max_attempts": 2}), broken);
    let producer = wrap(json!({"type": "timeout", "after": "1s"}), tried);
    producer.send(&seconds(9), message()).await.unwrap();
    let names: Vec<_> =
        strategies(&producer).iter().map(|own| own["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["timeout", "retry", "circuit_breaker", "failover"]);
    assert_eq!(strategies(&producer)[3]["current_member"], "m1");
    producer.control(&json!({"strategy": "lines", "current": "m0"})).unwrap();
    assert_eq!(strategies(&producer)[3]["current"], 0);
    producer.control(&json!({"strategy": "circuit_breaker", "state": "open"})).unwrap();
    let error = producer.send(&seconds(9), message()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::CircuitOpen);
}

#[tokio::test(start_paused = true)]
async fn a_failover_of_failovers_finds_the_good_one() {
    let bad: Vec<_> = (0..3).map(|_| StandIn::new([], fails(Kind::Unavailable))).collect();
    let good = StandIn::good();
    let first = group(json!({"type": "failover"}), &[&bad[0], &bad[1]]);
    let second = group(json!({"type": "failover"}), &[&bad[2], &good]);
    let members = vec![Member::new("first", first), Member::new("second", second)];
    let producer = section(json!({"type": "failover"})).group(&setup("failover"), members).unwrap();
    let receipt = producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!(receipt.attempts, 4);
    producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!((bad[0].count(), good.count()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn the_wait_of_an_open_breaker_is_kept_by_a_retry_outside() {
    let inner = StandIn::new([fails(Kind::Unavailable)], Step::Sent);
    let config = json!({"type": "circuit_breaker", "consecutive": 1, "open_for": "5s"});
    let broken = wrap(config, inner.clone());
    let producer = wrap(json!({"type": "retry", "max_attempts": 3}), broken);
    producer.send(&seconds(60), message()).await.unwrap();
    assert_eq!(inner.times(), [0, 5000]);
}

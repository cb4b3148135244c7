use super::*;

#[tokio::test(start_paused = true)]
async fn inside_a_retry_it_bounds_each_attempt() {
    let inner = StandIn::new([after(5000, Step::Sent)], after(100, Step::Sent));
    let bounded = wrap(json!({"type": "timeout", "after": "2s"}), inner.clone());
    let producer = wrap(json!({"type": "retry", "max_attempts": 3}), bounded);
    let receipt = producer.send(&seconds(60), message()).await.unwrap();
    assert_eq!((receipt.attempts, inner.times()), (2, vec![0, 2000]));
    assert_eq!(strategies(&producer)[1]["timeouts"], 1);
}

#[tokio::test(start_paused = true)]
async fn outside_a_retry_it_bounds_them_all() {
    let inner = StandIn::new([], after(800, fails(Kind::Unavailable)));
    let tried = wrap(json!({"type": "retry", "max_attempts": 9}), inner.clone());
    let producer = wrap(json!({"type": "timeout", "after": "2s"}), tried);
    let started = Instant::now();
    let error = producer.send(&seconds(60), message()).await.unwrap_err();
    assert_eq!(started.elapsed().as_millis(), 2000);
    assert_eq!((error.kind(), inner.count()), (Kind::Timeout, 3));
}

#[tokio::test(start_paused = true)]
async fn one_that_never_ends_is_cut() {
    let inner = StandIn::new([], Step::Hangs);
    let producer = wrap(json!({"type": "timeout", "after": "2s"}), inner.clone());
    let started = Instant::now();
    let error = producer.send(&seconds(60), message()).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_millis(2200), "{:?}", started.elapsed());
    assert_eq!((error.kind(), error.outcome()), (Kind::Timeout, Outcome::Unknown));
    assert_eq!(inner.under_way.load(Ordering::SeqCst), 0, "nothing is left behind");
}

#[tokio::test]
async fn one_that_uses_up_its_turn_is_cut_too() {
    let inner = StandIn::new([], Step::Busy);
    let producer = wrap(json!({"type": "timeout", "after": "10ms"}), inner);
    let send =
        tokio::time::timeout(Duration::from_secs(20), async { producer.send(&seconds(60), message()).await });
    assert_eq!(send.await.unwrap().unwrap_err().kind(), Kind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn the_callers_earlier_deadline_holds_and_is_not_counted() {
    let inner = StandIn::new([], after(9000, Step::Sent));
    let producer = wrap(json!({"type": "timeout", "after": "5s"}), inner.clone());
    let started = Instant::now();
    let error = producer.send(&seconds(1), message()).await.unwrap_err();
    assert_eq!((error.kind(), started.elapsed().as_millis()), (Kind::Timeout, 1000));
    assert_eq!(strategies(&producer)[0]["timeouts"], 0);
}

#[test]
fn no_time_is_refused() {
    assert!(refused(json!({"type": "timeout", "after": "0s"})).contains("longer than 0"));
    assert!(refused(json!({"type": "timeout", "after": 5})).contains("unit"));
}

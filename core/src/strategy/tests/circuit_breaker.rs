use super::*;
use crate::error::{Part, Whole};

fn breaker(inner: &Arc<StandIn>) -> Arc<dyn Producer> {
    let config = json!({"type": "circuit_breaker", "consecutive": 3, "open_for": "30s"});
    wrap(config, inner.clone())
}

async fn send(producer: &Arc<dyn Producer>) -> Result<Receipt> {
    producer.send(&seconds(9), message()).await
}

#[tokio::test(start_paused = true)]
async fn it_opens_refuses_with_the_wait_probes_and_closes() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let producer = breaker(&inner);
    for _ in 0..3 {
        assert_eq!(send(&producer).await.unwrap_err().kind(), Kind::Unavailable);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let error = send(&producer).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (Kind::CircuitOpen, Some(Duration::from_secs(20))));
    assert_eq!((error.outcome(), inner.count()), (Outcome::NotSent, 3));
    tokio::time::sleep(Duration::from_secs(20)).await;
    inner.becomes(Step::Sent);
    send(&producer).await.unwrap();
    assert_eq!(strategies(&producer)[0]["state"], "closed");
    assert_eq!(strategies(&producer)[0]["refused"], 1);
}

#[tokio::test(start_paused = true)]
async fn half_open_it_lets_one_probe_through_at_a_time() {
    let inner = StandIn::new([], fails(Kind::Unavailable));
    let producer = breaker(&inner);
    for _ in 0..3 {
        send(&producer).await.unwrap_err();
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    inner.becomes(after(1000, Step::Sent));
    let sends = (0..10).map(|_| send(&producer));
    let ends = futures_util::future::join_all(sends).await;
    assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
    assert_eq!(inner.count(), 4);
}

#[tokio::test(start_paused = true)]
async fn faults_of_the_caller_do_not_open_it() {
    for kind in [Kind::InvalidArgument, Kind::Unsupported, Kind::TooLarge, Kind::Cancelled, Kind::Limited] {
        let inner = StandIn::new([], fails(kind));
        let producer = breaker(&inner);
        for _ in 0..10 {
            assert_eq!(send(&producer).await.unwrap_err().kind(), kind);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_says_nothing_of_the_other_side_neither_opens_nor_closes_it() {
    let members = |kinds: &[Kind]| {
        let part = |kind: &Kind| Part::failed(Whole::Member, kind.name(), Error::new(*kind, "by the script"));
        Step::Fails(Error::new(Kind::AllFailed, "all").made_of(kinds.iter().map(part).collect()))
    };
    let late = after(60_000, Step::Sent);
    for step in [fails(Kind::Partial), members(&[Kind::TooLarge, Kind::InvalidArgument]), late] {
        let inner = StandIn::new([], step.clone());
        let producer = breaker(&inner);
        for _ in 0..10 {
            send(&producer).await.unwrap_err();
        }
        assert_eq!(strategies(&producer)[0]["state"], "closed");
        // Half-open such a probe gives its place back.
        inner.becomes(fails(Kind::Unavailable));
        for _ in 0..3 {
            send(&producer).await.unwrap_err();
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
        inner.becomes(step);
        send(&producer).await.unwrap_err();
        assert_eq!(strategies(&producer)[0]["state"], "half_open");
        inner.becomes(Step::Sent);
        send(&producer).await.unwrap();
        assert_eq!(strategies(&producer)[0]["state"], "closed");
    }
    // But a bound of a `timeout` below is a failure, and so is one bad member among others.
    for step in [fails(Kind::Timeout), members(&[Kind::TooLarge, Kind::Unavailable])] {
        let producer = breaker(&StandIn::new([], step));
        for _ in 0..3 {
            send(&producer).await.unwrap_err();
        }
        assert_eq!(send(&producer).await.unwrap_err().kind(), Kind::CircuitOpen);
    }
}

#[tokio::test(start_paused = true)]
async fn it_can_be_forced_open_and_closed() {
    let inner = StandIn::good();
    let producer = breaker(&inner);
    producer.control(&json!({"strategy": "circuit_breaker", "state": "open"})).unwrap();
    assert_eq!(send(&producer).await.unwrap_err().kind(), Kind::CircuitOpen);
    producer.control(&json!({"strategy": "circuit_breaker", "state": "closed"})).unwrap();
    inner.becomes(fails(Kind::Unavailable));
    for _ in 0..9 {
        assert_eq!(send(&producer).await.unwrap_err().kind(), Kind::Unavailable);
    }
    producer.control(&json!({"strategy": "circuit_breaker", "state": "auto"})).unwrap();
    for _ in 0..3 {
        send(&producer).await.unwrap_err();
    }
    assert_eq!(send(&producer).await.unwrap_err().kind(), Kind::CircuitOpen);
    let error = producer.control(&json!({"strategy": "circuit_breaker", "state": "ajar"})).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument);
}

#[test]
fn it_is_told_one_rule() {
    assert!(refused(json!({"type": "circuit_breaker"})).contains("either"));
    assert!(refused(json!({"type": "circuit_breaker", "consecutive": 0})).contains("at least 1"));
    let both = json!({"type": "circuit_breaker", "consecutive": 1, "failure_rate": 0.5});
    assert!(refused(both).contains("either"));
    for rate in [0.0, 1.1, -1.0] {
        assert!(refused(json!({"type": "circuit_breaker", "failure_rate": rate})).contains("failure_rate"));
    }
}

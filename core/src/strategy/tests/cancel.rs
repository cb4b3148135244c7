//! A call that is dropped at any moment takes nothing with it: no probe, no place, no count.

use super::*;

/// Polls a send so many times, lets the clock go on between, and drops it.
async fn poll_and_drop(producer: &Arc<dyn Producer>, polls: usize) -> bool {
    let ctx = seconds(60);
    let mut send = producer.send(&ctx, message());
    for _ in 0..polls {
        let done = std::future::poll_fn(|cx| std::task::Poll::Ready(send.as_mut().poll(cx).is_ready())).await;
        if done {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    false
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_of_a_breaker_gives_its_place_back() {
    for polls in 0..6 {
        let inner = StandIn::new([], fails(Kind::Unavailable));
        let config = json!({"type": "circuit_breaker", "consecutive": 1, "open_for": "1s"});
        let producer = wrap(config, inner.clone());
        producer.send(&seconds(9), message()).await.unwrap_err();
        tokio::time::sleep(Duration::from_secs(1)).await;
        inner.becomes(after(100, after(50, Step::Sent)));
        poll_and_drop(&producer, polls).await;
        producer.send(&seconds(9), message()).await.unwrap();
        assert_eq!(strategies(&producer)[0]["state"], "closed", "after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_sends_leave_no_strategy_in_a_state_of_their_own() {
    let outer = [
        json!({"type": "retry", "max_attempts": 3, "backoff": {"type": "fixed", "wait": "50ms"}}),
        json!({"type": "timeout", "after": "80ms"}),
        json!({"type": "circuit_breaker", "consecutive": 1}),
    ];
    for config in outer {
        for polls in 0..12 {
            let slow = after(20, fails(Kind::Unavailable));
            let (one, two) = (StandIn::new([], slow), StandIn::new([], after(20, Step::Sent)));
            let producer = wrap(config.clone(), group(json!({"type": "failover"}), &[&one, &two]));
            poll_and_drop(&producer, polls).await;
            assert_eq!(one.under_way.load(Ordering::SeqCst) + two.under_way.load(Ordering::SeqCst), 0);
            producer.send(&seconds(9), message()).await.unwrap();
            let sum = one.count() + two.count();
            assert!((1..=4).contains(&sum), "{config}: {sum} sends after {polls} polls");
        }
    }
}

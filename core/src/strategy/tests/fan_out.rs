use super::*;

fn fan_out(members: &[&Arc<StandIn>]) -> Arc<dyn Producer> {
    group(json!({"type": "fan_out"}), members)
}

#[tokio::test(start_paused = true)]
async fn all_at_once_with_a_result_for_each() {
    let (one, two) = (StandIn::new([], after(300, Step::Sent)), StandIn::new([], after(500, Step::Sent)));
    let started = Instant::now();
    let receipt = fan_out(&[&one, &two]).send(&seconds(9), message()).await.unwrap();
    assert_eq!(started.elapsed().as_millis(), 500);
    let parts = receipt.parts.unwrap();
    assert_eq!(parts.iter().map(|part| &*part.name).collect::<Vec<_>>(), ["m0", "m1"]);
    assert_eq!(receipt.attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn a_part_that_failed_is_named_and_not_sent_again_by_a_retry_outside() {
    let (one, two) = (StandIn::good(), StandIn::new([], fails(Kind::Unavailable)));
    let producer = wrap(json!({"type": "retry", "max_attempts": 3}), fan_out(&[&one, &two]));
    let error = producer.send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.retryable(), one.count()), (Kind::Partial, false, 1));
    let ends: Vec<_> = error.parts().iter().map(|part| (&*part.name, part.error.is_none())).collect();
    assert_eq!(ends, [("m0", true), ("m1", false)]);
}

#[tokio::test(start_paused = true)]
async fn when_all_failed_a_retry_may_help() {
    let (one, two) = (
        StandIn::new([fails(Kind::Unavailable)], Step::Sent),
        StandIn::new([fails(Kind::Unavailable)], Step::Sent),
    );
    let producer = wrap(json!({"type": "retry", "max_attempts": 2}), fan_out(&[&one, &two]));
    producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!((one.count(), two.count()), (2, 2));
}

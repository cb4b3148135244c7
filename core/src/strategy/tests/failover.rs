use super::*;
use crate::error::Whole;

fn failover(members: &[&Arc<StandIn>]) -> Arc<dyn Producer> {
    group(json!({"type": "failover"}), members)
}

fn current(producer: &Arc<dyn Producer>) -> u64 {
    strategies(producer)[0]["current"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn it_goes_on_from_the_last_good_member() {
    let (one, two, three) = (StandIn::new([], fails(Kind::Unavailable)), StandIn::good(), StandIn::good());
    let producer = failover(&[&one, &two, &three]);
    let receipt = producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!(receipt.attempts, 2);
    for _ in 0..5 {
        producer.send(&seconds(9), message()).await.unwrap();
    }
    assert_eq!((one.count(), two.count(), three.count()), (1, 6, 0));
    assert_eq!(current(&producer), 1);
}

#[tokio::test(start_paused = true)]
async fn it_goes_round_and_the_error_of_all_holds_each() {
    let members =
        [Kind::Unavailable, Kind::Throttled, Kind::Authentication].map(|k| StandIn::new([], fails(k)));
    let producer = failover(&[&members[0], &members[1], &members[2]]);
    let error = producer.send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts(), error.retryable()), (Kind::AllFailed, 3, true));
    let parts: Vec<_> = error
        .parts()
        .iter()
        .map(|part| (part.of, &*part.name, part.error.as_ref().unwrap().kind()))
        .collect();
    assert_eq!(
        parts,
        [
            (Whole::Member, "m0", Kind::Unavailable),
            (Whole::Member, "m1", Kind::Throttled),
            (Whole::Member, "m2", Kind::Authentication)
        ]
    );
    assert_eq!(current(&producer), 0, "round once");
    members[0].becomes(Step::Sent);
    producer.send(&seconds(9), message()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn cancelled_and_late_callers_return_at_once() {
    let slow = after(5000, fails(Kind::Unavailable));
    let (one, two) = (StandIn::new([], slow), StandIn::good());
    let producer = failover(&[&one, &two]);
    let error = producer.send(&seconds(1), message()).await.unwrap_err();
    assert_eq!((error.kind(), two.count()), (Kind::Timeout, 0));
    assert_eq!(current(&producer), 1, "who let the whole time pass is not begun with again");
    producer.control(&json!({"strategy": "failover", "current": 0})).unwrap();
    let token = tokio_util::sync::CancellationToken::new();
    let ctx = seconds(60).cancelled_by(token.clone());
    let send = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send(&ctx, message()).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    token.cancel();
    assert_eq!(send.await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    assert_eq!((two.count(), current(&producer)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_caller_in_the_last_member_is_the_callers() {
    let (one, two) = (StandIn::new([], fails(Kind::Unavailable)), StandIn::new([], after(5000, Step::Sent)));
    let producer = failover(&[&one, &two]);
    let token = tokio_util::sync::CancellationToken::new();
    let ctx = seconds(60).cancelled_by(token.clone());
    let cancelled = producer.send(&ctx, message());
    let (cancelled, ()) = tokio::join!(cancelled, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        token.cancel();
    });
    let error = cancelled.unwrap_err();
    assert_eq!(
        (error.kind(), error.retryable(), error.outcome()),
        (Kind::Cancelled, false, Outcome::Unknown)
    );
    let members: Vec<_> = error.parts().iter().map(|part| part.error.as_ref().unwrap().kind()).collect();
    assert_eq!(members, [Kind::Unavailable, Kind::Cancelled]);
    producer.control(&json!({"strategy": "failover", "current": 0})).unwrap();
    let error = producer.send(&seconds(1), message()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (Kind::Timeout, 2));
    assert_eq!(strategies(&producer)[0]["all_failed"], 0);
}

#[tokio::test(start_paused = true)]
async fn the_wait_before_another_try_is_the_least_of_those_that_may_do_better() {
    let asks =
        |seconds| Step::Fails(Error::new(Kind::Throttled, "later").after(Duration::from_secs(seconds)));
    let all = [fails(Kind::Authentication), asks(7), asks(5)].map(|step| StandIn::new([], step));
    let error = failover(&[&all[0], &all[1], &all[2]]).send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((error.retryable(), error.retry_after()), (true, Some(Duration::from_secs(5))));
    let now = failover(&[&all[0], &all[1], &StandIn::new([], fails(Kind::Unavailable))]);
    assert_eq!(now.send(&seconds(9), message()).await.unwrap_err().retry_after(), None);
    let never = failover(&[&all[0], &all[0]]).send(&seconds(9), message()).await.unwrap_err();
    assert!(!never.retryable());
}

#[tokio::test(start_paused = true)]
async fn a_member_with_a_deadline_leaves_time_for_the_next() {
    let (one, two) = (StandIn::new([], after(60_000, Step::Sent)), StandIn::good());
    let bounded = Member { deadline: Some(Duration::from_secs(2)), ..Member::new("one", one.clone()) };
    let members = vec![bounded, Member::new("two", two.clone())];
    let producer = section(json!({"type": "failover"})).group(&setup("failover"), members).unwrap();
    let started = Instant::now();
    producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!((started.elapsed().as_secs(), one.count(), two.count()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_inside_a_member_goes_on() {
    let (one, two) = (StandIn::new([], after(5000, Step::Sent)), StandIn::good());
    let bounded = wrap(json!({"type": "timeout", "after": "1s"}), one.clone());
    let members = vec![Member::new("slow", bounded), Member::new("quick", two.clone())];
    let section = section(json!({"type": "failover"}));
    let producer = section.group(&setup("failover"), members).unwrap();
    let receipt = producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!((receipt.attempts, one.count(), two.count()), (2, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn many_failures_at_once_move_on_once() {
    let slow = after(100, fails(Kind::Unavailable));
    let (one, two, three) = (StandIn::new([], slow), StandIn::good(), StandIn::good());
    let producer = failover(&[&one, &two, &three]);
    let ctx = seconds(9);
    let sends = (0..100).map(|_| producer.send(&ctx, message()));
    for end in futures_util::future::join_all(sends).await {
        end.unwrap();
    }
    assert_eq!((one.count(), two.count(), three.count()), (100, 100, 0));
    let state = &strategies(&producer)[0];
    assert_eq!((state["current"].as_u64(), state["switches"].as_u64()), (Some(1), Some(1)), "{state}");
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_message_moves_nothing() {
    let (one, two) = (StandIn::new([], fails(Kind::TooLarge)), StandIn::good());
    let producer = failover(&[&one, &two]);
    producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!((one.count(), two.count(), current(&producer)), (1, 1, 0), "another member may take it");
}

#[tokio::test(start_paused = true)]
async fn after_an_unknown_outcome_it_goes_on_or_stops_as_told() {
    let (one, two) = (StandIn::new([], unknown(Kind::Unavailable)), StandIn::good());
    failover(&[&one, &two]).send(&seconds(9), message()).await.unwrap();
    assert_eq!(two.count(), 1);
    let producer = group(json!({"type": "failover", "on_unknown": "stop"}), &[&one, &two]);
    let error = producer.send(&seconds(9), message()).await.unwrap_err();
    assert_eq!((error.outcome(), error.kind(), two.count()), (Outcome::Unknown, Kind::Unavailable, 1));
}

#[tokio::test(start_paused = true)]
async fn the_current_member_can_be_set_by_number_and_by_name() {
    let (one, two) = (StandIn::good(), StandIn::good());
    let producer = failover(&[&one, &two]);
    producer.control(&json!({"strategy": "failover", "current": "m1"})).unwrap();
    producer.send(&seconds(9), message()).await.unwrap();
    assert_eq!((one.count(), two.count()), (0, 1));
    producer.control(&json!({"strategy": "failover", "current": 0})).unwrap();
    assert_eq!(current(&producer), 0);
    for wrong in [json!(2), json!(-1), json!("m7"), json!(null)] {
        let command = json!({"strategy": "failover", "current": wrong});
        let error = producer.control(&command).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        assert!(error.message().contains("m0, m1"), "{error}");
    }
    assert_eq!(producer.control(&json!({"strategy": "retry"})).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(producer.control(&json!(7)).unwrap_err().kind(), Kind::InvalidArgument);
    let misspelt = producer.control(&json!({"strategy": "failover", "curent": 1})).unwrap_err();
    assert!(misspelt.message().contains("`current` is missing"), "{misspelt}");
}

/// Members that come and go by a seeded plan, also while sends are under way: a send ends well when one member was up
/// all the time, nothing is sent to a member that is not asked for, and each switch has a failure of its own.
#[tokio::test(start_paused = true)]
async fn flapping_members_lose_nothing() {
    let switches = |producer: &Arc<dyn Producer>| strategies(producer)[0]["switches"].as_u64().unwrap();
    let mut flapped = 0;
    for seed in 0..200 {
        let random = Random::seeded(seed);
        let members: Vec<_> = (0..3).map(|_| StandIn::good()).collect();
        let producer = failover(&members.iter().collect::<Vec<_>>());
        for _ in 0..50 {
            let draw = || (0..3).map(|_| random.share() < 0.5).collect::<Vec<bool>>();
            let set = |up: &[bool]| {
                for (member, up) in members.iter().zip(up) {
                    member.becomes(if *up {
                        after(5, Step::Sent)
                    } else {
                        after(5, fails(Kind::Unavailable))
                    });
                }
            };
            let (first, then) = (draw(), draw());
            set(&first);
            let before =
                (switches(&producer), current(&producer), members.iter().map(|m| m.count()).sum::<usize>());
            let ctx = seconds(9);
            let sends = (0..4).map(|number| {
                let (producer, ctx) = (&producer, &ctx);
                async move {
                    // Two begin before the change, two at the same time as it or after.
                    tokio::time::sleep(Duration::from_millis(3 * number)).await;
                    producer.send(ctx, message()).await
                }
            });
            let (ends, ()) = tokio::join!(futures_util::future::join_all(sends), async {
                tokio::time::sleep(Duration::from_millis(4)).await;
                set(&then);
            });
            let always_up = first.iter().zip(&then).any(|(first, then)| *first && *then);
            let never_up = first.iter().chain(&then).all(|up| !up);
            for end in &ends {
                assert!(end.is_ok() || !always_up, "seed {seed}, {first:?} and {then:?}: {end:?}");
                assert!(end.is_err() || !never_up, "seed {seed}, {first:?} and {then:?}");
            }
            let sends = members.iter().map(|member| member.count()).sum::<usize>() - before.2;
            let failures = sends - ends.iter().filter(|end| end.is_ok()).count();
            let switched = switches(&producer) - before.0;
            assert!(switched <= failures as u64, "seed {seed}: {switched} switches for {failures} failures");
            assert_eq!(current(&producer), (before.1 + switched) % 3, "seed {seed}: each goes to the next");
            flapped += u64::from(first != then && switched > 0);
        }
    }
    assert!(flapped > 1000, "only {flapped} rounds changed while sends were under way");
}

/// All of those that fail together at one member switch once.
#[tokio::test(start_paused = true)]
async fn one_round_of_failures_is_one_switch() {
    let members: Vec<_> = (0..3).map(|_| StandIn::new([], after(5, Step::Sent))).collect();
    let producer = failover(&members.iter().collect::<Vec<_>>());
    for round in 0..30 {
        let now = current(&producer) as usize;
        members[now].becomes(after(5, fails(Kind::Unavailable)));
        let ctx = seconds(9);
        let ends = futures_util::future::join_all((0..20).map(|_| producer.send(&ctx, message()))).await;
        assert!(ends.iter().all(Result::is_ok));
        members[now].becomes(after(5, Step::Sent));
        assert_eq!(current(&producer) as usize, (now + 1) % 3);
        assert_eq!(strategies(&producer)[0]["switches"], round + 1);
    }
}

#[tokio::test]
async fn no_members_are_refused() {
    let error = section(json!({"type": "failover", "members": []})).group(&setup("f"), vec![]).err().unwrap();
    assert_eq!(error.kind(), Kind::InvalidConfig);
    assert!(error.message().contains("at least one"), "{error}");
}

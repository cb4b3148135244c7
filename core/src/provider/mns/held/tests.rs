use super::*;
use crate::message::Message;

fn delivery(code: &str) -> Delivery {
    Delivery {
        message: Message::new("x"),
        topic: "q".into(),
        code: code.into(),
        created: None,
        attempt: Some(1),
    }
}

fn within(seconds: u64) -> Context {
    Context::within(Duration::from_secs(seconds))
}

async fn filled(codes: &[&str], hidden: u64) -> Held {
    let held = Held::new(16);
    let reserved = held.reserve(16).await.unwrap();
    let hidden = Duration::from_secs(hidden);
    held.arrive(reserved, codes.iter().map(|code| (delivery(code), hidden)).collect());
    held
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn room_is_bounded_and_comes_back_with_a_receive() {
    let held = Held::new(3);
    assert_eq!(held.reserve(2).await, Some(2));
    assert_eq!(held.reserve(16).await, Some(1));
    assert!(within(1).run(held.reserve(1)).await.is_err());
    held.arrive(2, vec![(delivery("a"), HOUR)]);
    assert_eq!(held.reserve(16).await, Some(1), "one was asked for and did not come");
    held.arrive(1, vec![(delivery("b"), HOUR)]);
    assert_eq!(held.receive(&within(1), 9).await.unwrap().len(), 2);
    assert_eq!(held.reserve(16).await, Some(2));
    assert!(held.receive(&within(1), 9).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_has_lapsed_is_not_delivered() {
    let held = filled(&["a"], 10).await;
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(held.receive(&within(1), 9).await.unwrap().is_empty());
    assert!(held.take_due(HOUR, 9).0.is_empty());
    assert_eq!((held.counts().held, held.counts().lapsed), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_ack_waits_for_the_handle_of_a_renewal() {
    let held = filled(&["a", "b"], 10).await;
    assert!(held.take_due(HOUR, 9).0.is_empty());
    tokio::time::advance(Duration::from_secs(5)).await;
    let (due, _) = held.take_due(HOUR, 1);
    let (code, _) = &due[0];
    let other = if &**code == "a" { "b" } else { "a" };
    let mut ends = Vec::new();
    for one in [code.clone(), other.into()] {
        ends.push(held.say(&within(1), one, Word::Ack).await.unwrap());
    }
    let words = held.words(16).await;
    assert_eq!((words.len(), &*words[0].1), (1, other));
    for (job, _) in words {
        held.was_said(job, Ok(()));
    }
    held.was_renewed(code, Some(("new".into(), Duration::from_secs(10))), false);
    let words = held.words(16).await;
    assert_eq!((&*words[0].0.code, &*words[0].1), (&**code, "new"));
    for (job, _) in words {
        held.was_said(job, Ok(()));
    }
    for end in ends {
        end.await.unwrap().unwrap();
    }
    assert_eq!((held.counts().held, held.counts().unsent), (0, 0));
    held.all_said(&within(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_renewed_until_its_time_in_all_is_over() {
    let held = filled(&["a"], 10).await;
    let extend = Duration::from_secs(14);
    let mut renewals = 0;
    for _ in 0..40 {
        tokio::time::advance(Duration::from_secs(1)).await;
        let (due, _) = held.take_due(extend, 9);
        for (code, _) in due {
            renewals += 1;
            held.was_renewed(&code, Some(("n".into(), Duration::from_secs(10))), false);
        }
    }
    assert_eq!((renewals, held.counts().held, held.counts().lapsed), (2, 0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_is_tried_again_in_time() {
    let held = filled(&["a"], 12).await;
    let mut tries = 0;
    for _ in 0..120 {
        tokio::time::advance(Duration::from_millis(100)).await;
        let (due, _) = held.take_due(HOUR, 9);
        for (code, _) in due {
            tries += 1;
            held.was_renewed(&code, None, false);
        }
    }
    assert!((3..40).contains(&tries), "{tries}");
    assert_eq!(held.counts().held, 0);
}

#[tokio::test(start_paused = true)]
async fn nacks_go_alone_and_the_rest_is_told_at_the_close() {
    let held = filled(&["a", "b", "c"], 10).await;
    let mut ends = Vec::new();
    for (code, word) in [("a", Word::Ack), ("b", Word::Nack(3)), ("c", Word::Ack)] {
        ends.push(held.say(&within(1), code.into(), word).await.unwrap());
    }
    let words = held.words(16).await;
    assert_eq!(words.iter().map(|(job, _)| &*job.code).collect::<Vec<_>>(), ["a", "c"]);
    let nack = held.words(16).await;
    assert_eq!((nack.len(), nack[0].0.word), (1, Word::Nack(3)));
    held.close();
    assert_eq!(held.say(&within(1), "a".into(), Word::Ack).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(held.receive(&within(1), 1).await.unwrap_err().kind(), Kind::Closed);
    assert_eq!(held.all_said(&within(1)).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!(held.reserve(1).await, None);
    for (job, _) in words.into_iter().chain(nack) {
        held.was_said(job, Err(Error::new(Kind::Unavailable, "x")));
    }
    held.all_said(&within(1)).await.unwrap();
    assert_eq!(held.let_go(&within(1)).await.unwrap().len(), 3);
    assert_eq!(held.let_go(&within(1)).await, None);
    assert_eq!(held.arrive(1, vec![(delivery("d"), HOUR)]), [Arc::<str>::from("d")]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_whose_renewal_takes_longer_than_its_time_is_handed_over_after_it() {
    let held = filled(&["a", "b"], 10).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let (due, _) = held.take_due(HOUR, 9);
    assert_eq!(due.len(), 2);
    tokio::time::advance(Duration::from_secs(6)).await;
    // Whether they are another's by now is not known.
    assert!(held.receive(&within(1), 9).await.unwrap().is_empty());
    let ctx = within(60);
    let receiving = async { held.receive(&ctx, 9).await.unwrap() };
    let renewing = async {
        held.was_renewed(&"b".into(), None, true);
        held.was_renewed(&"a".into(), Some(("new".into(), Duration::from_secs(10))), false);
    };
    let (came, ()) = tokio::join!(receiving, renewing);
    assert_eq!(came.iter().map(|delivery| &*delivery.code).collect::<Vec<_>>(), ["a"]);
    let end = held.say(&ctx, "a".into(), Word::Ack).await.unwrap();
    let (job, handle) = held.words(16).await.remove(0);
    assert_eq!(&*handle, "new");
    held.was_said(job, Ok(()));
    end.await.unwrap().unwrap();
    assert_eq!((held.counts().held, held.counts().waiting, held.counts().lapsed), (0, 0, 1));
    assert_eq!(held.reserve(16).await, Some(16));
}

#[tokio::test(start_paused = true)]
async fn the_time_in_all_counts_from_the_hand_over() {
    let held = filled(&["a"], 10).await;
    let extend = Duration::from_secs(14);
    let mut renewed_at = Vec::new();
    for second in 1..60 {
        tokio::time::advance(Duration::from_secs(1)).await;
        if second == 12 {
            assert_eq!(held.receive(&within(1), 1).await.unwrap().len(), 1);
        }
        for (code, _) in held.take_due(extend, 9).0 {
            renewed_at.push(second);
            held.was_renewed(&code, Some(("n".into(), Duration::from_secs(10))), false);
        }
    }
    assert_eq!(renewed_at, [5, 10, 15, 20, 25], "for 14 seconds from the twelfth on");
    assert_eq!(held.counts().held, 0);
}

#[tokio::test(start_paused = true)]
async fn those_that_are_due_first_are_renewed_first() {
    let held = Held::new(64);
    let reserved = held.reserve(64).await.unwrap();
    let hidden = |number: u64| Duration::from_secs(10 + (number * 7) % 40);
    held.arrive(reserved, (0..40).map(|number| (delivery(&number.to_string()), hidden(number))).collect());
    tokio::time::advance(Duration::from_millis(9900)).await;
    // Those of twenty seconds and more are not ripe; of the others the first are those that end first.
    let (first, _) = held.take_due(HOUR, 3);
    let (second, _) = held.take_due(HOUR, 100);
    let ends: Vec<u64> =
        first.iter().chain(&second).map(|(code, _)| hidden(code.parse().unwrap()).as_secs()).collect();
    assert_eq!((first.len(), ends), (3, (10..20).collect()));
}

#[tokio::test(start_paused = true)]
async fn what_the_host_says_a_moment_late_is_said_with_the_newest_handle() {
    let held = filled(&["a"], 10).await;
    assert_eq!(held.receive(&within(1), 1).await.unwrap().len(), 1);
    tokio::time::advance(Duration::from_secs(5)).await;
    held.take_due(HOUR, 9);
    held.was_renewed(&"a".into(), Some(("new".into(), Duration::from_secs(4))), false);
    tokio::time::advance(Duration::from_millis(4900)).await;
    let (due, next) = held.take_due(HOUR, 9);
    assert!(due.is_empty(), "its time here is over");
    let _end = held.say(&within(1), "a".into(), Word::Ack).await.unwrap();
    assert_eq!(&*held.words(1).await[0].1, "new");
    assert!(next.is_some());
}

#[tokio::test]
async fn an_ack_costs_the_same_however_many_are_held() {
    let number = 60_000;
    let held = Held::new(number);
    let reserved = held.reserve(number).await.unwrap();
    held.arrive(reserved, (0..number).map(|number| (delivery(&number.to_string()), HOUR)).collect());
    let began = std::time::Instant::now();
    for delivery in held.receive(&within(60), number).await.unwrap() {
        let _end = held.say(&within(60), delivery.code, Word::Ack).await.unwrap();
        for (job, _) in held.words(16).await {
            held.was_said(job, Ok(()));
        }
        assert!(held.take_due(HOUR, 9).0.is_empty());
    }
    // To look at all of them each time would take minutes.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(held.counts().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_close_gives_back_what_is_being_renewed_by_its_new_handle() {
    let held = filled(&["a", "b", "c"], 10).await;
    tokio::time::advance(Duration::from_secs(5)).await;
    let (due, _) = held.take_due(HOUR, 2);
    held.close();
    assert!(held.take_due(HOUR, 9).0.is_empty(), "no other is renewed");
    assert_eq!(held.let_go(&within(1)).await.unwrap().len(), 1);
    let ctx = within(5);
    let (back, ()) = tokio::join!(held.let_go(&ctx), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        held.was_renewed(&due[0].0, Some(("new".into(), Duration::from_secs(10))), false);
    });
    assert_eq!(back, Some(vec!["new".into()]));
    // No longer than there is time.
    assert_eq!(held.let_go(&ctx).await, None);
    assert_eq!(held.counts().held, 1);
}

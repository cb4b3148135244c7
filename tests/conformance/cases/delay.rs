//! Delays: never early, within a generous bound, rounded up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::error::{Kind, Outcome};
use ceiba_core::message::Message;
use tokio::time::Instant;

use crate::harness::{Harness, Verdict};
use crate::stage::{Stage, message, nothing_comes, receive, seconds, text};
use crate::table::Trait;

/// A loaded machine is late; a broken delay is later.
const LATE: Duration = Duration::from_millis(2500);

async fn refuses_delays(stage: Stage) -> Verdict {
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let delayed = Arc::new(Message::new("late").with_delay(Duration::from_millis(300)));
    let error = producer.send(&seconds(10.0), delayed).await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (Kind::Unsupported, Outcome::NotSent));
    assert!(error.message().contains("delay"), "{error}");
    nothing_comes(&consumer, 0.5).await;
    stage.end().await;
    Verdict::Excluded(Trait::NoDelays)
}

// Sends each delay once and checks when it came: not before `least`, and not much later.
async fn check(stage: &Stage, delays: &[Duration], least: impl Fn(Duration) -> Duration) {
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let mut sent = BTreeMap::new();
    for (number, delay) in delays.iter().enumerate() {
        let before = Instant::now();
        let delayed = Message::new(number.to_string()).with_delay(*delay);
        producer.send(&seconds(10.0), Arc::new(delayed)).await.unwrap();
        sent.insert(number.to_string(), (before, *delay));
    }
    for (at, delivery) in receive(&consumer, delays.len(), 30.0).await {
        let (before, delay) = sent.remove(&text(&delivery)).expect("came twice");
        let (took, least) = (at - before, least(delay));
        assert!(took >= least, "a delay of {delay:?} came after {took:?}");
        assert!(took <= least + LATE, "a delay of {delay:?} came after {took:?}");
    }
    nothing_comes(&consumer, 0.3).await;
}

pub(crate) async fn a_delay_is_never_early(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(unit) = stage.producer().await.capability().delay_unit else {
        return refuses_delays(stage).await;
    };
    let step = unit.max(Duration::from_millis(100));
    let delays: Vec<Duration> = (0..12).map(|number| step * (number % 4)).collect();
    check(&stage, &delays, |delay| delay).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_finer_delay_is_rounded_up(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let Some(unit) = stage.producer().await.capability().delay_unit else {
        return refuses_delays(stage).await;
    };
    // A nanosecond, parts of a unit, and just over it.
    let delays =
        [Duration::from_nanos(1), unit / 10, unit / 2, unit + unit / 2, unit * 2 + Duration::from_nanos(1)];
    // What is left when the message is written is rounded up; a little may have passed by then. With a unit
    // this short nobody could tell rounding from the time that a message takes.
    let gone = unit / 20;
    let whole = |delay: Duration| {
        if unit < Duration::from_millis(100) {
            return delay;
        }
        let units = delay.saturating_sub(gone).as_nanos().div_ceil(unit.as_nanos());
        delay.max(unit * u32::try_from(units).unwrap())
    };
    check(&stage, &delays, whole).await;
    stage.end().await;
    Verdict::Held
}

pub(crate) async fn a_delayed_message_holds_up_no_other(harness: &dyn Harness) -> Verdict {
    let stage = Stage::plain(harness).await;
    let (consumer, producer) = (stage.consumer().await, stage.producer().await);
    let Some(unit) = producer.capability().delay_unit else { return refuses_delays(stage).await };
    let delay = unit.max(Duration::from_secs(2));
    let before = Instant::now();
    producer.send(&seconds(10.0), Arc::new(Message::new("late").with_delay(delay))).await.unwrap();
    producer.send(&seconds(10.0), message("now")).await.unwrap();
    let arrived = receive(&consumer, 2, 20.0).await;
    assert_eq!(text(&arrived[0].1), "now");
    assert!(arrived[0].0 - before < delay, "held up for {:?}", arrived[0].0 - before);
    assert_eq!(text(&arrived[1].1), "late");
    assert!(arrived[1].0 - before >= delay);
    stage.end().await;
    Verdict::Held
}

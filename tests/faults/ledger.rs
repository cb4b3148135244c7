//! What senders were told, held against what passed the wire and what came.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ceiba_core::error::{Kind, Outcome, Result};
use ceiba_core::message::Receipt;
use ceiba_tests::frames::Record;
use tokio::time::Instant;

/// One send or submit with its end.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) producer: usize,
    pub(crate) body: String,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    pub(crate) result: Result<Receipt>,
}

/// What to hold it against.
pub(crate) struct Truth<'a> {
    /// What passed between producers and broker.
    pub(crate) record: &'a Record,
    /// What a consumer got that was there the whole time.
    pub(crate) came: &'a [String],
    /// When the last restart had ended.
    pub(crate) up_again: Instant,
    /// The longest that a call may take.
    pub(crate) longest: Duration,
    /// Messages that a loss can take between a producer's write and the wire's record, over all producers.
    pub(crate) on_the_way_at_most: usize,
}

/// How many calls ended how.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Count {
    pub(crate) receipts: usize,
    pub(crate) not_sent: usize,
    pub(crate) unknown: usize,
}

/// Fails on the first thing that a caller was told and that is not so.
pub(crate) fn check(told: &[Told], truth: &Truth<'_>) -> Count {
    let written = truth.record.bodies();
    let mut came: HashMap<&str, usize> = HashMap::new();
    for body in truth.came {
        *came.entry(body).or_default() += 1;
    }
    let mut known = HashSet::new();
    let mut count = Count::default();
    let mut unseen = 0;
    for call in told {
        let body = call.body.as_str();
        assert!(known.insert(body), "{body} was told twice");
        let took = call.ended - call.started;
        assert!(took <= truth.longest, "{body} took {took:?}: {:?}", call.result);
        match &call.result {
            Ok(receipt) => {
                count.receipts += 1;
                assert_eq!(receipt.attempts, 1, "{body}");
                assert!(written.contains_key(body), "{body} has a receipt and was never written");
                if call.started > truth.up_again {
                    assert!(came.contains_key(body), "{body} has a receipt of the new broker and never came");
                }
            }
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Unavailable | Kind::Timeout), "{body}: {error}");
                assert!(error.retryable(), "{body}: {error}");
                match error.outcome() {
                    Outcome::NotSent => {
                        count.not_sent += 1;
                        assert!(!written.contains_key(body), "{body} was written: {error}");
                        assert!(!came.contains_key(body), "{body} came: {error}");
                    }
                    Outcome::Unknown => {
                        count.unknown += 1;
                        unseen += usize::from(!written.contains_key(body));
                    }
                }
            }
        }
    }
    for (body, times) in &written {
        assert!(known.contains(body.as_str()), "{body} was written and nobody was told");
        assert_eq!(*times, 1, "{body} was written {times} times, and nobody asked for that");
    }
    for (body, times) in came {
        assert!(known.contains(body), "{body} came and nobody sent it");
        assert_eq!(times, 1, "{body} came {times} times");
    }
    let oks = truth.record.oks();
    assert!(count.receipts as u64 <= oks, "{} receipts, and the broker said ok {oks} times", count.receipts);
    // Unknown is for what was written: more than the windows held at the loss were not.
    assert!(
        unseen <= truth.on_the_way_at_most,
        "{unseen} calls are unknown though nothing of them was written, and {} can have been lost on the way",
        truth.on_the_way_at_most
    );
    count
}

//! What the strategies tell and count: each at its place.

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::*;

/// Keeps the events of the strategies: `strategy message key=value`, without the id.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

struct Fields {
    strategy: String,
    message: String,
    rest: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "strategy" => self.strategy = format!("{value:?}").trim_matches('"').to_owned(),
            "message" => self.message = format!("{value:?}"),
            "attempt" | "member" | "from" | "to" | "state" | "wait" => {
                self.rest.push_str(&format!(" {}={value:?}", field.name()));
            }
            _ => {}
        }
    }
}

impl Subscriber for Told {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().contains("strategy")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields { strategy: String::new(), message: String::new(), rest: String::new() };
        event.record(&mut fields);
        self.0.lock().push(format!("{} {}{}", fields.strategy, fields.message, fields.rest).replace('"', ""));
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Sends so often, with a second between; what was told, and the status of the outermost.
async fn told(config: Value, members: &[&Arc<StandIn>], sends: usize) -> (Vec<String>, Value) {
    let events = Told::default();
    // While there is one subscriber alone, an event that another thread meets first is of interest only if it is to that
    // thread's: never, for good. With two all are asked.
    let _second = tracing::Dispatch::new(Told::default());
    let _guard = tracing::subscriber::set_default(events.clone());
    tracing::callsite::rebuild_interest_cache();
    let grouped = ["failover", "timeout_failover", "fan_out"].map(Value::from).contains(&config["type"]);
    let producer = if grouped { group(config, members) } else { wrap(config, members[0].clone()) };
    for _ in 0..sends {
        let _ = producer.send(&seconds(9), message()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let told = events.0.lock().clone();
    (told, strategies(&producer).remove(0))
}

#[tokio::test(start_paused = true)]
async fn each_event_is_told_and_counted_at_its_place() {
    let bad = || StandIn::new([], fails(Kind::Unavailable));
    let late = || StandIn::new([fails(Kind::Timeout)], Step::Sent);
    let retry = json!({"type": "retry", "max_attempts": 2, "backoff": {"type": "fixed", "wait": "500ms"}});
    let breaker = json!({"type": "circuit_breaker", "consecutive": 1, "open_for": "1500ms"});
    let moves = json!({"type": "timeout_failover", "after": 1, "probe_every": "1s"});
    let slots = json!({"type": "rate_limit", "limiter": "sliding_window", "rate": 1, "per": "1500ms",
        "when_limited": "wait"});
    let hasty = json!({"type": "rate_limit", "limiter": "sliding_window", "rate": 1, "per": "1500ms"});
    type Case = (Value, Vec<Arc<StandIn>>, usize, &'static [&'static str], Value);
    let cases: [Case; 9] = [
        (
            retry.clone(),
            vec![StandIn::new([fails(Kind::Unavailable)], Step::Sent)],
            1,
            &["retry tries attempt=1", "retry waits attempt=2 wait=500ms", "retry tries again attempt=2"],
            json!({"attempts": 2, "retries": 1, "waits": 1, "waited_ms": 500, "given_up": 0}),
        ),
        (
            retry,
            vec![bad()],
            1,
            &[
                "retry tries attempt=1",
                "retry waits attempt=2 wait=500ms",
                "retry tries again attempt=2",
                "retry gives up",
            ],
            json!({"attempts": 2, "retries": 1, "waits": 1, "given_up": 1}),
        ),
        (
            json!({"type": "failover"}),
            vec![bad(), StandIn::good()],
            1,
            &["failover tries member=m0", "failover switches from=m0 to=m1", "failover tries member=m1"],
            json!({"attempts": 2, "switches": 1, "all_failed": 0}),
        ),
        (
            json!({"type": "failover"}),
            vec![bad(), bad()],
            1,
            &[
                "failover tries member=m0",
                "failover switches from=m0 to=m1",
                "failover tries member=m1",
                "failover switches from=m1 to=m0",
                "failover all failed",
            ],
            json!({"attempts": 2, "switches": 2, "all_failed": 1}),
        ),
        (
            breaker,
            vec![StandIn::new([fails(Kind::Unavailable)], Step::Sent)],
            3,
            &[
                "circuit_breaker changes state=open",
                "circuit_breaker refuses",
                "circuit_breaker changes state=half_open",
                "circuit_breaker changes state=closed",
            ],
            json!({"opened": 1, "refused": 1}),
        ),
        (
            moves,
            vec![late(), StandIn::good()],
            2,
            &[
                "timeout_failover switches from=m0 to=m1",
                "timeout_failover probes member=m0",
                "timeout_failover switches from=m1 to=m0",
            ],
            json!({"switches": 2, "probes": 1, "probes_failed": 0}),
        ),
        (
            json!({"type": "timeout", "after": "1s"}),
            vec![StandIn::new([], after(5000, Step::Sent))],
            1,
            &["timeout timed out"],
            json!({"timeouts": 1}),
        ),
        (
            slots,
            vec![StandIn::good()],
            2,
            &["rate_limit waits wait=Some(500ms)"],
            json!({"granted": 2, "limited": 0, "waits": 1, "waited_ms": 500}),
        ),
        (
            hasty,
            vec![StandIn::good()],
            2,
            &["rate_limit refuses"],
            json!({"granted": 1, "limited": 1, "waits": 0}),
        ),
    ];
    for (config, members, sends, events, counts) in cases {
        let name = config.to_string();
        let (told, status) = told(config, &members.iter().collect::<Vec<_>>(), sends).await;
        assert_eq!(told, events, "{name}");
        for (key, count) in counts.as_object().unwrap() {
            assert_eq!(&status[key], count, "{name}: {key} of {status}");
        }
    }
}

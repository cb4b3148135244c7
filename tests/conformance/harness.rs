//! What a provider brings to the suite, and how a case is run.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::{BoxFuture, Consumer};
use ceiba_core::provider::callback::Hosts;
use ceiba_tests::proxy::Proxy;
use serde_json::{Map, Value, json};

use crate::table::Trait;

/// How a case ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// What the case says is so.
    Held,
    /// This trait rules it out, and what there is to refuse is refused.
    Excluded(Trait),
}

/// What a case asks of the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// How long a delivery may stay unacknowledged.
    pub(crate) redeliver_after: Duration,
    /// Whether the other side is to be away or silent during the case.
    pub(crate) outage: bool,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { redeliver_after: Duration::from_secs(300), outage: false }
    }
}

/// One provider.
pub(crate) trait Harness: Send + Sync {
    /// The name that it goes by.
    fn provider(&self) -> &'static str;

    /// The name that its receipts carry.
    fn sender(&self) -> &'static str {
        self.provider()
    }

    /// Its traits, as the table has them.
    fn traits(&self) -> &'static [Trait];

    /// Starts the other side with a topic of its own.
    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>>;
}

/// What stands between a client and its other side.
pub(crate) trait Line: Send + Sync {
    /// Ends what is there, and lets nobody in until [`Line::mend`]. It is so when this returns.
    fn cut(&self) -> BoxFuture<'_, ()>;

    /// Answers nothing, and tells nobody, until [`Line::mend`].
    fn silence(&self);

    /// All is well for whoever comes once this returned.
    fn mend(&self) -> BoxFuture<'_, ()>;

    /// How many connections or calls brought something while it was silent.
    fn swallowing(&self) -> u64;
}

impl Line for Proxy {
    fn cut(&self) -> BoxFuture<'_, ()> {
        Proxy::cut(self);
        Box::pin(async {})
    }

    fn silence(&self) {
        Proxy::silence(self);
    }

    fn mend(&self) -> BoxFuture<'_, ()> {
        Proxy::mend(self);
        Box::pin(async {})
    }

    fn swallowing(&self) -> u64 {
        Proxy::swallowing(self)
    }
}

/// The other side of one case.
pub(crate) trait Peer: Send + Sync {
    /// The config's section `provider` of a producer of the case's topic.
    fn producer(&self) -> Value;

    /// The same of a consumer.
    fn consumer(&self) -> Value;

    /// Where the messages arrive, of a provider that only sends: the cases take it for a consumer.
    fn inbox(&self) -> Option<Arc<dyn Consumer>> {
        None
    }

    /// The config of a producer with these keys, and with further keys of the provider's section.
    fn config(&self, section: Value, keys: Value) -> Value {
        let mut config = json!({"provider": joined(self.producer(), section)});
        config.as_object_mut().unwrap().extend(object(keys));
        config
    }

    /// Where a config finds the producers of the host.
    fn hosts(&self) -> Option<&Hosts> {
        None
    }

    /// What stands between, when the case needs an outage and there can be one.
    fn line(&self) -> Option<&dyn Line>;

    /// The secret in the sections.
    fn secret(&self) -> Option<&str>;

    /// The keys of a section that hold this secret.
    fn with_secret(&self, secret: &str) -> Value {
        let _ = secret;
        Value::Null
    }

    /// Whether each consumer gets each message.
    fn everyone(&self) -> bool;

    /// A field of a message that it cannot send, where there is one that the suite can set.
    fn unsupported_field(&self) -> Option<&'static str>;

    /// The fields of a message that shape what arrives and do not arrive as such.
    fn used_up(&self) -> &'static [&'static str] {
        &[]
    }

    /// A recipient, for a provider that has some.
    fn recipient(&self) -> &'static str {
        "somebody"
    }

    /// Arguments that a message may have.
    fn args(&self) -> Value {
        json!({"a": 1})
    }

    /// The longest body that is meant to arrive, in bytes.
    fn longest_body(&self) -> usize {
        16 << 20
    }

    /// Whether messages have a topic.
    fn has_topics(&self) -> bool {
        true
    }

    /// How many messages are written before the first answer comes; none where an answer has to come before the
    /// message is written.
    fn written_ahead(&self) -> usize {
        usize::MAX
    }

    /// Stops it.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// The keys of an object; none of anything else.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}

/// An object with the keys of another.
pub(crate) fn joined(value: Value, more: Value) -> Value {
    let mut object = self::object(value);
    object.extend(self::object(more));
    Value::Object(object)
}

/// No case takes longer; one that does hangs.
const LONGEST: Duration = Duration::from_secs(120);

/// Runs a case, named by module and function, on a runtime of its own, and holds its verdict to the harness's list.
pub(crate) fn run(harness: &dyn Harness, name: (&str, &str), future: impl Future<Output = Verdict>) {
    let (module, case) = name;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let verdict = runtime.block_on(async { tokio::time::timeout(LONGEST, future).await });
    // Tasks that hang must not hang the test too.
    runtime.shutdown_timeout(Duration::from_secs(5));
    let verdict = verdict.unwrap_or_else(|_| panic!("{case} hangs: it did not end within {LONGEST:?}"));
    let ruling = harness.traits().iter().map(|of| of.rule()).find(|rule| rule.cases.contains(&case));
    match (verdict, ruling) {
        (Verdict::Held, None) => {}
        (Verdict::Excluded(of), _) => {
            assert!(harness.traits().contains(&of), "{case} is ruled out by {of:?}, which is no trait of it");
            let rule = of.rule();
            assert!(
                rule.cases.contains(&case),
                "{case} is ruled out by {of:?}, and the table does not say so"
            );
            // Written past the capture of test output: an exclusion is always shown.
            let module = module.rsplit("::").next().unwrap_or_default();
            let line = format!("excluded: {module}::{case}: {}\n", rule.reason);
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        (Verdict::Held, Some(rule)) => {
            panic!("{case} holds, and {:?} rules it out: {}", rule.of, rule.reason)
        }
    }
}

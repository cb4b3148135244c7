//! What a provider brings to the suite, and how a case is run.

use std::future::Future;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::{BoxFuture, Consumer};
use ceiba_tests::proxy::Proxy;
use serde_json::Value;

/// How a case ended.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// What the case says is so.
    Held,
    /// The provider cannot do it, and refuses it as it should where there is something to refuse.
    Excluded,
}

/// What a case asks of the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// How long a delivery may stay unacknowledged.
    pub(crate) redeliver_after: Duration,
    /// Whether the connection is to fail during the case.
    pub(crate) outage: bool,
}

impl Default for Needs {
    fn default() -> Needs {
        Needs { redeliver_after: Duration::from_secs(300), outage: false }
    }
}

/// One provider.
pub(crate) trait Harness: Send + Sync {
    /// The name that its receipts and errors carry.
    fn provider(&self) -> &'static str;

    /// The cases that it cannot hold, each with the reason.
    fn excluded(&self) -> &'static [(&'static str, &'static str)];

    /// Starts the other side with a topic of its own.
    fn start(&self, needs: Needs) -> BoxFuture<'_, Box<dyn Peer>>;
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

    /// What stands between, when the case needs an outage and there is a connection at all.
    fn proxy(&self) -> Option<&Proxy>;

    /// The secret in the sections, and the key it stands under.
    fn secret(&self) -> Option<(&'static str, &str)>;

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

    /// Whether messages have a topic.
    fn has_topics(&self) -> bool {
        true
    }

    /// Whether the wire puts the line ends of a text in order.
    fn text_is_mended(&self) -> bool {
        false
    }

    /// How many messages are written before the first answer comes; none where an answer has to come before the
    /// message is written.
    fn written_ahead(&self) -> usize {
        usize::MAX
    }

    /// Stops it.
    fn stop(self: Box<Self>) -> BoxFuture<'static, ()>;
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
    let reason = harness.excluded().iter().find(|(excluded, _)| *excluded == case).map(|(_, reason)| reason);
    match (verdict, reason) {
        (Verdict::Held, None) => {}
        (Verdict::Excluded, Some(reason)) => {
            // Written past the capture of test output: an exclusion is always shown.
            let module = module.rsplit("::").next().unwrap_or_default();
            let line = format!("excluded: {module}::{case}: {reason}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
        (Verdict::Held, Some(reason)) => panic!("{case} holds, and the harness excludes it: {reason}"),
        (Verdict::Excluded, None) => {
            panic!("{case} is excluded by a capability, and the harness does not say so")
        }
    }
}

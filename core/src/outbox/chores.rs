//! What the runner does beside sending: digests of what was given up, counting, and deleting what is old.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use super::row::{Millis, Purge, RowInfo, State, Untold};
use super::shared::{Shared, count, millis};
use crate::client::{BoxFuture, Context, Producer};
use crate::error::Result;
use crate::message::Message;

/// Rows that one digest is about, and those that it shows.
const TOLD: (usize, usize) = (10_000, 20);

/// Characters of a body in a digest.
const SHOWN: usize = 200;

/// Rows that one transaction deletes.
const PURGED: usize = 1000;

/// How long a chore may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is told of what was given up.
#[derive(Clone)]
pub(super) struct Notifier {
    pub(super) id: Arc<str>,
    pub(super) producer: Arc<dyn Producer>,
}

/// What became of a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing is left to tell.
    All,
    /// There may be more.
    More,
    /// It could not be told, and is tried again then.
    Again(Millis),
}

/// What is done once after the opening: a schedule that was changed holds for what is stored too.
pub(super) fn first(shared: &Arc<Shared>) -> BoxFuture<'static, ()> {
    let shared = shared.clone();
    Box::pin(async move {
        if let Some(latest) = shared.latest() {
            let ctx = Context::within(PATIENCE);
            let _ = shared.noted(shared.store.hasten(&ctx, &shared.id, latest).await);
        }
        tidy(&shared).await;
    })
}

/// Counts rows and deletes those that are old enough.
pub(super) fn tidy(shared: &Arc<Shared>) -> BoxFuture<'static, ()> {
    let shared = shared.clone();
    Box::pin(async move {
        let ctx = Context::within(PATIENCE);
        if shared.noted(tidied(&shared, &ctx).await).is_ok() {
            counted(&shared, &ctx).await;
        }
    })
}

/// Counts rows, for the status.
pub(super) async fn counted(shared: &Shared, ctx: &Context) {
    let stats = shared.noted(shared.store.stats(ctx, Some(&shared.id)).await);
    // A client without rows is not listed.
    shared.shown.lock().stats = stats.ok().map(|stats| stats.into_iter().next().unwrap_or_default());
}

async fn tidied(shared: &Shared, ctx: &Context) -> Result<()> {
    let kept = [(State::Done, Some(shared.terms.keep_done)), (State::Dead, shared.terms.keep_dead)];
    for (state, kept) in kept {
        let Some(kept) = kept else { continue };
        let before = shared.now().saturating_sub(millis(kept));
        loop {
            let producer = shared.id.to_string();
            let purge = Purge { producer, state, before, limit: PURGED };
            if (shared.store.purge(ctx, purge).await? as usize) < PURGED {
                break;
            }
        }
    }
    Ok(())
}

/// Sends one digest of all that was given up.
pub(super) fn tell(shared: &Arc<Shared>, notifier: &Notifier) -> BoxFuture<'static, Told> {
    let (shared, notifier) = (shared.clone(), notifier.clone());
    Box::pin(async move {
        let ctx = Context::within(PATIENCE);
        let now = shared.now();
        let until = now.saturating_add(millis(PATIENCE * 3));
        let untold = shared.store.untold(&ctx, &shared.id, now, until, TOLD.0, TOLD.1).await;
        let again = Told::Again(now.saturating_add(1000));
        let Ok(untold) = shared.noted(untold) else { return again };
        if untold.rows.is_empty() {
            return Told::All;
        }
        let message = Arc::new(Message::new(digest(&shared.id, &untold)));
        // It is none of ours that is late: it has time of its own.
        let sent = notifier.producer.send(&Context::within(PATIENCE), message).await;
        let (told, next) = match &sent {
            Ok(_) => {
                count(&shared.counts.notified);
                (if untold.rows.len() < TOLD.0 { Told::All } else { Told::More }, None)
            }
            Err(error) => {
                count(&shared.counts.not_notified);
                tracing::warn!(id = %shared.id, notifier = %notifier.id, %error, "nobody was told of messages that were given up");
                let due = match error.retry_after() {
                    // Who asks for a time is told then, whenever the next run is.
                    Some(after) => now.saturating_add(millis(after)),
                    None => shared.next_try(1, Duration::ZERO),
                };
                // Somebody is to know within the hour, however seldom the runs are.
                let due = due.clamp(now.saturating_add(1000), now.saturating_add(3_600_000));
                (Told::Again(due), Some(due))
            }
        };
        // What cannot be noted is told again once the claim of it ends.
        let noted = shared.store.told(&Context::within(PATIENCE), untold.rows, next).await;
        if shared.noted(noted).is_err() { again } else { told }
    })
}

/// A text that a person reads: a line for each row.
fn digest(id: &str, untold: &Untold) -> String {
    let count = untold.rows.len();
    let mut text = match count {
        1 => format!("1 message of `{id}` was given up:"),
        _ => format!("{count} messages of `{id}` were given up:"),
    };
    for row in &untold.shown {
        let _ = write!(text, "\n{}", line(row));
    }
    if count > untold.shown.len() {
        let _ = write!(text, "\nand {} more", count - untold.shown.len());
    }
    text
}

fn line(row: &RowInfo) -> String {
    let error = row.error.as_deref().and_then(|error| serde_json::from_str::<serde_json::Value>(error).ok());
    let text = |key: &str| {
        let value = error.as_ref().and_then(|error| error.get(key)).and_then(serde_json::Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let mut line = format!("{}", row.id);
    if let Some(topic) = &row.topic {
        let _ = write!(line, " to {topic}");
    }
    let tries = if row.attempts == 1 { "attempt" } else { "attempts" };
    let _ = write!(line, ", {} {tries}: {}: {}", row.attempts, text("kind"), text("message"));
    let _ = write!(line, "\n  {}", short(row));
    line
}

/// The begin of a body, on one line.
fn short(row: &RowInfo) -> String {
    let cut = std::str::from_utf8(&row.short).or_else(|error| {
        // A character may be cut at the end.
        let whole = error.error_len().is_none().then(|| row.short.get(..error.valid_up_to())).flatten();
        std::str::from_utf8(whole.unwrap_or(b"\xff"))
    });
    match cut {
        Ok(text) => {
            let line: String =
                text.chars().take(SHOWN).map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
            let all = line.chars().count() == text.chars().count() && row.short.len() as u64 >= row.size;
            if all { line } else { format!("{line}…") }
        }
        Err(_) => format!("({} bytes that are no text)", row.size),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::outbox::row::RowId;

    fn row(body: &[u8]) -> RowInfo {
        RowInfo {
            id: RowId(42),
            producer: "orders".into(),
            state: State::Dead,
            attempts: 5,
            due: None,
            error: Some(r#"{"kind":"unavailable","message":"connection refused"}"#.into()),
            topic: Some("paid".into()),
            order_key: None,
            dedup: None,
            size: body.len() as u64,
            accepted: 0,
            created: 0,
            updated: 0,
            short: Bytes::copy_from_slice(body.get(..512).unwrap_or(body)),
        }
    }

    #[test]
    fn a_digest_names_each_row_and_how_many_there_are() {
        let rows = (0..30).map(|id| (RowId(id), 1)).collect();
        let text = digest("orders", &Untold { rows, shown: vec![row(b"{\"order\":\n7}")] });
        assert_eq!(
            text,
            "30 messages of `orders` were given up:\n42 to paid, 5 attempts: unavailable: connection refused\n  \
             {\"order\": 7}\nand 29 more"
        );
        assert!(
            digest("a", &Untold { rows: vec![(RowId(1), 1)], shown: vec![] })
                .starts_with("1 message of `a` was")
        );
    }

    #[test]
    fn a_body_is_cut_and_what_is_no_text_is_not_shown() {
        assert_eq!(short(&row(b"\xff\xfe")), "(2 bytes that are no text)");
        let long = "é".repeat(300);
        let shown = short(&row(long.as_bytes()));
        assert_eq!(shown.chars().count(), SHOWN + 1);
        assert!(shown.ends_with('…'));
        let odd = format!("a{}", "é".repeat(400));
        assert!(short(&row(odd.as_bytes())).starts_with("aé"), "a character cut at the end");
    }
}

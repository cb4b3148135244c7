//! What the runner does beside sending: digests of what was given up, counting, and deleting what is old.

use std::fmt::Write;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::row::{Millis, Purge, RowId, RowInfo, State};
use super::shared::{Shared, count, millis};
use crate::client::{BoxFuture, Context, Producer};
use crate::error::{Error, Kind, Outcome, Result};
use crate::message::Message;

/// Rows whose telling one transaction changes, and those that a digest shows.
const TOLD: (usize, usize) = (10_000, 20);

/// Rows that one digest is about.
const MOST: usize = 1_000_000;

/// Characters of a body, and of an error, in a digest.
const SHOWN: usize = 200;

/// Bytes of a digest, where its notifier takes more.
const LARGEST: usize = 64 << 10;

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
    /// There was nothing to tell.
    Nothing,
    /// All that was there.
    All,
    /// There may be more.
    More,
    /// It could not be told, and is tried again then.
    Again(Millis),
}

/// What is done after the opening, and when the time of day was set back: a schedule that was changed holds for what is
/// stored too.
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

/// Counts rows and deletes those that are old enough; of dead ones, whoever gave them up, none of which somebody is still
/// to be told.
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
            let purge = Purge { producer, state, before, told: true, limit: PURGED };
            if (shared.store.purge(ctx, purge).await? as usize) < PURGED {
                break;
            }
        }
    }
    Ok(())
}

/// Sends one digest of all that was given up; until `hush` says that there is no more time.
pub(super) fn tell(
    shared: &Arc<Shared>,
    notifier: &Notifier,
    hush: &CancellationToken,
) -> BoxFuture<'static, Told> {
    let (shared, notifier, hush) = (shared.clone(), notifier.clone(), hush.clone());
    Box::pin(async move {
        let again = Told::Again(shared.now().saturating_add(1000));
        if hush.is_cancelled() {
            return again;
        }
        if shared.notify_held.load(Ordering::Acquire) {
            // What is claimed here another process could not tell.
            return Told::Nothing;
        }
        let ctx = Context::within(PATIENCE).cancelled_by(hush.clone());
        let untold = claimed(&shared, &ctx).await;
        if untold.rows.is_empty() {
            return if shared.noted(untold.failed).is_err() { again } else { Told::Nothing };
        }
        let all = untold.rows.len() < MOST && untold.failed.is_ok();
        // It is none of ours that is late: it has time of its own.
        let ctx = Context::within(PATIENCE).cancelled_by(hush);
        let sent = tell_of(&shared, &notifier, &ctx, &untold).await;
        let (told, next) = match &sent {
            Ok(()) => {
                count(&shared.counts.notified);
                (if all { Told::All } else { Told::More }, None)
            }
            Err(error) => {
                count(&shared.counts.not_notified);
                tracing::warn!(id = %shared.id, notifier = %notifier.id, %error, "nobody was told of messages that were given up");
                let now = shared.now();
                let due = match error.retry_after() {
                    // Who asks for a time is told then, whenever the next run is.
                    Some(after) => now.saturating_add(millis(after.min(PATIENCE * 100))),
                    None => shared.next_try(1, Duration::ZERO),
                };
                // Somebody is to know within the hour, however seldom the runs are.
                let due = due.clamp(now.saturating_add(1000), now.saturating_add(3_600_000));
                // Who opens it next tells at once of what there was no time for.
                let due = if error.kind() == Kind::Cancelled { now } else { due };
                (Told::Again(due), Some(due))
            }
        };
        // What cannot be noted is told again once the claim of it ends.
        let ctx = Context::within(PATIENCE);
        for rows in untold.rows.chunks(TOLD.0) {
            if shared.noted(shared.store.told(&ctx, rows.to_vec(), next).await).is_err() {
                return again;
            }
        }
        told
    })
}

/// What a digest is to tell.
struct Telling {
    rows: Vec<(RowId, u64)>,
    shown: Vec<RowInfo>,
    failed: Result<()>,
}

// Claims the telling of all that there is.
async fn claimed(shared: &Shared, ctx: &Context) -> Telling {
    let mut telling = Telling { rows: Vec::new(), shown: Vec::new(), failed: Ok(()) };
    while telling.rows.len() < MOST {
        let now = shared.now();
        let until = now.saturating_add(millis(PATIENCE * 3));
        let shown = TOLD.1.saturating_sub(telling.shown.len());
        match shared.store.untold(ctx, &shared.id, now, until, TOLD.0, shown).await {
            Ok(page) => {
                let last = page.rows.len() < TOLD.0;
                telling.rows.extend(page.rows);
                telling.shown.extend(page.shown);
                if last {
                    break;
                }
            }
            Err(error) => {
                telling.failed = Err(error);
                break;
            }
        }
    }
    telling
}

async fn tell_of(shared: &Shared, notifier: &Notifier, ctx: &Context, telling: &Telling) -> Result<()> {
    let most = notifier.producer.capability().max_body.and_then(|most| usize::try_from(most).ok());
    let text = digest(&shared.id, telling.rows.len(), &telling.shown, most.unwrap_or(LARGEST).min(LARGEST));
    match send(notifier, ctx, text).await {
        Err(error) if error.kind() == Kind::TooLarge => {
            send(notifier, ctx, heading(&shared.id, telling.rows.len())).await
        }
        sent => sent,
    }
}

// It is a client of another: whatever it does, it takes no longer than the time for it.
async fn send(notifier: &Notifier, ctx: &Context, text: String) -> Result<()> {
    let message = Arc::new(Message::new(text));
    let sent = AssertUnwindSafe(async { notifier.producer.send(ctx, message).await }).catch_unwind();
    match ctx.run(sent).await? {
        Ok(sent) => sent.map(drop),
        Err(_) => Err(Error::new(Kind::Internal, "the notifier panicked").outcome_is(Outcome::Unknown)),
    }
}

fn heading(id: &str, count: usize) -> String {
    match count {
        1 => format!("1 message of `{id}` was given up"),
        _ => format!("{count} messages of `{id}` were given up"),
    }
}

/// A text that a person reads, of so many bytes at most: a line for each row. The first line is always whole.
fn digest(id: &str, count: usize, rows: &[RowInfo], most: usize) -> String {
    let heading = heading(id, count);
    let more = |shown: usize| match count.saturating_sub(shown) {
        0 => String::new(),
        left => format!("\nand {left} more"),
    };
    let (mut text, mut shown) = (format!("{heading}:"), 0);
    for row in rows {
        let line = line(row);
        if text.len() + 1 + line.len() + more(shown + 1).len() > most {
            break;
        }
        let _ = write!(text, "\n{line}");
        shown += 1;
    }
    if shown == 0 { heading } else { text + &more(shown) }
}

/// The text, cut where it is too long, on one line.
fn cut(text: &str) -> String {
    let line: String =
        text.chars().take(SHOWN).map(|sign| if sign.is_control() { ' ' } else { sign }).collect();
    if text.chars().nth(SHOWN).is_none() { line } else { format!("{line}…") }
}

fn line(row: &RowInfo) -> String {
    let error = row.error.as_deref().and_then(|error| serde_json::from_str::<serde_json::Value>(error).ok());
    let text = |key: &str| {
        let value = error.as_ref().and_then(|error| error.get(key)).and_then(serde_json::Value::as_str);
        cut(value.unwrap_or_default())
    };
    let mut line = format!("{}", row.id);
    if let Some(topic) = &row.topic {
        let _ = write!(line, " to {}", cut(topic));
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
        let text = digest("orders", 30, &[row(b"{\"order\":\n7}")], LARGEST);
        assert_eq!(
            text,
            "30 messages of `orders` were given up:\n42 to paid, 5 attempts: unavailable: connection refused\n  \
             {\"order\": 7}\nand 29 more"
        );
        assert_eq!(digest("a", 1, &[], LARGEST), "1 message of `a` was given up");
    }

    #[test]
    fn a_digest_is_no_larger_than_its_notifier_takes() {
        let long = serde_json::json!({"kind": "unavailable", "message": "é".repeat(1000)}).to_string();
        let rows: Vec<RowInfo> =
            (0..20).map(|_| RowInfo { error: Some(long.clone()), ..row(&[b'x'; 600]) }).collect();
        let whole = digest("orders", 1_000_000, &rows, LARGEST);
        assert!(whole.len() < 20_000 && whole.ends_with("and 999980 more"), "{} bytes", whole.len());
        for most in [0, 40, 100, 700, 1400, 5000] {
            let text = digest("orders", 1_000_000, &rows, most);
            assert!(text.len() <= most.max(50), "{} of {most}", text.len());
            let shown = text.matches("  xxx").count();
            let end = format!("and {} more", 1_000_000 - shown);
            assert!(shown == 0 || text.ends_with(&end), "{text}");
            assert_eq!(shown > 0, most > 700, "{text}");
        }
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

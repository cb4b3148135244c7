//! The calls that a producer's task has under way.

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::{MAX_FRAME, PROVIDER};
use crate::error::{Error, Kind, Outcome, Result};
use crate::intake::{Call, Ended};
use crate::message::{Message, Receipt};
use crate::wire::kapokmq::{MAX_DELAY, MAX_KEY};

/// What a frame has around its body.
const FRAME_OVERHEAD: usize = 64;

/// A call and how often it was written.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) call: Call,
    pub(super) writes: u32,
    number: u64,
}

impl Job {
    /// Whether the message may have reached the broker.
    pub(super) fn outcome(&self) -> Outcome {
        if self.writes == 0 { Outcome::NotSent } else { Outcome::Unknown }
    }

    /// The key that is written with it.
    pub(super) fn key(&self) -> Option<&str> {
        self.call.message.fields().and_then(|fields| fields.key.as_deref()).filter(|key| !key.is_empty())
    }

    /// The error for this job, with its outcome and attempts.
    pub(super) fn fails(&self, kind: Kind, text: &str) -> Error {
        Error::new(kind, text).outcome_is(self.outcome()).tried(self.writes).by(PROVIDER)
    }
}

struct Flush {
    before: u64,
    remaining: u64,
    done: oneshot::Sender<()>,
}

/// Counts what is under way and tells what ended.
#[derive(Default)]
pub(super) struct Book {
    ended: Ended,
    flushes: Vec<Flush>,
    next_number: u64,
    live: u64,
    // Of those, how many do not wait for a connection.
    hasty: u64,
    acked: u64,
}

impl Book {
    pub(super) fn admit(&mut self, call: Call) -> Job {
        let number = self.next_number;
        self.next_number += 1;
        self.live += 1;
        self.hasty += u64::from(call.fails_when_disconnected());
        Job { call, writes: 0, number }
    }

    /// Ends a job with an error.
    pub(super) fn fail(&mut self, job: Job, error: Error) {
        self.end(job, Err(error));
    }

    /// Ends a job whose ack came.
    pub(super) fn acked(&mut self, job: Job, message_id: Option<&str>) {
        self.acked += 1;
        let message_id = message_id.map(Into::into);
        let receipt = Receipt { attempts: job.writes, message_id, ..Receipt::sent(PROVIDER) };
        self.end(job, Ok(receipt));
    }

    /// Ends a job that the broker did not take.
    pub(super) fn refused(&mut self, job: Job, kind: Kind, text: &str) {
        let mut error = job.fails(kind, &format!("the broker refused the message: {text}"));
        if kind == Kind::Storage {
            // A broker that answers has no room on its disk now; one whose log has failed closes.
            error = error.retryable_is(true);
        }
        // An earlier write of it may have arrived.
        let outcome = if job.writes > 1 { Outcome::Unknown } else { Outcome::NotSent };
        self.end(job, Err(error.outcome_is(outcome)));
    }

    fn end(&mut self, job: Job, result: Result<Receipt>) {
        self.live -= 1;
        self.hasty -= u64::from(job.call.fails_when_disconnected());
        for flush in &mut self.flushes {
            if job.number < flush.before {
                flush.remaining -= 1;
            }
        }
        self.ended.push(job.call, result);
    }

    /// Tells `done` when everything admitted so far has ended.
    pub(super) fn flush(&mut self, done: oneshot::Sender<()>) {
        self.flushes.push(Flush { before: self.next_number, remaining: self.live, done });
    }

    /// Tells callers what ended, and then those who flush.
    pub(super) fn tell(&mut self) {
        self.ended.tell();
        if self.flushes.is_empty() {
            return;
        }
        for flush in std::mem::take(&mut self.flushes) {
            if flush.remaining == 0 {
                let _ = flush.done.send(());
            } else if !flush.done.is_closed() {
                self.flushes.push(flush);
            }
        }
    }

    /// Whether any job under way is to fail without a connection, whatever the config says.
    pub(super) fn any_hasty(&self) -> bool {
        self.hasty > 0
    }

    /// Jobs under way.
    pub(super) fn live(&self) -> u64 {
        self.live
    }

    /// Jobs whose ack came, ever.
    pub(super) fn acks(&self) -> u64 {
        self.acked
    }
}

/// Refuses what the wire cannot carry.
pub(super) fn check(message: &Message, topic: &str) -> Result<()> {
    message.allow_only(PROVIDER, &["key"], Some(topic))?;
    let body = message.body();
    let key = message.fields().and_then(|fields| fields.key.as_deref()).unwrap_or_default();
    if key.len() > MAX_KEY {
        let text = format!("the key of {} bytes is longer than {MAX_KEY}", key.len());
        return Err(Error::new(Kind::InvalidArgument, text).by(PROVIDER));
    }
    if std::str::from_utf8(body).is_err() {
        let text = "the body is not UTF-8: the kapokmq wire carries text only";
        return Err(Error::new(Kind::Unsupported, text).by(PROVIDER));
    }
    if message.delay().as_secs() > MAX_DELAY.unsigned_abs() {
        let text = "the delay is longer than the kapokmq wire can carry";
        return Err(Error::new(Kind::InvalidArgument, text).by(PROVIDER));
    }
    // Few bodies are so long that their escapes have to be counted.
    let room = MAX_FRAME - FRAME_OVERHEAD - escaped_len(key.as_bytes());
    if body.len() > room || (body.len() > room / 6 && escaped_len(body) > room) {
        let text = format!("the body of {} bytes makes a frame of more than {MAX_FRAME} bytes", body.len());
        return Err(Error::new(Kind::TooLarge, text).by(PROVIDER));
    }
    Ok(())
}

/// An upper bound of the length of the body as a JSON string.
fn escaped_len(body: &[u8]) -> usize {
    body.iter().fold(body.len(), |length, byte| {
        length
            + match byte {
                b'"' | b'\\' => 1,
                0..0x20 => 5,
                _ => 0,
            }
    })
}

/// The earliest deadline of the jobs under way, kept without a structure of its own: deadlines are noted as
/// jobs arrive, and when the earliest comes all jobs are looked at.
#[derive(Debug)]
pub(super) struct Deadlines {
    next: Option<Instant>,
    not_before: Instant,
}

impl Deadlines {
    pub(super) fn new(now: Instant) -> Deadlines {
        Deadlines { next: None, not_before: now }
    }

    pub(super) fn note(&mut self, deadline: Instant) {
        let at = deadline.max(self.not_before);
        if self.next.is_none_or(|next| at < next) {
            self.next = Some(at);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// After a look at all jobs: `live` of them have not ended; each has to be noted again.
    ///
    /// Looks are spaced so that they cost a tenth of the time at most, however many deadlines differ.
    pub(super) fn looked(&mut self, now: Instant, live: u64) {
        self.next = None;
        self.not_before = now + Duration::from_micros((live / 10).clamp(500, 50_000));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_measured_as_they_are_written() {
        let mut out = Vec::new();
        let body: String = (0..0x80u8).map(char::from).chain("é\u{2028}😀".chars()).collect();
        crate::wire::kapokmq::encode_send(&mut out, &body, u64::MAX);
        assert!(out.len() <= escaped_len(body.as_bytes()) + FRAME_OVERHEAD);
        let over = check(&Message::new("x".repeat(MAX_FRAME - FRAME_OVERHEAD + 1)), "t").unwrap_err();
        assert_eq!(over.kind(), Kind::TooLarge);
        let sixth = (MAX_FRAME - FRAME_OVERHEAD) / 6;
        check(&Message::new("\u{1}".repeat(sixth)), "t").unwrap();
        let escaped = check(&Message::new("\u{1}".repeat(sixth + 1)), "t").unwrap_err();
        assert_eq!(escaped.kind(), Kind::TooLarge);
        check(&Message::new("x".repeat(sixth + 1)), "t").unwrap();
    }

    #[test]
    fn what_the_wire_cannot_carry_is_refused() {
        let error = check(&Message::new(&b"\xff"[..]), "t").unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (Kind::Unsupported, Outcome::NotSent));
        let error = check(&Message::new("x").with(|fields| fields.tag = Some("k".into())), "t").unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        let keyed = |length| Message::new("x").with(|fields| fields.key = Some("k".repeat(length)));
        check(&keyed(MAX_KEY), "t").unwrap();
        assert_eq!(check(&keyed(MAX_KEY + 1), "t").unwrap_err().kind(), Kind::InvalidArgument);
        let error = check(&Message::new("x").with_delay(Duration::MAX), "t").unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument);
        check(&Message::new("x").with(|fields| fields.topic = Some("t".into())), "t").unwrap();
    }

    #[test]
    fn the_earliest_deadline_wins_and_looks_are_spaced() {
        let now = Instant::now();
        let mut deadlines = Deadlines::new(now);
        deadlines.note(now + Duration::from_secs(9));
        deadlines.note(now + Duration::from_secs(2));
        deadlines.note(now + Duration::from_secs(5));
        assert_eq!(deadlines.next(), Some(now + Duration::from_secs(2)));
        deadlines.looked(now, 65_536);
        deadlines.note(now);
        let wait = deadlines.next().unwrap() - now;
        assert!(wait >= Duration::from_millis(6) && wait < Duration::from_millis(7), "{wait:?}");
    }
}

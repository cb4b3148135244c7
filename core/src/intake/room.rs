//! Room for sends that go through no intake: so many calls, and so many bytes of their messages.

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use std::sync::Arc;

use super::Limits;
use crate::client::Context;
use crate::error::{Error, Kind, Result};
use crate::message::Message;

/// Bytes are counted in pieces of so many.
const PIECE: u64 = 1 << 10;

/// See the module. Who comes first gets room first.
#[derive(Debug)]
pub struct Room {
    calls: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    pieces: u32,
    limits: Limits,
}

/// One send's room; it is free again when this is dropped.
#[derive(Debug)]
pub struct Roomed {
    // None for what its client has counted.
    _room: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Room {
    /// As much as the limits say, and at least for one call.
    pub fn new(limits: &Limits) -> Room {
        let calls = usize::try_from(limits.calls).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        let most = u64::from(u32::MAX).min(Semaphore::MAX_PERMITS as u64);
        let pieces = u32::try_from((limits.bytes / PIECE).clamp(1, most)).unwrap_or(u32::MAX);
        Room {
            calls: Arc::new(Semaphore::new(calls)),
            bytes: Arc::new(Semaphore::new(pieces as usize)),
            pieces,
            limits: *limits,
        }
    }

    /// Waits for room, unless the caller or the member that this is of has somewhere else to go. A message that is
    /// larger than all of it waits until it is alone.
    ///
    /// # Errors
    /// `queue_full` when there was none until the deadline, or at once; `cancelled`.
    pub async fn enter(&self, ctx: &Context, message: &Message) -> Result<Roomed> {
        if self.limits.counted(ctx) {
            return Ok(Roomed { _room: None });
        }
        let pieces = (weight(message).div_ceil(PIECE)).min(u64::from(self.pieces));
        let pieces = u32::try_from(pieces).unwrap_or(self.pieces);
        if let Ok(call) = self.calls.clone().try_acquire_owned()
            && let Ok(bytes) = self.bytes.clone().try_acquire_many_owned(pieces)
        {
            return Ok(Roomed { _room: Some((call, bytes)) });
        }
        if !self.limits.waits(ctx) {
            return Err(self.full());
        }
        let room = async {
            let call = self.calls.clone().acquire_owned().await;
            (call, self.bytes.clone().acquire_many_owned(pieces).await)
        };
        match ctx.run(room).await {
            Ok((Ok(call), Ok(bytes))) => {
                // It may have come after the deadline: then it is the caller who is late.
                ctx.check()?;
                Ok(Roomed { _room: Some((call, bytes)) })
            }
            Err(ended) if ended.kind() != Kind::Timeout => Err(ended),
            // The room stayed full until the deadline: that is the news, not the time.
            _ => Err(self.full()),
        }
    }

    /// The error of a send that found no room.
    pub fn full(&self) -> Error {
        let text = "as many sends are under way as `max_pending` and `max_pending_bytes` allow";
        Error::new(Kind::QueueFull, text)
    }
}

/// The bytes of a message that count: body, files and recipients.
fn weight(message: &Message) -> u64 {
    let body = message.body().len() as u64;
    let Some(fields) = message.fields() else { return body };
    let files: usize = fields.attachments.iter().map(|file| file.body.len()).sum();
    let names: usize = fields.recipients.iter().map(String::len).sum();
    body.saturating_add(files as u64).saturating_add(names as u64)
}

#[cfg(test)]
mod tests {
    use super::super::Whose;
    use super::*;
    use std::time::Duration;

    fn room(calls: u64, bytes: u64) -> Room {
        Room::new(&limits(calls, bytes, Whose::Client))
    }

    fn limits(calls: u64, bytes: u64, of: Whose) -> Limits {
        Limits { calls, bytes, of, ..Limits::default() }
    }

    fn short() -> Context {
        Context::within(Duration::from_millis(10))
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_bytes_are_bounded_and_a_full_room_is_told() {
        let full = room(2, 10 << 10);
        let small = Message::new("x");
        let large = Message::new(vec![0; 9 << 10]);
        let first = full.enter(&short(), &large).await.unwrap();
        assert_eq!(full.enter(&short(), &large).await.unwrap_err().kind(), Kind::QueueFull);
        let second = full.enter(&short(), &small).await.unwrap();
        assert_eq!(full.enter(&short(), &Message::new("")).await.unwrap_err().kind(), Kind::QueueFull);
        drop((first, second));
        // One that is too large for the whole room goes alone.
        let alone = full.enter(&short(), &Message::new(vec![0; 1 << 20])).await.unwrap();
        assert_eq!(full.enter(&short(), &small).await.unwrap_err().kind(), Kind::QueueFull);
        drop(alone);
        full.enter(&short(), &small).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn files_count_too() {
        let full = room(9, 10 << 10);
        let file = crate::message::Attachment {
            name: String::new(),
            content_type: String::new(),
            body: vec![0; 9 << 10].into(),
        };
        let message = Message::new("").with(|fields| fields.attachments.push(file));
        let _first = full.enter(&short(), &message).await.unwrap();
        assert_eq!(full.enter(&short(), &message).await.unwrap_err().kind(), Kind::QueueFull);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_somewhere_else_to_go_does_not_wait_for_room() {
        let message = Message::new("x");
        for of in [Whose::Client, Whose::Member, Whose::Spared] {
            let full = Room::new(&limits(1, 1 << 20, of));
            let _first = full.enter(&short(), &message).await.unwrap();
            for hasty in [false, true] {
                let ctx = Context::within(Duration::from_secs(9));
                let ctx = if hasty { ctx.failing_when_disconnected() } else { ctx };
                let begun = tokio::time::Instant::now();
                let error = full.enter(&ctx, &message).await.unwrap_err();
                assert_eq!(error.kind(), Kind::QueueFull);
                assert!(error.retryable());
                let at_once = hasty || of == Whose::Spared;
                let took = if at_once { Duration::ZERO } else { Duration::from_secs(9) };
                assert_eq!(begun.elapsed(), took, "{of:?} {hasty}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_its_client_has_counted_needs_no_room_there_and_some_in_a_member() {
        let message = Message::new("x");
        for of in [Whose::Client, Whose::Member] {
            let full = Room::new(&limits(1, 1 << 20, of));
            let _first = full.enter(&short(), &message).await.unwrap();
            let entered = full.enter(&short().with_room(), &message).await;
            assert_eq!(entered.is_ok(), of == Whose::Client);
            assert!(full.enter(&short().with_room().without_room(), &message).await.is_err());
        }
    }

    #[tokio::test]
    async fn room_that_comes_after_the_deadline_is_none() {
        let full = room(1, 1 << 20);
        let message = Message::new("x");
        let first = full.enter(&short(), &message).await.unwrap();
        let ctx = short();
        let mut waits = std::pin::pin!(full.enter(&ctx, &message));
        assert!(futures_util::poll!(&mut waits).is_pending());
        // Nobody looks until both are there: the room, and the end of the time.
        std::thread::sleep(Duration::from_millis(30));
        drop(first);
        assert_eq!(waits.await.unwrap_err().kind(), Kind::Timeout);
        full.enter(&short(), &message).await.unwrap();
    }
}

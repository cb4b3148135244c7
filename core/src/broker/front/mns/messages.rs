//! Messages of queues.

use std::borrow::Cow;
use std::task::Poll;
use std::time::Duration;

use axum::http::StatusCode;

use super::Front;
use super::answer::{Answer, created, empty, found, not_stored, partly, refuse, refused};
use super::directory::queue_attributes;
use super::handle;
use super::note::{MAX_NOTE, Note};
use crate::broker::depot::{Delivery, Shelf};
use crate::broker::hub::count;
use crate::broker::log::record::Sort;
use crate::broker::queue::LeaseDraft;
use crate::wire::mns::{
    Code, DEFAULT_PRIORITY, Entry, Failure, MAX_BATCH, MAX_BODY, MAX_DELAY, MAX_WAIT, Operation, Outgoing,
    PRIORITIES, QueueAttributes, Received, Sent, VISIBILITY, Visibility, body_md5, encode_batch,
    encode_failures, encode_received, encode_received_batch,
};

/// A message that may be stored, with the texts that its draft borrows.
struct Checked<'a> {
    body: &'a str,
    note: String,
    group: Option<String>,
    delay: u32,
    priority: u8,
}

impl Front {
    pub(super) async fn of_messages(&self, operation: Operation<'_>) -> Answer {
        let done = match operation {
            Operation::Send { queue, message } => self.send(&queue, &message).await,
            Operation::SendBatch { queue, messages } => self.send_batch(&queue, &messages).await,
            Operation::Receive { queue, wait } => self.receive(&queue, None, wait).await,
            Operation::ReceiveBatch { queue, number, wait } => self.receive(&queue, Some(number), wait).await,
            Operation::Peek { queue } => self.peek(&queue, None),
            Operation::PeekBatch { queue, number } => self.peek(&queue, Some(number)),
            Operation::Delete { queue, handle } => self.delete(&queue, &handle).await,
            Operation::DeleteBatch { queue, handles } => self.delete_batch(&queue, &handles).await,
            Operation::ChangeVisibility { queue, handle, timeout } => {
                self.change(&queue, &handle, timeout).await
            }
            _ => Err(refused(Code::InvalidRequestUrl)),
        };
        done.unwrap_or_else(|refused| refused)
    }

    async fn send(&self, queue: &str, message: &Outgoing<'_>) -> Result<Answer, Answer> {
        let shelf = self.shelf(Sort::Queue, queue)?;
        let attributes = queue_attributes(&shelf);
        let checked = check(message, &attributes)?;
        let sent = self.store(&shelf, &attributes, &[checked]).await?;
        sent.first().map(|sent| created(sent.encode())).ok_or_else(|| refused(Code::InternalError))
    }

    async fn send_batch(&self, queue: &str, messages: &[Outgoing<'_>]) -> Result<Answer, Answer> {
        let shelf = self.shelf(Sort::Queue, queue)?;
        let attributes = queue_attributes(&shelf);
        let most = attributes.maximum_message_size.map_or(MAX_BODY, |most| most as usize).max(MAX_BODY);
        if messages.iter().map(|message| message.body.len()).sum::<usize>() > most {
            return Err(refuse(Code::InvalidArgument, "the bodies of a batch are together too long"));
        }
        let mut good = Vec::new();
        let entries: Vec<Option<Entry>> = messages
            .iter()
            .map(|message| match check(message, &attributes) {
                Ok(checked) => {
                    good.push(checked);
                    None
                }
                Err(refused) => {
                    let (code, text) = refused.words();
                    Some(Entry::Refused { code: code.to_owned(), text: text.to_owned() })
                }
            })
            .collect();
        let failed = good.len() < messages.len();
        let mut sent = match good.is_empty() {
            true => Vec::new(),
            false => self.store(&shelf, &attributes, &good).await?,
        }
        .into_iter()
        // Beside failures nothing but ids and digests: the official Python client takes an answer with more for
        // damaged.
        .map(|sent| if failed { Sent { receipt_handle: None, group: None, ..sent } } else { sent });
        let entries: Vec<Entry> =
            entries.into_iter().filter_map(|entry| entry.or_else(|| sent.next().map(Entry::Sent))).collect();
        let status = if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::CREATED };
        Ok(partly(status, encode_batch(&entries)))
    }

    async fn store(
        &self,
        shelf: &Shelf,
        attributes: &QueueAttributes,
        messages: &[Checked<'_>],
    ) -> Result<Vec<Sent>, Answer> {
        let retention = attributes.message_retention_period.unwrap_or(0);
        let drafts: Vec<LeaseDraft<'_>> = messages
            .iter()
            .map(|message| LeaseDraft {
                body: message.body.as_bytes(),
                note: &message.note,
                delay_ms: u64::from(message.delay) * 1000,
                priority: message.priority,
                retention_ms: u64::from(retention) * 1000,
            })
            .collect();
        let sequences = shelf.store(&drafts).await.map_err(|why| not_stored(&why, Code::QueueNotExist))?;
        count(&self.hub.counters.accepted, sequences.len());
        let (codes, number) = (&self.hub.codes, shelf.number);
        let sent = messages.iter().zip(sequences).map(|(message, sequence)| Sent {
            message_id: handle::id(codes, number, sequence),
            body_md5: body_md5(message.body.as_bytes()),
            receipt_handle: (message.delay > 0)
                .then(|| self.handles.encode(number, sequence, message.priority, 0)),
            group: message.group.clone(),
        });
        Ok(sent.collect())
    }

    async fn receive(&self, queue: &str, number: Option<u32>, wait: Option<u32>) -> Result<Answer, Answer> {
        let most = batch(number)?;
        let shelf = self.shelf(Sort::Queue, queue)?;
        let attributes = queue_attributes(&shelf);
        let wait = wait.or(attributes.polling_wait_seconds).unwrap_or(0);
        if wait > MAX_WAIT {
            return Err(refuse(Code::InvalidArgument, "waitseconds is from 0 to 30"));
        }
        let hidden = Duration::from_secs(u64::from(attributes.visibility_timeout.unwrap_or(30)));
        let hidden = u64::try_from(hidden.as_millis()).unwrap_or(u64::MAX);
        let deliveries = if wait == 0 {
            shelf.take(most, hidden, None)
        } else {
            self.poll(&shelf, most, hidden, wait).await
        };
        if deliveries.is_empty() {
            // A queue that was deleted meanwhile has none either.
            self.shelf(Sort::Queue, queue)?;
            return Err(refused(Code::MessageNotExist));
        }
        count(&self.hub.counters.pushed, deliveries.len());
        Ok(self.show(&shelf, &deliveries, number.is_some()))
    }

    /// Waits for messages. Dropped with its connection it has taken nothing, and wakes who waits behind it.
    async fn poll(&self, shelf: &Shelf, most: usize, hidden: u64, wait: u32) -> Vec<Delivery> {
        let mut waiter = shelf.waiter();
        let taken = std::future::poll_fn(|cx| {
            // Before the look, so that what comes in between is not missed.
            waiter.waker.register(cx.waker());
            let taken = shelf.take(most, hidden, Some(&mut waiter));
            if taken.is_empty() { Poll::Pending } else { Poll::Ready(taken) }
        });
        tokio::select! {
            biased;
            taken = taken => taken,
            () = self.hub.stopping.cancelled() => Vec::new(),
            () = self.hub.aborted.cancelled() => Vec::new(),
            () = shelf.gone.cancelled() => Vec::new(),
            () = tokio::time::sleep(Duration::from_secs(u64::from(wait))) => Vec::new(),
        }
    }

    fn peek(&self, queue: &str, number: Option<u32>) -> Result<Answer, Answer> {
        let most = batch(number)?;
        let shelf = self.shelf(Sort::Queue, queue)?;
        let seen = shelf.peek(most);
        if seen.is_empty() {
            return Err(refused(Code::MessageNotExist));
        }
        Ok(self.show(&shelf, &seen, number.is_some()))
    }

    fn show(&self, shelf: &Shelf, deliveries: &[Delivery], several: bool) -> Answer {
        let shown: Vec<Received<'_>> =
            deliveries.iter().map(|delivery| self.received(shelf, delivery)).collect();
        match shown.as_slice() {
            [one] if !several => found(encode_received(one)),
            all => found(encode_received_batch(all)),
        }
    }

    fn received<'a>(&self, shelf: &Shelf, Delivery { received, stored }: &'a Delivery) -> Received<'a> {
        let (codes, number) = (&self.hub.codes, shelf.number);
        let mut note = Note::read(stored.key.as_deref());
        let group = note.group.take().map(Cow::Owned);
        let (properties, system_properties) = note.into_properties();
        let ms = |time: i64| time.max(0).unsigned_abs();
        let is_taken = received.serial > 0;
        let serial = received.serial;
        Received {
            message_id: handle::id(codes, number, received.sequence).into(),
            receipt_handle: is_taken
                .then(|| self.handles.encode(number, received.sequence, received.priority, serial).into()),
            body_md5: body_md5(&stored.body).into(),
            body: String::from_utf8_lossy(&stored.body),
            enqueue_time: ms(stored.created_ms),
            next_visible_time: is_taken.then(|| ms(received.until_ms)),
            first_dequeue_time: ms(if received.first_ms > 0 { received.first_ms } else { stored.created_ms }),
            dequeue_count: received.count,
            priority: u32::from(received.priority),
            group,
            properties,
            system_properties,
        }
    }

    async fn delete(&self, queue: &str, handle: &str) -> Result<Answer, Answer> {
        let shelf = self.shelf(Sort::Queue, queue)?;
        let place = self.handles.decode(shelf.number, handle);
        let place = place.ok_or_else(|| refused(Code::ReceiptHandleError))?;
        let (done, ticket) = shelf.delete(&[place]);
        if !done.contains(&true) {
            return Err(refused(Code::MessageNotExist));
        }
        count(&self.hub.counters.acknowledged, 1);
        self.safe(&shelf, ticket).await?;
        Ok(empty())
    }

    async fn delete_batch(&self, queue: &str, handles: &[Cow<'_, str>]) -> Result<Answer, Answer> {
        let shelf = self.shelf(Sort::Queue, queue)?;
        let places: Vec<Option<(u64, u64)>> =
            handles.iter().map(|handle| self.handles.decode(shelf.number, handle)).collect();
        let known: Vec<(u64, u64)> = places.iter().copied().flatten().collect();
        let (done, ticket) = shelf.delete(&known);
        count(&self.hub.counters.acknowledged, done.iter().filter(|done| **done).count());
        let mut done = done.into_iter();
        let mut failures = Vec::new();
        for (handle, place) in handles.iter().zip(places) {
            let code = match place {
                None => Code::ReceiptHandleError,
                Some(_) if done.next() == Some(true) => continue,
                Some(_) => Code::MessageNotExist,
            };
            failures.push(Failure {
                code: code.name().to_owned(),
                text: code.text().to_owned(),
                receipt_handle: handle.clone().into_owned(),
            });
        }
        self.safe(&shelf, ticket).await?;
        match failures.is_empty() {
            true => Ok(empty()),
            false => Ok(partly(StatusCode::NOT_FOUND, encode_failures(&failures))),
        }
    }

    async fn change(&self, queue: &str, handle: &str, timeout: u32) -> Result<Answer, Answer> {
        if timeout > *VISIBILITY.end() {
            return Err(refuse(Code::InvalidArgument, "VisibilityTimeout is from 0 to 43200"));
        }
        let shelf = self.shelf(Sort::Queue, queue)?;
        let place = self.handles.decode(shelf.number, handle);
        let place = place.ok_or_else(|| refused(Code::ReceiptHandleError))?;
        let changed = shelf.change(place, u64::from(timeout) * 1000);
        let (serial, until_ms) = changed.ok_or_else(|| refused(Code::MessageNotExist))?;
        // Else a crash could give the message to another while this one counts on its time.
        self.safe(&shelf, self.hub.log().ticket()).await?;
        let receipt_handle = self.handles.encode(shelf.number, place.0, handle::priority(handle), serial);
        let next_visible_time = until_ms.max(0).unsigned_abs();
        Ok(found(Visibility { receipt_handle, next_visible_time }.encode()))
    }

    pub(super) async fn safe(&self, shelf: &Shelf, ticket: crate::broker::log::Ticket) -> Result<(), Answer> {
        shelf.committed(ticket).await.map_err(|error| {
            tracing::error!(%error, "a change may not be stored");
            refuse(Code::InternalError, "the log has failed")
        })
    }
}

/// How many messages a request may get.
fn batch(number: Option<u32>) -> Result<usize, Answer> {
    match number.map(|number| number as usize) {
        None => Ok(1),
        Some(number) if (1..=MAX_BATCH).contains(&number) => Ok(number),
        Some(_) => Err(refuse(Code::InvalidArgument, "numOfMessages is from 1 to 16")),
    }
}

fn check<'a>(message: &'a Outgoing<'_>, attributes: &QueueAttributes) -> Result<Checked<'a>, Answer> {
    let delay = message.delay_seconds.or(attributes.delay_seconds).unwrap_or(0);
    if delay > MAX_DELAY {
        return Err(refuse(Code::InvalidArgument, "DelaySeconds is from 0 to 604800"));
    }
    let priority = message.priority.unwrap_or(DEFAULT_PRIORITY);
    let priority = u8::try_from(priority).ok().filter(|_| PRIORITIES.contains(&priority));
    let priority = priority.ok_or_else(|| refuse(Code::InvalidArgument, "Priority is from 1 to 16"))?;
    if message.body.len() > attributes.maximum_message_size.map_or(MAX_BODY, |most| most as usize) {
        return Err(refuse(Code::InvalidArgument, "MessageBody is longer than MaximumMessageSize"));
    }
    let note = Note::of(message);
    let (group, note) = (note.group.clone(), note.write());
    if note.len() > MAX_NOTE {
        return Err(refuse(Code::InvalidArgument, "the properties of the message are too long"));
    }
    Ok(Checked { body: &message.body, note, group, delay, priority })
}

//! What callers see: recipients in batches, and how each ended.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};

use super::{PROVIDER, numbers};
use crate::client::{BoxFuture, Capability, Context, Producer};
use crate::error::{Error, Kind, Result};
use crate::message::{Message, Receipt};
use crate::provider::http::{Each, Outlet, Site, sum_up};

/// The service's id of a message to one number, or the error.
pub(super) type Sent = Result<Option<Arc<str>>>;

/// One service.
pub(super) trait Service: Send + Sync + 'static {
    /// Its name in the config.
    const NAME: &'static str;

    /// What is the same for all numbers of a message.
    type Prepared: Send + Sync;

    /// Reads a message; nothing is sent.
    fn prepare(&self, message: &Message) -> Result<Self::Prepared>;

    /// How many numbers one request takes.
    fn batch(&self) -> usize;

    /// Numbers that differ in this go in different requests.
    fn apart(&self, number: &str) -> bool;

    /// Sends to these numbers, at least one; an end for each, in their order.
    fn send<'a>(
        &'a self,
        outlet: &'a Outlet,
        site: &'a Site,
        ctx: &'a Context,
        prepared: &'a Self::Prepared,
        numbers: &'a [&'a str],
    ) -> BoxFuture<'a, Vec<Sent>>;
}

pub(super) struct SmsProducer<S> {
    pub(super) service: S,
    pub(super) site: Site,
    pub(super) outlet: Outlet,
    pub(super) recipients: Vec<String>,
}

impl<S: Service> SmsProducer<S> {
    async fn deliver(&self, ctx: &Context, message: &Message) -> Result<Receipt> {
        if !message.delay().is_zero() {
            return Err(Error::new(Kind::Unsupported, "a delay cannot be sent by sms"));
        }
        let own = message.fields().map(|fields| fields.recipients.as_slice()).filter(|own| !own.is_empty());
        let recipients = own.unwrap_or(&self.recipients);
        if recipients.is_empty() {
            let text = "a short message has recipients, and there are none";
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        if recipients.len() > numbers::MOST {
            let text = format!("{} recipients are more than {}", recipients.len(), numbers::MOST);
            return Err(Error::new(Kind::TooLarge, text));
        }
        let prepared = self.service.prepare(message)?;
        let mut ends: Vec<Option<Sent>> = Vec::with_capacity(recipients.len());
        let mut groups: [Vec<(usize, &str)>; 2] = Default::default();
        for (place, number) in recipients.iter().enumerate() {
            let checked = numbers::check(number);
            if checked.is_ok() {
                let [near, far] = &mut groups;
                let group = if self.service.apart(number) { far } else { near };
                group.push((place, number.as_str()));
            }
            ends.push(checked.err().map(|error| Err(error.by(PROVIDER))));
        }
        let batches = groups.iter().flat_map(|group| group.chunks(self.service.batch()));
        let mut waiting = batches.map(<[_]>::to_vec).collect::<Vec<_>>().into_iter();
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < self.outlet.connections()
                && let Some(batch) = waiting.next()
            {
                running.push(self.batch(ctx, &prepared, batch));
            }
            let Some(sent) = running.next().await else { break };
            for (place, end) in sent {
                if let Some(slot) = ends.get_mut(place) {
                    *slot = Some(end.map_err(|error| error.by(PROVIDER)));
                }
            }
        }
        let each: Vec<Each> = recipients
            .iter()
            .zip(ends)
            .map(|(number, end)| {
                let none = || Err(Error::new(Kind::Internal, "a recipient was left out").by(PROVIDER));
                (Arc::from(number.as_str()), end.unwrap_or_else(none))
            })
            .collect();
        sum_up(PROVIDER, each)
    }

    async fn batch(
        &self,
        ctx: &Context,
        prepared: &S::Prepared,
        batch: Vec<(usize, &str)>,
    ) -> Vec<(usize, Sent)> {
        let numbers: Vec<&str> = batch.iter().map(|(_, number)| *number).collect();
        let sent = self.service.send(&self.outlet, &self.site, ctx, prepared, &numbers).await;
        batch.iter().map(|(place, _)| *place).zip(sent).collect()
    }
}

/// The same end for every number of a request.
pub(super) fn same(numbers: &[&str], end: Sent) -> Vec<Sent> {
    numbers.iter().map(|_| end.clone()).collect()
}

/// The place of each number in a list of statuses, which may be in another order and write numbers otherwise: as they
/// are, or with a country's code in front.
pub(super) fn places(numbers: &[&str], shown: &[&str]) -> Vec<Option<usize>> {
    fn digits(number: &str) -> &str {
        let digits = number.strip_prefix('+').unwrap_or(number);
        digits.strip_prefix("00").unwrap_or(digits)
    }
    let mut free: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, number) in shown.iter().enumerate().rev() {
        free.entry(digits(number)).or_default().push(place);
    }
    let mut take = |number: &str| free.get_mut(number).and_then(Vec::pop);
    numbers
        .iter()
        .map(|number| {
            let digits = digits(number);
            take(digits).or_else(|| take(&format!("86{digits}")))
        })
        .collect()
}

impl<S: Service> Producer for SmsProducer<S> {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    fn capability(&self) -> Capability {
        Capability { message_id: true, ..Capability::default() }
    }

    fn send<'a>(&'a self, ctx: &'a Context, message: Arc<Message>) -> BoxFuture<'a, Result<Receipt>> {
        Box::pin(async move { self.outlet.run(ctx, &message, self.deliver(ctx, &message)).await })
    }

    fn flush<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.outlet.flush(ctx))
    }

    fn status(&self) -> Value {
        let mut status = self.outlet.status();
        if let Some(status) = status.as_object_mut() {
            status.insert("service".into(), json!(S::NAME));
        }
        status
    }

    fn close<'a>(&'a self, ctx: &'a Context) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.outlet.close(ctx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_however_they_are_written() {
        let shown = ["+8613800000001", "+85251234567", "+8613800000000", "13800000000"];
        let numbers = ["13800000000", "13800000000", "+8613800000001", "0085251234567", "999"];
        assert_eq!(places(&numbers, &shown), [Some(3), Some(2), Some(0), Some(1), None]);
    }
}

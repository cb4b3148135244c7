//! Messages of topics: one for each subscription that wants it.

use rand::Rng;

use super::Front;
use super::answer::{Answer, created, not_stored, refuse, refused};
use super::directory::{TOPIC_RETENTION, topic_attributes};
use super::note::{MAX_NOTE, Note};
use super::subscriptions::{MAX_TAG, subscription_attributes};
use crate::broker::depot::store_on_all;
use crate::broker::hub::count;
use crate::broker::log::record::Sort;
use crate::broker::queue::LeaseDraft;
use crate::wire::mns::{Code, DEFAULT_PRIORITY, MAX_BODY, Outgoing, Sent, body_md5};

impl Front {
    pub(super) async fn publish(&self, topic: &str, message: &Outgoing<'_>) -> Answer {
        self.take_in(topic, message).await.unwrap_or_else(|refused| refused)
    }

    async fn take_in(&self, topic: &str, message: &Outgoing<'_>) -> Result<Answer, Answer> {
        let shelf = self.hub.depot.find(Sort::Topic, topic).ok_or_else(|| refused(Code::TopicNotExist))?;
        let most = topic_attributes(&shelf).maximum_message_size.map_or(MAX_BODY, |most| most as usize);
        if message.body.len() > most {
            return Err(refuse(Code::InvalidArgument, "MessageBody is longer than MaximumMessageSize"));
        }
        let tag = message.tag.as_deref();
        if tag.is_some_and(|tag| tag.chars().count() > MAX_TAG) {
            return Err(refuse(Code::InvalidArgument, "MessageTag has up to 16 characters"));
        }
        let id = format!("{:032X}", rand::rng().random::<u128>());
        let mut note = Note::of(message);
        note.id = Some(id.clone());
        let note = note.write();
        if note.len() > MAX_NOTE {
            return Err(refuse(Code::InvalidArgument, "the properties of the message are too long"));
        }
        let draft = LeaseDraft {
            body: message.body.as_bytes(),
            note: &note,
            delay_ms: 0,
            priority: u8::try_from(DEFAULT_PRIORITY).unwrap_or(8),
            retention_ms: u64::from(TOPIC_RETENTION) * 1000,
        };
        let subscriptions: Vec<_> = self
            .hub
            .depot
            .subscriptions(topic)
            .into_iter()
            .filter(|shelf| {
                let filter = subscription_attributes(shelf).filter_tag;
                filter.is_none_or(|filter| tag == Some(&*filter))
            })
            .collect();
        store_on_all(&subscriptions, draft).await.map_err(|why| not_stored(&why, Code::TopicNotExist))?;
        count(&self.hub.counters.accepted, 1);
        let body_md5 = body_md5(message.body.as_bytes());
        Ok(created(Sent { message_id: id, body_md5, ..Sent::default() }.encode()))
    }
}

//! Messages of topics: one for each subscription that wants it.

use rand::Rng;

use super::Front;
use super::answer::{Answer, created, not_stored, refuse, refused};
use super::directory::{TOPIC_RETENTION, topic_attributes};
use super::note::{MAX_NOTE, Note};
use super::subscriptions::{MAX_TAG, subscription_attributes};
use crate::broker::depot::Store;
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
        // All at once: they wait for one commit.
        let drafts = [draft];
        let stores = subscriptions.iter().map(|shelf| shelf.store(&drafts));
        let stored = futures_util::future::join_all(stores).await;
        // One that is gone wants nothing any more; with one that failed nobody knows what others got.
        let mut stored_any = false;
        let mut failed = None;
        for one in stored {
            match one {
                Ok(_) => stored_any = true,
                Err(Store::Gone) => {}
                Err(why) => failed = Some(why),
            }
        }
        match failed {
            Some(why) if stored_any => {
                tracing::error!(topic, ?why, "a message reached some subscriptions alone");
                return Err(refuse(Code::InternalError, "the message reached some subscriptions alone"));
            }
            Some(why) => return Err(not_stored(&why, Code::TopicNotExist)),
            None => {}
        }
        count(&self.hub.counters.accepted, 1);
        let body_md5 = body_md5(message.body.as_bytes());
        Ok(created(Sent { message_id: id, body_md5, ..Sent::default() }.encode()))
    }
}

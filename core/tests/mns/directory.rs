//! What the small MNS answers of queues, topics and subscriptions, beside their messages.

use ceiba_core::wire::mns::*;

use crate::server::{Answer, State, plain, refuse};

pub(crate) fn answer(state: &mut State, operation: &Operation<'_>) -> Answer {
    match operation {
        Operation::CreateQueue { queue, attributes } => {
            let same = state.queues.get(&**queue).map(|(known, _)| known == attributes);
            made(same, Code::QueueAlreadyExist, || {
                state.queues.insert(queue.to_string(), (attributes.clone(), Vec::new()));
            })
        }
        Operation::SetQueue { queue, attributes } => match state.queues.get_mut(&**queue) {
            Some((known, _)) => {
                if attributes.visibility_timeout.is_some() {
                    known.visibility_timeout = attributes.visibility_timeout;
                }
                plain(204, String::new())
            }
            None => refuse(Code::QueueNotExist),
        },
        Operation::GetQueue { queue } => match state.queues.get(&**queue) {
            Some(_) => plain(200, queue_meta(state, queue).encode()),
            None => refuse(Code::QueueNotExist),
        },
        Operation::DeleteQueue { queue } => {
            gone(state.queues.remove(&**queue).is_some(), Code::QueueNotExist)
        }
        Operation::ListQueues(listing) => {
            let names: Vec<String> = state.queues.keys().cloned().collect();
            page(listing, names, |name| queue_meta(state, name))
        }
        Operation::CreateTopic { topic, attributes } => {
            let same = state.topics.get(&**topic).map(|known| known == attributes);
            made(same, Code::TopicAlreadyExist, || {
                state.topics.insert(topic.to_string(), attributes.clone());
            })
        }
        Operation::SetTopic { topic, attributes } => match state.topics.get_mut(&**topic) {
            Some(known) => {
                *known = attributes.clone();
                plain(204, String::new())
            }
            None => refuse(Code::TopicNotExist),
        },
        Operation::GetTopic { topic } => match state.topics.get(&**topic) {
            Some(_) => plain(200, topic_meta(state, topic).encode()),
            None => refuse(Code::TopicNotExist),
        },
        Operation::DeleteTopic { topic } => {
            gone(state.topics.remove(&**topic).is_some(), Code::TopicNotExist)
        }
        Operation::ListTopics(listing) => {
            let names: Vec<String> = state.topics.keys().cloned().collect();
            page(listing, names, |name| topic_meta(state, name))
        }
        Operation::Subscribe { topic, subscription, attributes } => {
            let key = (topic.to_string(), subscription.to_string());
            let same = state.subscriptions.get(&key).map(|known| known == attributes);
            made(same, Code::SubscriptionAlreadyExist, || {
                state.subscriptions.insert(key.clone(), attributes.clone());
            })
        }
        Operation::SetSubscription { topic, subscription, attributes } => {
            match state.subscriptions.get_mut(&(topic.to_string(), subscription.to_string())) {
                Some(known) => {
                    known.notify_strategy = attributes.notify_strategy.clone();
                    plain(204, String::new())
                }
                None => refuse(Code::SubscriptionNotExist),
            }
        }
        Operation::GetSubscription { topic, subscription } => {
            let key = (topic.to_string(), subscription.to_string());
            match state.subscriptions.get(&key) {
                Some(attributes) => plain(200, subscription_meta(&key, attributes).encode()),
                None => refuse(Code::SubscriptionNotExist),
            }
        }
        Operation::Unsubscribe { topic, subscription } => {
            let key = (topic.to_string(), subscription.to_string());
            gone(state.subscriptions.remove(&key).is_some(), Code::SubscriptionNotExist)
        }
        Operation::ListSubscriptions { topic, listing } => {
            let of_topic = |(of, _): &&(String, String)| *of == **topic;
            let names = state.subscriptions.keys().filter(of_topic).map(|(_, name)| name.clone()).collect();
            page(listing, names, |name| {
                let key = (topic.to_string(), name.to_owned());
                subscription_meta(&key, &state.subscriptions[&key])
            })
        }
        Operation::PeekBatch { queue, number } => {
            let Some((_, messages)) = state.queues.get(&**queue) else { return refuse(Code::QueueNotExist) };
            let seen: Vec<Received<'_>> = messages
                .iter()
                .take(*number as usize)
                .map(|message| Received {
                    message_id: message.id.as_str().into(),
                    body: message.body.as_str().into(),
                    body_md5: body_md5(message.body.as_bytes()).into(),
                    priority: DEFAULT_PRIORITY,
                    ..Received::default()
                })
                .collect();
            match seen.is_empty() {
                true => refuse(Code::MessageNotExist),
                false => plain(200, encode_received_batch(&seen)),
            }
        }
        _ => refuse(Code::InvalidRequestUrl),
    }
}

fn made(same: Option<bool>, other: Code, make: impl FnOnce()) -> Answer {
    match same {
        None => {
            make();
            plain(201, String::new())
        }
        Some(true) => plain(204, String::new()),
        Some(false) => refuse(other),
    }
}

fn gone(was: bool, code: Code) -> Answer {
    if was { plain(204, String::new()) } else { refuse(code) }
}

fn queue_meta(state: &State, name: &str) -> QueueMeta {
    let (attributes, messages) = &state.queues[name];
    QueueMeta {
        name: name.into(),
        attributes: attributes.clone(),
        active_messages: messages.len() as u64,
        create_time: 1,
        ..QueueMeta::default()
    }
}

fn topic_meta(state: &State, name: &str) -> TopicMeta {
    TopicMeta { name: name.into(), attributes: state.topics[name].clone(), ..TopicMeta::default() }
}

fn subscription_meta(
    (topic, name): &(String, String),
    attributes: &SubscriptionAttributes,
) -> SubscriptionMeta {
    SubscriptionMeta {
        name: name.clone(),
        topic: topic.clone(),
        attributes: attributes.clone(),
        ..SubscriptionMeta::default()
    }
}

fn page<M: Named>(listing: &Listing<'_>, names: Vec<String>, meta: impl Fn(&str) -> M) -> Answer {
    let prefix = listing.prefix.as_deref().unwrap_or("");
    let after = listing.marker.as_deref().unwrap_or("");
    let mut names: Vec<String> =
        names.into_iter().filter(|name| name.starts_with(prefix) && name.as_str() > after).collect();
    names.sort();
    let number = listing.number.unwrap_or(1000) as usize;
    let next = (names.len() > number).then(|| names[number - 1].clone());
    names.truncate(number);
    let listed: Vec<Listed<M>> = names
        .iter()
        .map(|name| Listed {
            url: format!("http://1.mns.example/x/{name}"),
            meta: listing.with_meta.then(|| meta(name)),
        })
        .collect();
    plain(200, encode_list(&listed, next.as_deref()))
}

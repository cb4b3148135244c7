//! What is written is read again, whatever it is made of; and no bytes make a reader fail otherwise than by an error.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngCore, SeedableRng};

use super::*;

struct Made(SmallRng);

impl Made {
    fn text(&mut self) -> String {
        const SIGNS: [char; 20] = [
            'a', 'Z', '0', '<', '>', '&', '"', '\'', '\t', '\n', '\r', ' ', ']', 'é', '你', '\u{fffd}', '😀',
            '=', ';', '#',
        ];
        let length = self.0.random_range(0..12);
        (0..length).map(|_| *SIGNS.choose(&mut self.0).unwrap()).collect()
    }

    fn filled(&mut self) -> String {
        format!("x{}", self.text())
    }

    fn name(&mut self) -> String {
        const SIGNS: &[u8] = b"abcXYZ019-_";
        let length = self.0.random_range(1..9);
        (0..length).map(|_| char::from(*SIGNS.choose(&mut self.0).unwrap())).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Made) -> T) -> Option<T> {
        self.0.random_bool(0.5).then(|| make(self))
    }

    fn number(&mut self) -> u32 {
        self.0.next_u32() >> self.0.random_range(0..32)
    }

    fn many<T>(&mut self, least: usize, most: usize, make: impl Fn(&mut Made) -> T) -> Vec<T> {
        let number = self.0.random_range(least..=most);
        (0..number).map(|_| make(self)).collect()
    }

    fn property(&mut self) -> Property<'static> {
        let kind = *["STRING", "NUMBER", "BOOLEAN", "BINARY"].choose(&mut self.0).unwrap();
        Property { name: self.filled().into(), value: self.text().into(), kind: kind.into() }
    }

    fn outgoing(&mut self) -> Outgoing<'static> {
        let first = self.0.random_range(0..=ATTRIBUTES.len());
        Outgoing {
            body: self.text().into(),
            delay_seconds: self.maybe(Made::number),
            priority: self.maybe(Made::number),
            tag: self.maybe(|made| made.filled().into()),
            group: self.maybe(|made| made.filled().into()),
            attributes: ATTRIBUTES[first..].iter().map(|name| (*name, self.text().into())).collect(),
            properties: self.many(0, 3, Made::property),
            system_properties: self.many(0, 3, Made::property),
        }
    }

    fn received(&mut self) -> Received<'static> {
        Received {
            message_id: self.filled().into(),
            receipt_handle: self.maybe(|made| made.filled().into()),
            body_md5: self.text().into(),
            body: self.text().into(),
            enqueue_time: self.0.next_u64(),
            next_visible_time: self.maybe(|made| made.0.next_u64()),
            first_dequeue_time: self.0.next_u64(),
            dequeue_count: self.number(),
            priority: self.number(),
            group: self.maybe(|made| made.filled().into()),
            properties: self.many(0, 2, Made::property),
            system_properties: self.many(0, 2, Made::property),
        }
    }

    fn queue(&mut self) -> QueueAttributes {
        QueueAttributes {
            delay_seconds: self.maybe(Made::number),
            maximum_message_size: self.maybe(Made::number),
            message_retention_period: self.maybe(Made::number),
            visibility_timeout: self.maybe(Made::number),
            polling_wait_seconds: self.maybe(Made::number),
            logging_enabled: self.maybe(|made| made.0.random_bool(0.5)),
        }
    }

    fn topic(&mut self) -> TopicAttributes {
        TopicAttributes {
            maximum_message_size: self.maybe(Made::number),
            logging_enabled: self.maybe(|made| made.0.random_bool(0.5)),
        }
    }

    fn subscription(&mut self) -> SubscriptionAttributes {
        SubscriptionAttributes {
            endpoint: self.maybe(Made::filled),
            filter_tag: self.maybe(Made::filled),
            notify_strategy: self.maybe(Made::filled),
            notify_content_format: self.maybe(Made::filled),
        }
    }

    fn listing(&mut self) -> Listing<'static> {
        Listing {
            prefix: self.maybe(|made| made.name().into()),
            marker: self.maybe(|made| made.name().into()),
            number: self.maybe(Made::number),
            with_meta: self.0.random_bool(0.5),
        }
    }

    fn operation(&mut self) -> Operation<'static> {
        let (queue, topic, subscription) = (self.name().into(), self.name().into(), self.name().into());
        let (number, wait) = (self.number(), self.maybe(Made::number));
        match self.0.random_range(0..28) {
            0 => Operation::Send { queue, message: self.outgoing() },
            1 => Operation::SendBatch { queue, messages: self.many(1, MAX_BATCH, Made::outgoing) },
            2 => Operation::Receive { queue, wait },
            3 => Operation::ReceiveBatch { queue, number, wait },
            4 => Operation::Peek { queue },
            5 => Operation::PeekBatch { queue, number },
            6 => Operation::Delete { queue, handle: self.filled().into() },
            7 => {
                let handles = self.many(1, MAX_BATCH, |made| made.filled().into());
                Operation::DeleteBatch { queue, handles }
            }
            8 => Operation::ChangeVisibility { queue, handle: self.filled().into(), timeout: number },
            9 => Operation::CreateQueue { queue, attributes: self.queue() },
            10 => Operation::SetQueue { queue, attributes: self.queue() },
            11 => Operation::GetQueue { queue },
            12 => Operation::DeleteQueue { queue },
            13 => Operation::ListQueues(self.listing()),
            14 => Operation::Publish { topic, message: self.outgoing() },
            15 => Operation::CreateTopic { topic, attributes: self.topic() },
            16 => Operation::SetTopic { topic, attributes: self.topic() },
            17 => Operation::GetTopic { topic },
            18 => Operation::DeleteTopic { topic },
            19 => Operation::ListTopics(self.listing()),
            20 => Operation::Subscribe { topic, subscription, attributes: self.subscription() },
            21 => Operation::SetSubscription { topic, subscription, attributes: self.subscription() },
            22 => Operation::GetSubscription { topic, subscription },
            23 => Operation::Unsubscribe { topic, subscription },
            24 => Operation::ListSubscriptions { topic, listing: self.listing() },
            25 => Operation::GetAccount,
            26 => Operation::SetAccount { logging_bucket: self.maybe(|made| made.filled().into()) },
            _ => Operation::OpenService,
        }
    }

    fn sent(&mut self) -> Sent {
        Sent {
            message_id: self.filled(),
            body_md5: self.text(),
            receipt_handle: self.maybe(Made::filled),
            group: self.maybe(Made::filled),
        }
    }
}

fn again(request: &Request) -> Result<Operation<'_>, NotDecoded> {
    let header = |name: &str| {
        let found = request.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    };
    Operation::decode(request.method, &request.resource, header, request.body.as_bytes())
}

fn rounds() -> impl Iterator<Item = Made> {
    (0..500).map(|seed| Made(SmallRng::seed_from_u64(seed)))
}

#[test]
fn requests() {
    for mut made in rounds() {
        let operation = made.operation();
        let request = operation.encode();
        assert_eq!(again(&request).unwrap(), operation, "{request:?}");
    }
}

#[test]
fn answers() {
    for mut made in rounds() {
        let sent = made.sent();
        assert_eq!(Sent::decode(sent.encode().as_bytes()).unwrap(), sent);
        let entries = made.many(0, MAX_BATCH, |made| match made.0.random_bool(0.5) {
            true => Entry::Sent(made.sent()),
            false => Entry::Refused { code: made.filled(), text: made.text() },
        });
        assert_eq!(decode_batch(encode_batch(&entries).as_bytes()).unwrap(), entries);
        let received = made.received();
        assert_eq!(decode_received(encode_received(&received).as_bytes()).unwrap(), received);
        let several = made.many(0, MAX_BATCH, Made::received);
        assert_eq!(decode_received_batch(encode_received_batch(&several).as_bytes()).unwrap(), several);
        let visibility = Visibility { receipt_handle: made.filled(), next_visible_time: made.0.next_u64() };
        assert_eq!(Visibility::decode(visibility.encode().as_bytes()).unwrap(), visibility);
        let refusal =
            Refusal { code: made.filled(), text: made.text(), request_id: made.text(), host_id: made.text() };
        assert_eq!(Refusal::decode(refusal.encode().as_bytes()).unwrap(), refusal);
        let failures = made.many(0, MAX_BATCH, |made| Failure {
            code: made.filled(),
            text: made.text(),
            receipt_handle: made.filled(),
        });
        assert_eq!(decode_failures(encode_failures(&failures).as_bytes()).unwrap(), failures);
    }
}

#[test]
fn what_is_told_of_queues_topics_and_subscriptions() {
    fn told<M: Named + Clone + PartialEq + std::fmt::Debug>(made: &mut Made, one: M) {
        assert_eq!(M::decode(one.encode().as_bytes()).unwrap(), one);
        let with_meta = made.0.random_bool(0.5);
        let listed =
            made.many(0, 3, |made| Listed { url: made.filled(), meta: with_meta.then(|| one.clone()) });
        let next = made.maybe(Made::filled);
        let document = encode_list(&listed, next.as_deref());
        assert_eq!(decode_list::<M>(document.as_bytes(), with_meta).unwrap(), (listed, next));
    }
    for mut made in rounds() {
        let (create_time, last_modify_time) = (made.0.next_u64(), made.0.next_u64());
        let queue = QueueMeta {
            name: made.filled(),
            attributes: made.queue(),
            active_messages: made.0.next_u64(),
            inactive_messages: made.0.next_u64(),
            delay_messages: made.0.next_u64(),
            create_time,
            last_modify_time,
        };
        told(&mut made, queue);
        let topic = TopicMeta {
            name: made.filled(),
            attributes: made.topic(),
            message_retention_period: made.0.next_u64(),
            message_count: made.0.next_u64(),
            create_time,
            last_modify_time,
        };
        told(&mut made, topic);
        let subscription = SubscriptionMeta {
            name: made.filled(),
            topic_owner: made.text(),
            topic: made.text(),
            subscriber: made.text(),
            attributes: made.subscription(),
            create_time,
            last_modify_time,
        };
        told(&mut made, subscription);
    }
}

fn read_all(bytes: &[u8]) {
    let _ = Sent::decode(bytes);
    let _ = decode_batch(bytes);
    let _ = decode_received(bytes);
    let _ = (decode_received_batch(bytes), decode_each_received(bytes));
    let _ = Visibility::decode(bytes);
    let _ = Refusal::decode(bytes);
    let _ = decode_failures(bytes);
    let _ = QueueMeta::decode(bytes);
    let _ = decode_list::<TopicMeta>(bytes, true);
    let _ = decode_list::<SubscriptionMeta>(bytes, false);
}

#[test]
fn damage_is_an_error_at_most() {
    for mut made in rounds() {
        let request = made.operation().encode();
        let mut body = match made.0.random_bool(0.5) {
            true => request.body.clone().into_bytes(),
            false => encode_received_batch(&made.many(0, 3, Made::received)).into_bytes(),
        };
        for _ in 0..made.0.random_range(0..6) {
            let length = body.len();
            match made.0.random_range(0..3) {
                0 if length > 0 => body[made.0.random_range(0..length)] = made.0.random(),
                1 => body.truncate(made.0.random_range(0..=length)),
                _ => body
                    .insert(made.0.random_range(0..=length), *b"<>&;/x\0\xff!".choose(&mut made.0).unwrap()),
            }
        }
        read_all(&body);
        let method = *["GET", "PUT", "POST", "DELETE", "HEAD"].choose(&mut made.0).unwrap();
        let cut = made.0.random_range(0..=request.resource.len());
        let target = request.resource.get(..cut).unwrap_or_default();
        let odd = made.text();
        let _ = Operation::decode(method, target, |_| Some(odd.as_str()), &body);
        let _ = Operation::decode(method, &odd, |_| None, &body);
    }
}

#[test]
fn requests_that_are_none_have_their_code() {
    let none = |_: &str| None;
    let long = format!("/queues/{}", "q".repeat(257));
    let many = format!("<Messages>{}</Messages>", "<Message><MessageBody/></Message>".repeat(17));
    for (method, target, body, code) in [
        ("GET", "/", "", Code::InvalidRequestUrl),
        ("GET", "/queues/q/x", "", Code::InvalidRequestUrl),
        ("HEAD", "/queues/q", "", Code::InvalidRequestUrl),
        ("POST", "/queues/q", "", Code::InvalidRequestUrl),
        ("PUT", "/queues/a%20b", "", Code::InvalidQueueName),
        ("PUT", "/queues/%ff", "", Code::InvalidQueueName),
        ("PUT", &long, "", Code::QueueNameLengthError),
        ("PUT", "/topics/a.b", "", Code::TopicNameInvalid),
        ("PUT", "/topics/t/subscriptions/a.b", "", Code::SubscriptionNameInvalid),
        ("PUT", "/queues/q", "<Topic/>", Code::MalformedXml),
        ("PUT", "/queues/q", "<Queue><DelaySeconds>x</DelaySeconds></Queue>", Code::MalformedXml),
        ("POST", "/queues/q/messages", "", Code::MalformedXml),
        ("POST", "/queues/q/messages", "<Message/>", Code::MalformedXml),
        ("POST", "/queues/q/messages", "<Messages/>", Code::InvalidArgument),
        ("POST", "/queues/q/messages", &many, Code::InvalidArgument),
        ("DELETE", "/queues/q/messages", "", Code::MissingReceiptHandle),
        ("PUT", "/queues/q/messages", "", Code::MissingReceiptHandle),
        ("PUT", "/queues/q/messages?receiptHandle=a", "", Code::MissingVisibilityTimeout),
        ("PUT", "/queues/q/messages?ReceiptHandle=a&VisibilityTimeout=x", "", Code::InvalidQueryString),
        ("GET", "/queues/q/messages?numOfMessages=-1", "", Code::InvalidQueryString),
    ] {
        let error = Operation::decode(method, target, none, body.as_bytes()).unwrap_err();
        assert_eq!(error.code, code, "{method} {target} {body}");
    }
    // As two of the official clients write it.
    let read =
        Operation::decode("PUT", "/queues/q/messages?receiptHandle=a+b==&visibilityTimeout=3", none, b"");
    let meant = Operation::ChangeVisibility { queue: "q".into(), handle: "a+b==".into(), timeout: 3 };
    assert_eq!(read.unwrap(), meant);
}

//! Every request that there is: how it is written, and how it is read again.

use std::borrow::Cow;

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use super::refusal::NotDecoded;
use super::xml::{self, Malformed, Node, Writer};
use super::{
    Code, MAX_BATCH, Outgoing, QueueAttributes, SubscriptionAttributes, TopicAttributes, is_name, root,
};
use crate::wire::path::RESERVED;

/// A request that is not signed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path with its query: what is signed.
    pub resource: String,
    /// Headers beside those that every request has, the names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty where there is none.
    pub body: String,
}

/// What of a list is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing<'a> {
    /// What names begin with.
    pub prefix: Option<Cow<'a, str>>,
    /// Where the answer before this one ended.
    pub marker: Option<Cow<'a, str>>,
    /// How many names the answer has at most, up to 1000.
    pub number: Option<u32>,
    /// Whether more than names is told.
    pub with_meta: bool,
}

type Text<'a> = Cow<'a, str>;

/// A request by what it asks for. Names are those of queues (`Q`), topics (`T`) and subscriptions (`S`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what their names say")]
pub enum Operation<'a> {
    /// `POST /queues/Q/messages` with one message.
    Send { queue: Text<'a>, message: Outgoing<'a> },
    /// The same with up to sixteen.
    SendBatch { queue: Text<'a>, messages: Vec<Outgoing<'a>> },
    /// `GET /queues/Q/messages`; without `wait` the queue's own time, in seconds.
    Receive { queue: Text<'a>, wait: Option<u32> },
    /// The same for up to `number`.
    ReceiveBatch { queue: Text<'a>, number: u32, wait: Option<u32> },
    /// `GET /queues/Q/messages?peekonly=true`.
    Peek { queue: Text<'a> },
    /// The same for up to `number`.
    PeekBatch { queue: Text<'a>, number: u32 },
    /// `DELETE /queues/Q/messages?ReceiptHandle=`.
    Delete { queue: Text<'a>, handle: Text<'a> },
    /// `DELETE /queues/Q/messages` with up to sixteen receipt handles.
    DeleteBatch { queue: Text<'a>, handles: Vec<Text<'a>> },
    /// `PUT /queues/Q/messages?ReceiptHandle=&VisibilityTimeout=`, in seconds.
    ChangeVisibility { queue: Text<'a>, handle: Text<'a>, timeout: u32 },
    /// `PUT /queues/Q`.
    CreateQueue { queue: Text<'a>, attributes: QueueAttributes },
    /// `PUT /queues/Q?metaoverride=true`.
    SetQueue { queue: Text<'a>, attributes: QueueAttributes },
    /// `GET /queues/Q`.
    GetQueue { queue: Text<'a> },
    /// `DELETE /queues/Q`.
    DeleteQueue { queue: Text<'a> },
    /// `GET /queues`.
    ListQueues(Listing<'a>),
    /// `POST /topics/T/messages`.
    Publish { topic: Text<'a>, message: Outgoing<'a> },
    /// `PUT /topics/T`.
    CreateTopic { topic: Text<'a>, attributes: TopicAttributes },
    /// `PUT /topics/T?metaoverride=true`.
    SetTopic { topic: Text<'a>, attributes: TopicAttributes },
    /// `GET /topics/T`.
    GetTopic { topic: Text<'a> },
    /// `DELETE /topics/T`.
    DeleteTopic { topic: Text<'a> },
    /// `GET /topics`.
    ListTopics(Listing<'a>),
    /// `PUT /topics/T/subscriptions/S`.
    Subscribe { topic: Text<'a>, subscription: Text<'a>, attributes: SubscriptionAttributes },
    /// `PUT /topics/T/subscriptions/S?metaoverride=true`.
    SetSubscription { topic: Text<'a>, subscription: Text<'a>, attributes: SubscriptionAttributes },
    /// `GET /topics/T/subscriptions/S`.
    GetSubscription { topic: Text<'a>, subscription: Text<'a> },
    /// `DELETE /topics/T/subscriptions/S`.
    Unsubscribe { topic: Text<'a>, subscription: Text<'a> },
    /// `GET /topics/T/subscriptions`.
    ListSubscriptions { topic: Text<'a>, listing: Listing<'a> },
    /// `GET /?accountmeta=true`.
    GetAccount,
    /// `PUT /?accountmeta=true`: where logs are kept.
    SetAccount { logging_bucket: Option<Text<'a>> },
    /// `POST /commonbuy/openservice`.
    OpenService,
}

fn request(method: &'static str, resource: String) -> Request {
    Request { method, resource, headers: Vec::new(), body: String::new() }
}

fn with_body(
    method: &'static str,
    resource: String,
    root: &str,
    room: usize,
    fill: impl FnOnce(&mut Writer),
) -> Request {
    let mut body = Writer::request(room);
    body.open(root);
    fill(&mut body);
    Request { body: body.finish(root), ..request(method, resource) }
}

fn quoted(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, RESERVED)
}

impl Listing<'_> {
    fn of(&self, resource: String) -> Request {
        let mut request = request("GET", resource);
        let headers = &mut request.headers;
        if let Some(marker) = &self.marker {
            headers.push(("x-mns-marker", marker.clone().into_owned()));
        }
        if let Some(number) = self.number {
            headers.push(("x-mns-ret-number", number.to_string()));
        }
        if let Some(prefix) = &self.prefix {
            headers.push(("x-mns-prefix", prefix.clone().into_owned()));
        }
        if self.with_meta {
            headers.push(("x-mns-with-meta", "true".to_owned()));
        }
        request
    }

    fn read<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Result<Listing<'a>, NotDecoded> {
        let text = |name: &str| header(name).filter(|text| !text.is_empty());
        let number = text("x-mns-ret-number").map(str::parse).transpose();
        let wrong = |_| NotDecoded::new(Code::InvalidArgument, "x-mns-ret-number is no number");
        Ok(Listing {
            prefix: text("x-mns-prefix").map(Cow::Borrowed),
            marker: text("x-mns-marker").map(Cow::Borrowed),
            number: number.map_err(wrong)?,
            with_meta: text("x-mns-with-meta").is_some_and(|text| text.eq_ignore_ascii_case("true")),
        })
    }
}

impl<'a> Operation<'a> {
    /// The request.
    pub fn encode(&self) -> Request {
        use std::fmt::Write as _;
        let queue = |name: &str| format!("/queues/{}", quoted(name));
        let messages = |name: &str| format!("/queues/{}/messages", quoted(name));
        let topic = |name: &str| format!("/topics/{}", quoted(name));
        let subscription =
            |topic: &str, name: &str| format!("/topics/{}/subscriptions/{}", quoted(topic), quoted(name));
        let waiting = |mut resource: String, mark: char, wait: Option<u32>| {
            if let Some(wait) = wait {
                let _ = write!(resource, "{mark}waitseconds={wait}");
            }
            request("GET", resource)
        };
        let message = |resource: String, message: &Outgoing<'_>| {
            let mut body = Writer::request(message.room());
            message.write(&mut body);
            Request { body: body.into_text(), ..request("POST", resource) }
        };
        match self {
            Operation::Send { queue, message: one } => message(messages(queue), one),
            Operation::SendBatch { queue, messages: all } => {
                let room = 32 + all.iter().map(Outgoing::room).sum::<usize>();
                with_body("POST", messages(queue), "Messages", room, |body| {
                    for message in all {
                        message.write(body);
                    }
                })
            }
            Operation::Receive { queue, wait } => waiting(messages(queue), '?', *wait),
            Operation::ReceiveBatch { queue, number, wait } => {
                waiting(format!("{}?numOfMessages={number}", messages(queue)), '&', *wait)
            }
            Operation::Peek { queue } => request("GET", format!("{}?peekonly=true", messages(queue))),
            Operation::PeekBatch { queue, number } => {
                request("GET", format!("{}?numOfMessages={number}&peekonly=true", messages(queue)))
            }
            Operation::Delete { queue, handle } => {
                request("DELETE", format!("{}?ReceiptHandle={}", messages(queue), quoted(handle)))
            }
            Operation::DeleteBatch { queue, handles } => {
                with_body("DELETE", messages(queue), "ReceiptHandles", 40 + handles.len() * 100, |body| {
                    for handle in handles {
                        body.leaf("ReceiptHandle", handle);
                    }
                })
            }
            Operation::ChangeVisibility { queue, handle, timeout } => {
                let resource = messages(queue);
                let handle = quoted(handle);
                request("PUT", format!("{resource}?ReceiptHandle={handle}&VisibilityTimeout={timeout}"))
            }
            Operation::CreateQueue { queue: name, attributes } => {
                with_body("PUT", queue(name), "Queue", 300, |body| attributes.write(body, false))
            }
            Operation::SetQueue { queue: name, attributes } => {
                let resource = format!("{}?metaoverride=true", queue(name));
                with_body("PUT", resource, "Queue", 300, |body| attributes.write(body, false))
            }
            Operation::GetQueue { queue: name } => request("GET", queue(name)),
            Operation::DeleteQueue { queue: name } => request("DELETE", queue(name)),
            Operation::ListQueues(listing) => listing.of("/queues".to_owned()),
            Operation::Publish { topic: name, message: one } => {
                message(format!("{}/messages", topic(name)), one)
            }
            Operation::CreateTopic { topic: name, attributes } => {
                with_body("PUT", topic(name), "Topic", 200, |body| attributes.write(body, false))
            }
            Operation::SetTopic { topic: name, attributes } => {
                let resource = format!("{}?metaoverride=true", topic(name));
                with_body("PUT", resource, "Topic", 200, |body| attributes.write(body, false))
            }
            Operation::GetTopic { topic: name } => request("GET", topic(name)),
            Operation::DeleteTopic { topic: name } => request("DELETE", topic(name)),
            Operation::ListTopics(listing) => listing.of("/topics".to_owned()),
            Operation::Subscribe { topic, subscription: name, attributes } => {
                let resource = subscription(topic, name);
                with_body("PUT", resource, "Subscription", 300, |body| attributes.write(body))
            }
            Operation::SetSubscription { topic, subscription: name, attributes } => {
                let resource = format!("{}?metaoverride=true", subscription(topic, name));
                with_body("PUT", resource, "Subscription", 300, |body| attributes.write(body))
            }
            Operation::GetSubscription { topic, subscription: name } => {
                request("GET", subscription(topic, name))
            }
            Operation::Unsubscribe { topic, subscription: name } => {
                request("DELETE", subscription(topic, name))
            }
            Operation::ListSubscriptions { topic: name, listing } => {
                listing.of(format!("{}/subscriptions", topic(name)))
            }
            Operation::GetAccount => request("GET", "/?accountmeta=true".to_owned()),
            Operation::SetAccount { logging_bucket } => {
                with_body("PUT", "/?accountmeta=true".to_owned(), "Account", 100, |body| {
                    body.some("LoggingBucket", logging_bucket.as_deref());
                })
            }
            Operation::OpenService => request("POST", "/commonbuy/openservice".to_owned()),
        }
    }

    /// Reads a request: its method, its path with its query, its headers by their names in lower case, and its body.
    /// Numbers are not checked against the limits: each has its own code and words.
    ///
    /// # Errors
    /// What to refuse it with.
    pub fn decode(
        method: &str,
        target: &'a str,
        header: impl Fn(&str) -> Option<&'a str>,
        body: &'a [u8],
    ) -> Result<Operation<'a>, NotDecoded> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query(query);
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let nowhere = || NotDecoded::new(Code::InvalidRequestUrl, "no such method is at this address");
        let changed = query.is_true("metaoverride");
        Ok(match (method, parts.as_slice()) {
            ("GET", ["queues"]) => Operation::ListQueues(Listing::read(header)?),
            ("GET", ["topics"]) => Operation::ListTopics(Listing::read(header)?),
            (_, ["queues", name]) => {
                let queue = queue_name(name)?;
                match method {
                    "PUT" => {
                        let attributes = attributes(body, "Queue", |node| QueueAttributes::read(&node))?;
                        match changed {
                            true => Operation::SetQueue { queue, attributes },
                            false => Operation::CreateQueue { queue, attributes },
                        }
                    }
                    "GET" => Operation::GetQueue { queue },
                    "DELETE" => Operation::DeleteQueue { queue },
                    _ => return Err(nowhere()),
                }
            }
            (_, ["queues", name, "messages"]) => of_messages(method, queue_name(name)?, query, body)?,
            (_, ["topics", name]) => {
                let topic = topic_name(name)?;
                match method {
                    "PUT" => {
                        let attributes = attributes(body, "Topic", |node| TopicAttributes::read(&node))?;
                        match changed {
                            true => Operation::SetTopic { topic, attributes },
                            false => Operation::CreateTopic { topic, attributes },
                        }
                    }
                    "GET" => Operation::GetTopic { topic },
                    "DELETE" => Operation::DeleteTopic { topic },
                    _ => return Err(nowhere()),
                }
            }
            ("POST", ["topics", name, "messages"]) => {
                let message = Outgoing::read(root(body, "Message")?)?;
                Operation::Publish { topic: topic_name(name)?, message }
            }
            ("GET", ["topics", name, "subscriptions"]) => {
                Operation::ListSubscriptions { topic: topic_name(name)?, listing: Listing::read(header)? }
            }
            (_, ["topics", topic, "subscriptions", name]) => {
                let (topic, subscription) = (topic_name(topic)?, subscription_name(name)?);
                match method {
                    "PUT" => {
                        let attributes = attributes(body, "Subscription", |mut node| {
                            Ok(SubscriptionAttributes::read(&mut node))
                        })?;
                        match changed {
                            true => Operation::SetSubscription { topic, subscription, attributes },
                            false => Operation::Subscribe { topic, subscription, attributes },
                        }
                    }
                    "GET" => Operation::GetSubscription { topic, subscription },
                    "DELETE" => Operation::Unsubscribe { topic, subscription },
                    _ => return Err(nowhere()),
                }
            }
            ("GET", [""]) if query.is_true("accountmeta") => Operation::GetAccount,
            ("PUT", [""]) if query.is_true("accountmeta") => {
                let bucket = |mut node: Node<'a>| Ok(node.take_filled("LoggingBucket"));
                Operation::SetAccount { logging_bucket: attributes(body, "Account", bucket)? }
            }
            ("POST", ["commonbuy", "openservice"]) => Operation::OpenService,
            _ => return Err(nowhere()),
        })
    }
}

fn of_messages<'a>(
    method: &str,
    queue: Text<'a>,
    query: Query<'a>,
    body: &'a [u8],
) -> Result<Operation<'a>, NotDecoded> {
    Ok(match method {
        "POST" => {
            let root = xml::read(body)?;
            match root.name {
                "Message" => Operation::Send { queue, message: Outgoing::read(root)? },
                "Messages" => {
                    let each = root.children.into_iter().filter(|child| child.name == "Message");
                    let messages: Vec<_> = each.map(Outgoing::read).collect::<Result<_, _>>()?;
                    few(messages.len())?;
                    Operation::SendBatch { queue, messages }
                }
                _ => return Err(Malformed("the root is another element").into()),
            }
        }
        "GET" => match (query.number("numOfMessages")?, query.is_true("peekonly")) {
            (Some(number), true) => Operation::PeekBatch { queue, number },
            (None, true) => Operation::Peek { queue },
            (Some(number), false) => {
                Operation::ReceiveBatch { queue, number, wait: query.number("waitseconds")? }
            }
            (None, false) => Operation::Receive { queue, wait: query.number("waitseconds")? },
        },
        "DELETE" => match query.get("ReceiptHandle")? {
            Some(handle) => Operation::Delete { queue, handle },
            None if body.is_empty() => {
                return Err(NotDecoded::new(Code::MissingReceiptHandle, "ReceiptHandle is required"));
            }
            None => {
                let root = root(body, "ReceiptHandles")?;
                let each = root.children.into_iter().filter(|child| child.name == "ReceiptHandle");
                let handles: Vec<_> = each.map(|child| child.text).collect();
                few(handles.len())?;
                Operation::DeleteBatch { queue, handles }
            }
        },
        "PUT" => {
            let no_handle = NotDecoded::new(Code::MissingReceiptHandle, "ReceiptHandle is required");
            let no_time = NotDecoded::new(Code::MissingVisibilityTimeout, "VisibilityTimeout is required");
            let handle = query.get("ReceiptHandle")?.ok_or(no_handle)?;
            let timeout = query.number("VisibilityTimeout")?.ok_or(no_time)?;
            Operation::ChangeVisibility { queue, handle, timeout }
        }
        _ => return Err(NotDecoded::new(Code::InvalidRequestUrl, "no such method is at this address")),
    })
}

fn few(number: usize) -> Result<(), NotDecoded> {
    if (1..=MAX_BATCH).contains(&number) {
        return Ok(());
    }
    Err(NotDecoded::new(Code::InvalidArgument, "a batch is of 1 to 16 messages"))
}

// A body may be left out where all attributes may.
fn attributes<'a, T>(
    body: &'a [u8],
    name: &str,
    read: impl FnOnce(Node<'a>) -> Result<T, Malformed>,
) -> Result<T, NotDecoded> {
    let node = match body {
        [] => Node::default(),
        body => root(body, name)?,
    };
    Ok(read(node)?)
}

fn name(text: &str, length: Code, invalid: Code) -> Result<Text<'_>, NotDecoded> {
    let name = decoded(text).ok_or(NotDecoded::new(invalid, "the name is not UTF-8"))?;
    if is_name(&name) {
        return Ok(name);
    }
    if name.is_empty() || name.chars().count() > super::MAX_NAME {
        return Err(NotDecoded::new(length, "a name has from 1 to 256 characters"));
    }
    Err(NotDecoded::new(invalid, "a name has letters, digits, - and _ alone"))
}

fn queue_name(text: &str) -> Result<Text<'_>, NotDecoded> {
    name(text, Code::QueueNameLengthError, Code::InvalidQueueName)
}

fn topic_name(text: &str) -> Result<Text<'_>, NotDecoded> {
    name(text, Code::TopicNameLengthError, Code::TopicNameInvalid)
}

fn subscription_name(text: &str) -> Result<Text<'_>, NotDecoded> {
    name(text, Code::SubscriptionNameLengthError, Code::SubscriptionNameInvalid)
}

fn decoded(text: &str) -> Option<Text<'_>> {
    percent_decode_str(text).decode_utf8().ok()
}

// Names of its values are not told apart by capitals: the official clients differ in them.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    fn get(self, name: &str) -> Result<Option<Text<'a>>, NotDecoded> {
        let wrong = NotDecoded::new(Code::InvalidQueryString, "the query is not UTF-8");
        let mut pairs = self.0.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
        // A `+` is one: clients send receipt handles with it as it is.
        let value = found.map(|(_, value)| decoded(value).ok_or(wrong)).transpose()?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    fn number(self, name: &str) -> Result<Option<u32>, NotDecoded> {
        let wrong = NotDecoded::new(Code::InvalidQueryString, "a value of the query is no number");
        self.get(name)?.map(|text| text.parse().map_err(|_| wrong)).transpose()
    }

    fn is_true(self, name: &str) -> bool {
        matches!(self.get(name), Ok(Some(text)) if text.eq_ignore_ascii_case("true"))
    }
}

//! A small MNS on loopback: queues and topics in memory, read by the wire's other side, with faults on demand.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use ceiba_core::wire::mns::*;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::http::{Request, gone, read};

/// What is done with a request in place of what it asks for.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// This refusal.
    Refuse(&'static str, u16),
    /// This answer.
    Answer(u16, String),
    /// These bytes in place of an answer, then the end.
    Raw(&'static str),
    /// It is done, and the connection ends before its answer.
    LostAfter,
    /// The connection ends once the head was read.
    LostBefore,
    /// It is done, and nothing is said.
    Silent,
    /// It is done, and told with another body's digest.
    WrongDigest,
    /// It is done this much later.
    Slow(Duration),
    /// It is done, and told this much later.
    ToldLate(Duration),
    /// `TimeExpired`, once as many requests as that have come.
    LateTogether(Arc<tokio::sync::Barrier>),
}

/// Which requests a fault is for.
pub(crate) type Which = fn(&Operation<'_>) -> bool;

pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) body: String,
    group: Option<String>,
    priority: u32,
    properties: Vec<(String, String)>,
    enqueued: u64,
    visible: Instant,
    handle: Option<String>,
    count: u32,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) queues: BTreeMap<String, (QueueAttributes, Vec<Stored>)>,
    pub(crate) topics: BTreeMap<String, TopicAttributes>,
    pub(crate) subscriptions: BTreeMap<(String, String), SubscriptionAttributes>,
    published: Vec<String>,
    faults: VecDeque<(Which, Fault)>,
    next: u64,
    log: Vec<String>,
    bodies: Vec<String>,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    keys: Mutex<HashMap<String, (String, Option<String>)>>,
    skew_ms: AtomicI64,
    pub(crate) least_visibility: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    arrived: tokio::sync::Notify,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start() -> Server {
        Server::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn on(listener: TcpListener) -> Server {
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            keys: Mutex::new(HashMap::from([("id".to_owned(), ("secret".to_owned(), None))])),
            skew_ms: AtomicI64::new(0),
            least_visibility: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            arrived: tokio::sync::Notify::new(),
        });
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(serve(stream, shared.clone()));
                }
            }
        });
        let server = Server { port, shared, task };
        server.queue("q", 30);
        server.shared.state.lock().topics.insert("t".into(), TopicAttributes::default());
        server
    }

    /// Makes a queue whose messages are hidden for so many seconds.
    pub(crate) fn queue(&self, name: &str, visibility: u32) {
        let attributes =
            QueueAttributes { visibility_timeout: Some(visibility), ..QueueAttributes::default() };
        self.shared.state.lock().queues.insert(name.into(), (attributes, Vec::new()));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next request of this sort meets this fault.
    pub(crate) fn fault(&self, which: Which, fault: Fault) {
        self.shared.state.lock().faults.push_back((which, fault));
    }

    pub(crate) fn set_skew(&self, ahead: i64) {
        self.shared.skew_ms.store(ahead * 1000, Ordering::SeqCst);
    }

    pub(crate) fn set_keys(&self, id: &str, secret: &str, token: Option<&str>) {
        let keys = HashMap::from([(id.to_owned(), (secret.to_owned(), token.map(str::to_owned)))]);
        *self.shared.keys.lock() = keys;
    }

    /// The requests so far, as `METHOD resource`.
    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.state.lock().log.clone()
    }

    /// The bodies of the requests so far.
    pub(crate) fn bodies(&self) -> Vec<String> {
        self.shared.state.lock().bodies.clone()
    }

    /// How many messages the queue `q` has.
    pub(crate) fn stored(&self) -> usize {
        self.shared.state.lock().queues["q"].1.len()
    }

    /// How many of them can be received now.
    pub(crate) fn visible(&self) -> usize {
        let now = Instant::now();
        self.shared.state.lock().queues["q"].1.iter().filter(|message| message.visible <= now).count()
    }

    pub(crate) fn published(&self) -> Vec<String> {
        self.shared.state.lock().published.clone()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read(&mut stream).await {
        // Nobody gets a message whose connection has ended.
        let (answer, goes_on) = tokio::select! {
            biased;
            answered = shared.answer(&request) => answered,
            () = gone(&stream) => return,
        };
        let Some((status, headers, body)) = answer else { return };
        let bytes = if status == 0 {
            body.into_bytes()
        } else {
            let date = httpdate::fmt_http_date(shared.now());
            let length = body.len();
            format!(
                "HTTP/1.1 {status} X\r\nDate: {date}\r\nx-mns-request-id: R1\r\n{headers}content-length: {length}\r\n\r\n{body}"
            )
            .into_bytes()
        };
        if stream.write_all(&bytes).await.is_err() || !goes_on {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

// Status, headers and body; with the status 0 the body is all there is.
pub(crate) type Answer = Option<(u16, String, String)>;

pub(crate) fn plain(status: u16, body: String) -> Answer {
    Some((status, String::new(), body))
}

fn refused(code: &str, status: u16, text: &str) -> Answer {
    let refusal = Refusal {
        code: code.into(),
        text: text.into(),
        request_id: "R1".into(),
        host_id: "http://127.0.0.1".into(),
    };
    plain(status, refusal.encode())
}

pub(crate) fn refuse(code: Code) -> Answer {
    refused(code.name(), code.status(), code.text())
}

impl Shared {
    fn now(&self) -> SystemTime {
        let skew = self.skew_ms.load(Ordering::SeqCst);
        let by = Duration::from_millis(skew.unsigned_abs());
        if skew < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
    }

    fn millis(&self, time: SystemTime) -> u64 {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
    }

    async fn answer(&self, request: &Request) -> (Answer, bool) {
        {
            let mut state = self.state.lock();
            state.log.push(format!("{} {}", request.method, request.target));
            state.bodies.push(String::from_utf8(request.body.clone()).unwrap());
        }
        if let Err(code) = self.verify(request) {
            return (refuse(code), true);
        }
        let header = |name: &str| request.headers.get(name).map(String::as_str);
        let operation = match Operation::decode(&request.method, &request.target, header, &request.body) {
            Ok(operation) => operation,
            Err(wrong) => return (refused(wrong.code.name(), wrong.code.status(), wrong.text), true),
        };
        let fault = {
            let mut state = self.state.lock();
            let found = state.faults.iter().position(|(which, _)| which(&operation));
            found.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault)
        };
        match fault {
            None => (self.done(&operation).await, true),
            Some(Fault::Refuse(code, status)) => (refused(code, status, "it says secret"), true),
            Some(Fault::Answer(status, body)) => (plain(status, body), true),
            Some(Fault::Raw(bytes)) => (plain(0, bytes.to_owned()), false),
            Some(Fault::LostBefore) => (None, false),
            Some(Fault::LostAfter) => {
                self.done(&operation).await;
                (None, false)
            }
            Some(Fault::Silent) => {
                self.done(&operation).await;
                std::future::pending().await
            }
            Some(Fault::WrongDigest) => {
                let (status, headers, body) = self.done(&operation).await.unwrap();
                let at = body.find("<MessageBodyMD5>").unwrap() + "<MessageBodyMD5>".len();
                let body = format!("{}{}{}", &body[..at], body_md5(b"another"), &body[at + 32..]);
                (Some((status, headers, body)), true)
            }
            Some(Fault::ToldLate(time)) => {
                let done = self.done(&operation).await;
                tokio::time::sleep(time).await;
                (done, true)
            }
            Some(Fault::LateTogether(barrier)) => {
                barrier.wait().await;
                (refuse(Code::TimeExpired), true)
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                (self.done(&operation).await, true)
            }
        }
    }

    fn verify(&self, request: &Request) -> Result<(), Code> {
        let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
        let (id, signature) = presented(header("authorization")).ok_or(Code::InvalidAuthorizationHeader)?;
        let keys = self.keys.lock();
        let (secret, token) = keys.get(id).ok_or(Code::InvalidAccessKeyId)?;
        if token.as_deref().unwrap_or("") != header("security-token") {
            return Err(Code::InvalidAccessKeyId);
        }
        let own: Vec<(&str, &str)> = request
            .headers
            .iter()
            .filter(|(name, _)| name.starts_with("x-mns-"))
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let of = Signable {
            method: &request.method,
            content_md5: header("content-md5"),
            content_type: header("content-type"),
            date: header("date"),
            headers: &own,
            resource: &request.target,
        };
        if !is_signature(secret, &of, signature) {
            return Err(Code::SignatureDoesNotMatch);
        }
        let date = httpdate::parse_http_date(of.date).map_err(|_| Code::InvalidDateHeader)?;
        let now = self.now();
        let apart = now.duration_since(date).unwrap_or_else(|behind| behind.duration());
        if apart > TIME_WINDOW {
            return Err(Code::TimeExpired);
        }
        if !is_content_md5(&request.body, of.content_md5) {
            return Err(Code::InvalidDigest);
        }
        Ok(())
    }

    async fn done(&self, operation: &Operation<'_>) -> Answer {
        let (wait, number, queue) = match operation {
            Operation::Receive { wait, queue } => (*wait, None, queue),
            Operation::ReceiveBatch { wait, number, queue } => (*wait, Some(*number), queue),
            other => return self.at_once(other),
        };
        let end = Instant::now() + Duration::from_secs(u64::from(wait.unwrap_or(0)));
        loop {
            let arrived = self.arrived.notified();
            if let Some(answer) = self.receive(queue, number) {
                return answer;
            }
            // What is delayed or hidden comes without a sign.
            let soon = Instant::now() + Duration::from_millis(20);
            if Instant::now() >= end {
                return refuse(Code::MessageNotExist);
            }
            let _ = tokio::time::timeout_at(soon.min(end), arrived).await;
        }
    }

    fn receive(&self, queue: &str, number: Option<u32>) -> Option<Answer> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some((attributes, messages)) = state.queues.get_mut(queue) else {
            return Some(refuse(Code::QueueNotExist));
        };
        let hidden = Duration::from_secs(u64::from(attributes.visibility_timeout.unwrap_or(30)));
        let now = Instant::now();
        let mut found = Vec::new();
        for message in messages.iter_mut().filter(|message| message.visible <= now) {
            if found.len() == number.unwrap_or(1) as usize {
                break;
            }
            state.next += 1;
            message.count += 1;
            message.visible = now + hidden;
            message.handle = Some(format!("{}-{}==", message.priority, state.next));
            found.push(Received {
                message_id: message.id.clone().into(),
                receipt_handle: message.handle.clone().map(Cow::Owned),
                body_md5: body_md5(message.body.as_bytes()).into(),
                body: message.body.clone().into(),
                enqueue_time: message.enqueued,
                next_visible_time: Some(self.millis(self.now() + hidden)),
                first_dequeue_time: message.enqueued,
                dequeue_count: message.count,
                priority: message.priority,
                group: message.group.clone().map(Cow::Owned),
                properties: message
                    .properties
                    .iter()
                    .map(|(name, value)| Property {
                        name: name.clone().into(),
                        value: value.clone().into(),
                        kind: "STRING".into(),
                    })
                    .collect(),
                system_properties: Vec::new(),
            });
        }
        match (found.as_slice(), number) {
            ([], _) => None,
            ([one, ..], None) => Some(plain(200, encode_received(one))),
            (all, Some(_)) => Some(plain(200, encode_received_batch(all))),
        }
    }

    fn store(&self, state: &mut State, queue: &str, message: &Outgoing<'_>) -> Option<Sent> {
        state.next += 1;
        let id = format!("M{}", state.next);
        let (_, messages) = state.queues.get_mut(queue)?;
        let delay = Duration::from_secs(u64::from(message.delay_seconds.unwrap_or(0)));
        messages.push(Stored {
            id: id.clone(),
            body: message.body.clone().into_owned(),
            group: message.group.clone().map(Cow::into_owned),
            priority: message.priority.unwrap_or(DEFAULT_PRIORITY),
            properties: message
                .properties
                .iter()
                .map(|property| (property.name.to_string(), property.value.to_string()))
                .collect(),
            enqueued: self.millis(self.now()),
            visible: Instant::now() + delay,
            handle: None,
            count: 0,
        });
        self.arrived.notify_waiters();
        Some(Sent { message_id: id, body_md5: body_md5(message.body.as_bytes()), ..Sent::default() })
    }

    fn held<T>(
        &self,
        state: &mut State,
        queue: &str,
        handle: &str,
        then: impl FnOnce(&mut Vec<Stored>, usize) -> T,
    ) -> Result<T, Code> {
        let (_, messages) = state.queues.get_mut(queue).ok_or(Code::QueueNotExist)?;
        let now = Instant::now();
        let at = messages.iter().position(|one| one.handle.as_deref() == Some(handle) && one.visible > now);
        let at = at.ok_or(Code::MessageNotExist)?;
        Ok(then(messages, at))
    }

    fn at_once(&self, operation: &Operation<'_>) -> Answer {
        let mut state = self.state.lock();
        let state = &mut *state;
        match operation {
            Operation::Send { queue, message } => match self.store(state, queue, message) {
                Some(sent) => plain(201, sent.encode()),
                None => refuse(Code::QueueNotExist),
            },
            Operation::SendBatch { queue, messages } => {
                let mut failed = false;
                let entries: Vec<Entry> = messages
                    .iter()
                    .map(|message| {
                        if message.body.contains("refuse me") {
                            failed = true;
                            let text = "the value is secret".into();
                            return Entry::Refused { code: "InvalidArgument".into(), text };
                        }
                        self.store(state, queue, message).map_or_else(
                            || Entry::Refused { code: "QueueNotExist".into(), text: String::new() },
                            Entry::Sent,
                        )
                    })
                    .collect();
                plain(if failed { 500 } else { 201 }, encode_batch(&entries))
            }
            Operation::Publish { topic, message } => {
                if !state.topics.contains_key(&**topic) {
                    return refuse(Code::TopicNotExist);
                }
                state.next += 1;
                state.published.push(message.body.clone().into_owned());
                let sent = Sent {
                    message_id: format!("T{}", state.next),
                    body_md5: body_md5(message.body.as_bytes()),
                    ..Sent::default()
                };
                plain(201, sent.encode())
            }
            Operation::Delete { queue, handle } => {
                match self.held(state, queue, handle, |all, at| drop(all.remove(at))) {
                    Ok(()) => plain(204, String::new()),
                    Err(code) => refuse(code),
                }
            }
            Operation::DeleteBatch { queue, handles } => {
                let mut failures = Vec::new();
                for handle in handles {
                    if let Err(code) = self.held(state, queue, handle, |all, at| drop(all.remove(at))) {
                        failures.push(Failure {
                            code: code.name().into(),
                            text: code.text().into(),
                            receipt_handle: handle.clone().into_owned(),
                        });
                    }
                }
                match failures.is_empty() {
                    true => plain(204, String::new()),
                    false => plain(404, encode_failures(&failures)),
                }
            }
            Operation::ChangeVisibility { queue, handle, timeout } => {
                if (*timeout as usize) < self.least_visibility.load(Ordering::SeqCst) {
                    return refuse(Code::InvalidArgument);
                }
                state.next += 1;
                let renewed = format!("v-{}==", state.next);
                let hidden = Duration::from_secs(u64::from(*timeout));
                let changed = self.held(state, queue, handle, |all, at| {
                    all[at].visible = Instant::now() + hidden;
                    all[at].handle = Some(renewed.clone());
                });
                match changed {
                    Ok(()) => {
                        let next_visible_time = self.millis(self.now() + hidden);
                        plain(200, Visibility { receipt_handle: renewed, next_visible_time }.encode())
                    }
                    Err(code) => refuse(code),
                }
            }
            other => crate::directory::answer(state, other),
        }
    }
}

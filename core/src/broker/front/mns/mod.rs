//! The MNS protocol: HTTP requests with XML bodies, each with a signature, at an address of its own.
//!
//! `sign_in` says whether a request may be made, then its body is read and `wire::mns` says what it asks for;
//! `messages`, `publish` and `directory` do it, `push` brings what was published to subscribers. Everything is on the
//! shelves of the broker's depot.

mod answer;
mod directory;
mod handle;
mod messages;
mod note;
mod publish;
mod push;
mod sign_in;
mod spelling;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use rand::Rng;

use super::body::{Budget, Unread, read_bytes};
use crate::broker::config::MnsConfig;
use crate::broker::hub::Hub;
use crate::wire::mns::{Code, MAX_DOCUMENT, Operation};
use answer::{Answer, refuse};
use tokio::sync::Semaphore;

/// The account that owns everything: keys have no accounts of their own here.
const ACCOUNT: &str = "1";
/// Bytes of bodies that all clients together may have on their way.
const BODIES: usize = 256 << 20;
/// How long a client may leave its answer unread.
pub(in crate::broker) const UNREAD: Duration = Duration::from_secs(60);

/// What all requests share.
#[derive(Debug)]
struct Front {
    hub: Arc<Hub>,
    config: MnsConfig,
    /// The first half of every request's id, and the second half of the last.
    run: u64,
    requests: AtomicU64,
    /// How the names of an answer's headers are written.
    names: Extensions,
    /// Bodies of requests on their way.
    bodies: Arc<Budget>,
    /// Places of pushes.
    pushes: Arc<Semaphore>,
    handles: handle::Handles,
}

/// All paths; and what was published before goes on to subscribers.
pub(in crate::broker) async fn router(hub: &Arc<Hub>, config: MnsConfig) -> Router {
    let names = spelling::spelled(&["Location", "Content-Type", "x-mns-version", "x-mns-request-id"]).await;
    let front = Front::new(hub, config, names);
    front.push_all();
    Router::new().fallback(answer).with_state(front)
}

/// Who asks, and by which address.
#[derive(Debug)]
struct Caller {
    /// The id of the request.
    id: String,
    /// What the address of everything here begins with.
    base: String,
}

impl Front {
    fn new(hub: &Arc<Hub>, config: MnsConfig, names: Extensions) -> Arc<Front> {
        Arc::new(Front {
            hub: Arc::clone(hub),
            config,
            run: rand::rng().random(),
            requests: AtomicU64::new(0),
            names,
            bodies: Arc::new(Budget::new(BODIES)),
            pushes: Arc::new(Semaphore::new(push::ALL_AT_ONCE)),
            handles: handle::Handles::new(&hub.log().code_key()),
        })
    }

    fn caller(&self, headers: &HeaderMap) -> Caller {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let host = text(header::HOST).unwrap_or_default();
        // Who ends TLS in front of this says so; it is told to who asks alone.
        let scheme = text(HeaderName::from_static("x-forwarded-proto")).filter(|scheme| *scheme == "https");
        let base = format!("{}://{host}", scheme.unwrap_or("http"));
        Caller { id: format!("{:016X}{:08X}", self.run, number as u32), base }
    }

    async fn done(self: &Arc<Front>, operation: Operation<'_>, caller: &Caller) -> Answer {
        match operation {
            Operation::Send { .. }
            | Operation::SendBatch { .. }
            | Operation::Receive { .. }
            | Operation::ReceiveBatch { .. }
            | Operation::Peek { .. }
            | Operation::PeekBatch { .. }
            | Operation::Delete { .. }
            | Operation::DeleteBatch { .. }
            | Operation::ChangeVisibility { .. } => self.of_messages(operation).await,
            Operation::Publish { topic, message } => self.publish(&topic, &message).await,
            Operation::Subscribe { .. }
            | Operation::SetSubscription { .. }
            | Operation::GetSubscription { .. }
            | Operation::Unsubscribe { .. }
            | Operation::ListSubscriptions { .. } => self.of_subscriptions(operation, caller).await,
            other => self.of_directory(other, caller).await,
        }
    }
}

async fn answer(State(front): State<Arc<Front>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let caller = front.caller(&head.headers);
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let method = head.method.as_str();
    let answer = async {
        front.sign_in(method, target, &head.headers)?;
        // Only from who knows a key.
        let (body, _kept) = read_bytes(body, MAX_DOCUMENT, &front.bodies).await.map_err(|why| match why {
            Unread::Large => refuse(Code::MalformedXml, "the body cannot be read, or is too long"),
            Unread::Slow => refuse(Code::MalformedXml, "the body takes too long"),
            Unread::Crowded => refuse(Code::QpsLimitExceeded, "there are too many bodies at once"),
        })?;
        sign_in::body(&head.headers, &body)?;
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let operation =
            Operation::decode(method, target, text, &body).map_err(|wrong| refuse(wrong.code, wrong.text))?;
        Ok(front.done(operation, &caller).await)
    };
    let answer = match answer.await {
        Ok(answer) => answer,
        Err(refused) => refused,
    };
    let mut response = answer.into_response(&caller);
    response.extensions_mut().extend(front.names.clone());
    response
}

//! The console's questions, by GET: who consumes, and how the broker is set.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::super::json;
use crate::broker::hub::Hub;
use crate::broker::session::{Role, Session};
use crate::wire::dpmq::FORBIDDEN;
use crate::wire::push_quoted;

/// `GET /Console/GetConsumers`: the topic of each consumer of this protocol.
pub(super) async fn consumers(State(hub): State<Arc<Hub>>) -> Response {
    let mut body = br#"{"code":0,"data":{"#.to_vec();
    for (index, (name, topic)) in listed(&hub.sessions.list(Role::DpmqConsumer)).iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        push_quoted(&mut body, name);
        body.push(b':');
        push_quoted(&mut body, topic);
    }
    body.extend_from_slice(b"}}");
    json(body)
}

/// By id. An id that consumes several topics is listed for each: the first by its id alone, as all are with the
/// original, the others as `id|topic`, which no id can be.
fn listed(sessions: &[Session]) -> BTreeMap<String, Arc<str>> {
    let mut named = BTreeMap::new();
    for session in sessions {
        let mut name = session.id.to_string();
        if named.contains_key(&name) {
            name = format!("{name}{FORBIDDEN}{}", session.topic);
        }
        named.insert(name, Arc::clone(&session.topic));
    }
    named
}

/// `GET /Console/GetConfig`: the original's settings with this broker's values. The time between two pushes is
/// shown in whole seconds, rounded up; a consumer that cannot be written to is dropped at once.
pub(super) async fn settings(State(hub): State<Arc<Hub>>) -> Response {
    let topic = &hub.config.topic;
    let most = topic.max_messages.unwrap_or(0);
    let speed = topic.push_interval.map_or(0, |time| time.as_secs() + u64::from(time.subsec_nanos() > 0));
    json(format!(
        r#"{{"code":0,"data":{{"messageChanBuffer":{most},"pushMessagesSpeed":{speed},"sendRetryCount":0}}}}"#
    ))
}

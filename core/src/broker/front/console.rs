//! The HTTP side: sends, and what the original's console asks. HTTP status 200 for success and failure; 503 when
//! nobody knows whether a message was taken in.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{Local, NaiveDateTime, TimeZone};

use super::form::Form;
use super::socket::NAME_BYTES;
use super::{LOG_FAILED, body, json, plain, text_of, unread};
use crate::broker::code::Place;
use crate::broker::config::DeliveryMode;
use crate::broker::hub::{Hub, count};
use crate::broker::log::Durability;
use crate::broker::queue::{Accepted, Queue};
use crate::broker::room::Room;
use crate::broker::session::{Role, Session};
use crate::broker::topic::{Drafts, Shown};
use crate::wire::kapokmq::{
    CONSUMED, DELAYED, MAX_DELAY, Node, PushText, REGISTRY_PATH, SECRET_HEADER, WAITING, encode_nodes,
    encode_push,
};
use crate::wire::push_quoted;

/// The paths that are answered here, by POST.
pub(super) const PATHS: [&str; 10] = [
    "/Producer/Send",
    "/Console/Ping",
    "/Console/GetClients",
    "/Console/GetConfig",
    "/Console/GetMessageList",
    "/Console/GetMessage",
    "/Console/DelMessage",
    "/Console/CountMessage",
    "/Console/GetNodes",
    REGISTRY_PATH,
];

/// The most messages that one list shows: the newest.
const LISTED: usize = 10_000;
/// The status that stands for all in the form of a list.
const ANY_STATUS: i64 = 3;
/// The time that the original reads from a text that is none: the start of the year 1.
const NO_TIME: i64 = -62_135_596_800;

/// Answers one request.
pub(super) async fn answer(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    let key = request.headers().get(SECRET_HEADER).map(|value| value.as_bytes()).unwrap_or_default();
    if !hub.config.secret.matches(key) {
        count(&hub.counters.failed_logins, 1);
        return json(r#"{"code":-1,"msg":"Secret key matching error"}"#);
    }
    let path = request.uri().path().to_owned();
    let mut form = match body::read(request, hub.config.limits.body_bytes, None).await {
        Ok(form) => form,
        Err(why) => return unread(why),
    };
    match path.as_str() {
        "/Producer/Send" => send(&hub, &mut form).await,
        "/Console/GetClients" => json(clients(&hub)),
        "/Console/GetConfig" => json(config(&hub)),
        "/Console/GetMessageList" => json(list(&hub, &form)),
        "/Console/GetMessage" => json(message(&hub, form.get("messageCode"))),
        "/Console/DelMessage" => {
            delete(&hub, form.get("messageCode"));
            json(r#"{"code":0}"#)
        }
        "/Console/CountMessage" => json(counts(&hub)),
        // A broker that knows of no other is no cluster.
        "/Console/GetNodes" if hub.config.nodes.is_empty() => text(Vec::new()),
        "/Console/GetNodes" | REGISTRY_PATH => text(nodes(&hub)),
        _ => json(r#"{"code":0}"#),
    }
}

fn text(body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

async fn send(hub: &Hub, form: &mut Form) -> Response {
    let delay: Option<i64> = form.get("delayTime").parse().ok();
    let Some(delay) = delay.filter(|&delay| delay <= MAX_DELAY) else {
        let mut body = br#"{"code":-1,"msg":{"Func":"ParseInt","Num":"#.to_vec();
        push_quoted(&mut body, form.get("delayTime"));
        body.extend_from_slice(br#","Err":{}}}"#);
        return json(body);
    };
    let body = form.take("messageData");
    let topic = form.take("topic");
    if body.is_empty() || topic.is_empty() {
        return json(r#"{"code":-1,"msg":"Required data cannot be empty"}"#);
    }
    if topic.len() > NAME_BYTES {
        return json(r#"{"code":-1,"msg":"The name of the topic is too long"}"#);
    }
    let Ok(topic) = hub.topic(&topic) else {
        return json(r#"{"code":-1,"msg":"Too many topics"}"#);
    };
    let fits = body.len() <= hub.config.limits.frame_bytes;
    let Some(reserved) = hub.room().try_reserve(Room::cost(body.len())).filter(|_| fits) else {
        return json(r#"{"code":-1,"msg":"No room for the message"}"#);
    };
    let mut drafts = Drafts::default();
    drafts.push(&body, "", delay);
    let sequence = match hub.accept(&topic, &drafts, reserved).await.as_deref() {
        Ok([Accepted::New(sequence) | Accepted::Duplicate(sequence), ..]) => *sequence,
        Ok(_) => return json(r#"{"code":-1,"msg":"The topic is full"}"#),
        Err(error) if error.retryable() => return json(r#"{"code":-1,"msg":"The disk is full"}"#),
        Err(error) => {
            tracing::warn!(topic = %topic.name, %error, "a message was not taken in");
            return plain(StatusCode::SERVICE_UNAVAILABLE, LOG_FAILED);
        }
    };
    let place = Place { topic: topic.number, sequence };
    json(format!(r#"{{"code":0,"msg":"{}"}}"#, hub.codes.encode(place).as_str()))
}

fn clients(hub: &Hub) -> Vec<u8> {
    let mut body = br#"{"code":0,"consumers":"#.to_vec();
    push_sessions(&mut body, "Consumer", &hub.sessions.consumers());
    body.extend_from_slice(br#","producers":"#);
    push_sessions(&mut body, "Producer", &hub.sessions.list(Role::Producer));
    body.push(b'}');
    body
}

fn push_sessions(body: &mut Vec<u8>, role: &str, sessions: &[Session]) {
    if sessions.is_empty() {
        body.extend_from_slice(b"null");
        return;
    }
    for (index, session) in sessions.iter().enumerate() {
        body.push(if index == 0 { b'[' } else { b',' });
        body.extend_from_slice(format!(r#"{{"{role}Id":"#).as_bytes());
        push_quoted(body, &session.id);
        body.extend_from_slice(br#","Topic":"#);
        push_quoted(body, &session.topic);
        let (ip, joined) = (session.ip, session.joined);
        body.extend_from_slice(format!(r#","{role}Ip":"{ip}","JoinTime":{joined}}}"#).as_bytes());
    }
    body.push(b']');
}

/// The original's settings, with this broker's values where it has them; zero where it has no such thing. A rate
/// of pushes is shown in whole seconds, rounded up.
fn config(hub: &Hub) -> String {
    let push_type = match hub.mode() {
        DeliveryMode::WorkQueue => 1,
        DeliveryMode::PublishSubscribe => 2,
    };
    let (config, topic) = (&hub.config, &hub.config.topic);
    let redeliver_after = config.redeliver_after.as_secs();
    let batch = topic.push_interval.map(|interval| interval.saturating_mul(topic.push_burst.max(1)));
    let batch_seconds = batch.map_or(0, |batch| batch.as_secs() + u64::from(batch.subsec_nanos() > 0));
    // What is in a folder is in a log, as with the original's second way.
    let stored = config.data.as_ref().filter(|_| config.durability != Durability::Memory);
    let numbers = BTreeMap::from([
        ("checkSpeed", 1),
        ("cleanTime", topic.expire_after.map_or(0, |after| after.as_secs())),
        ("gossipPort", 0),
        ("isClean", u64::from(topic.expire_after.is_some())),
        ("isCleanConsumed", u64::from(config.limits.consumed_shown == 0)),
        ("isCluster", u64::from(!config.nodes.is_empty())),
        ("isPersistent", if stored.is_some() { 2 } else { 0 }),
        ("isRePush", 1),
        ("isSlave", 0),
        ("isSync", 0),
        ("messageChanBuffer", topic.max_messages.map_or(0, |most| most as u64)),
        ("persistentTime", 0),
        ("pushCount", if batch.is_some() { u64::from(topic.push_burst.max(1)) } else { 0 }),
        ("pushMessagesSpeed", batch_seconds),
        ("pushRetryTime", redeliver_after),
        ("pushType", push_type),
        ("recoveryStrategy", u64::from(stored.is_some())),
    ]);
    let mut fields: BTreeMap<&str, String> =
        numbers.into_iter().map(|(name, value)| (name, value.to_string())).collect();
    for name in ["masterAddr", "masterPort", "masterProtocol", "registryAddr", "registryGossipPort"] {
        fields.insert(name, "\"\"".to_owned());
    }
    let mut folder = Vec::new();
    push_quoted(&mut folder, &stored.map(|path| path.to_string_lossy()).unwrap_or_default());
    fields.insert("persistentFile", text_of(&folder).into_owned());
    let mut body = r#"{"code":0,"data":{"#.to_owned();
    for (index, (name, value)) in fields.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a string does not fail.
        let _ = write!(body, r#"{comma}"{name}":{value}"#);
    }
    body.push_str("}}");
    body
}

/// A time of the form, in seconds since 1970: local, as the original reads it.
pub(super) fn local_seconds(text: &str) -> i64 {
    let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok();
    parsed
        .and_then(|time| Local.from_local_datetime(&time).earliest())
        .map_or(NO_TIME, |time| time.timestamp())
}

/// A message of the list, with the number and name of its topic.
struct Listed {
    number: u32,
    topic: Arc<str>,
    shown: Shown,
}

fn push_listed(body: &mut Vec<u8>, hub: &Hub, listed: &Listed, with_body: bool) {
    let shown = &listed.shown;
    let place = Place { topic: listed.number, sequence: shown.sequence };
    let code = hub.codes.encode(place);
    let text = PushText {
        code: code.as_str(),
        body: if with_body { &text_of(&shown.body) } else { "" },
        topic: &listed.topic,
        create_time: shown.created,
        consumed_time: shown.consumed,
        delay_time: shown.delay,
        status: shown.status,
    };
    encode_push(body, &text);
}

fn list(hub: &Hub, form: &Form) -> Vec<u8> {
    let (start, end) = (local_seconds(form.get("startTime")), local_seconds(form.get("endTime")));
    let status: i64 = form.get("status").parse().unwrap_or(0);
    let name = form.get("topic");
    // By age: of more than may be listed, the oldest go.
    let mut newest = BTreeMap::new();
    let mut add = |listed: Listed| {
        newest.insert((listed.shown.created, listed.shown.sequence, listed.number), listed);
        if newest.len() > LISTED {
            newest.pop_first();
        }
    };
    let times = start..=end;
    if status == CONSUMED || status == ANY_STATUS {
        let past = hub.shared.history.select(|past| name.is_empty() || *past.topic == *name);
        let mut reading = hub.log().reading();
        for past in past {
            if let Some(shown) =
                Shown::past(&past, &mut reading).filter(|shown| times.contains(&shown.created))
            {
                add(Listed { number: past.number, topic: past.topic, shown });
            }
        }
    }
    for topic in hub.all_topics() {
        if !name.is_empty() && *topic.name != *name {
            continue;
        }
        if status == CONSUMED {
            break;
        }
        let looked_for = |delayed| status == ANY_STATUS || status == if delayed { DELAYED } else { WAITING };
        for shown in topic.newest(LISTED, start, looked_for, |shown| times.contains(&shown.created)) {
            add(Listed { number: topic.number, topic: Arc::clone(&topic.name), shown });
        }
    }
    let mut body = br#"{"code":0,"data":"#.to_vec();
    if newest.is_empty() {
        body.extend_from_slice(b"null");
    } else {
        for (index, listed) in newest.values().rev().enumerate() {
            body.push(if index == 0 { b'[' } else { b',' });
            push_listed(&mut body, hub, listed, false);
        }
        body.push(b']');
    }
    body.push(b'}');
    body
}

fn message(hub: &Hub, code: &str) -> Vec<u8> {
    let found = hub.find(code).and_then(|(topic, place)| {
        let shown = topic.find(place.sequence)?;
        Some(Listed { number: topic.number, topic: Arc::clone(&topic.name), shown })
    });
    let Some(listed) = found else { return br#"{"code":-1,"data":"error"}"#.to_vec() };
    let mut body = br#"{"code":0,"data":"#.to_vec();
    push_listed(&mut body, hub, &listed, true);
    body.push(b'}');
    body
}

fn delete(hub: &Hub, code: &str) {
    let Some((topic, place)) = hub.find(code) else { return };
    if topic.delete(place.sequence) {
        tracing::info!(topic = %topic.name, code, "a message was deleted through the console");
    }
}

fn counts(hub: &Hub) -> String {
    let (mut unconsumed, mut delay) = (0, 0);
    for topic in hub.all_topics() {
        let (waiting, delayed) = topic.read(Queue::counts);
        unconsumed += waiting;
        delay += delayed;
    }
    let consumed = usize::try_from(hub.shared.history.total()).unwrap_or(usize::MAX);
    let all = (unconsumed + delay).saturating_add(consumed);
    format!(
        r#"{{"code":0,"data":{{"all":{all},"consumed":{consumed},"delay":{delay},"unconsumed":{unconsumed}}}}}"#
    )
}

/// This broker and the others that its configuration lists.
fn nodes(hub: &Hub) -> Vec<u8> {
    let host = hub.config.advertise.clone().unwrap_or_else(|| {
        let ip = hub.address.ip();
        let ip = if ip.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { ip };
        ip.to_string()
    });
    let mut nodes = vec![Node::at(host, hub.address.port())];
    nodes.extend(hub.config.nodes.iter().cloned());
    encode_nodes(&nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_local_and_bad_ones_lie_before_everything() {
        let now = Local::now();
        let text = now.format("%Y-%m-%d %H:%M:%S").to_string();
        assert_eq!(local_seconds(&text), now.timestamp());
        assert_eq!(local_seconds(""), NO_TIME);
        assert_eq!(local_seconds("yesterday"), NO_TIME);
    }
}

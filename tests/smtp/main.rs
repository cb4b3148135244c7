//! Mail: against a server that fails as told, and against a real one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod copies;
mod faults;
mod pool;
mod real;
mod secrets;

use std::sync::Arc;
use std::time::Duration;

use ceiba_core::client::{Context, Producer};
use ceiba_core::config::ClientConfig;
use ceiba_core::error::Result;
use ceiba_core::message::Message;
use ceiba_core::open;
use ceiba_core::provider::memory::Topics;
use serde_json::{Value, json};

/// Opens a producer whose section has these keys; `more` are the client's own.
async fn try_open(section: Value, more: Value) -> Result<Arc<dyn Producer>> {
    let mut config =
        json!({"connect": "lazy", "provider": {"type": "smtp", "from": "Ceiba <c@example.test>"}});
    config["provider"].as_object_mut().unwrap().extend(section.as_object().unwrap().clone());
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    open::producer("mail", &ClientConfig::from_json(config)?, &Topics::default()).await
}

/// The same against a server of [`ceiba_tests::mail`].
async fn to_server(server: &ceiba_tests::mail::MailServer, section: Value, more: Value) -> Arc<dyn Producer> {
    let mut section = section;
    section["url"] = json!(format!("smtp://{}", server.address()));
    section["tls"] = json!("none");
    try_open(section, more).await.unwrap()
}

fn within(seconds: f64) -> Context {
    Context::within(Duration::from_secs_f64(seconds))
}

fn letter(recipients: &[&str]) -> Arc<Message> {
    Arc::new(Message::new("hello").with(|fields| {
        fields.recipients = recipients.iter().map(|name| (*name).to_owned()).collect();
    }))
}

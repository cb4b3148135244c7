//! DingTalk: the robot of a group, and an HTTP gateway in front of DingTalk.
//!
//! `section` is the config, `robot` and `gateway` each are a producer, `window` is the bound of a robot's messages in a
//! minute.

mod gateway;
mod robot;
mod section;
mod window;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Setup;
use super::http::{Texts, text_alone};
use crate::client::Producer;
use crate::error::{Error, Kind, Result};
use crate::message::Message;
use section::Settings;

pub use section::{GatewaySection, RobotSection};

const PROVIDER: &str = "dingtalk";

/// Checks a section without opening anything.
///
/// # Errors
/// `invalid_config`, naming the key.
pub fn check(section: Map<String, Value>) -> Result<()> {
    Settings::read(section).map(drop)
}

/// Opens a producer, on the current runtime.
///
/// # Errors
/// `invalid_config`; and unless `connect` is lazy `unavailable` when the server cannot be reached within
/// `connect_timeout`.
pub async fn open_producer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Producer>> {
    let opened: Result<Arc<dyn Producer>> = match Settings::read(section)? {
        Settings::Robot(settings) => robot::open(setup, *settings).await,
        Settings::Gateway(settings) => gateway::open(setup, *settings).await,
    };
    opened.map_err(|error| error.by(PROVIDER))
}

/// The text that a message says: of its template where there is one, else its body.
fn said<'a>(texts: &Texts, message: &'a Message) -> Result<std::borrow::Cow<'a, str>> {
    if texts.are_some()
        && let Some(template) = texts.of(message, &[])?
    {
        return Ok(template.render(&super::http::values(message, Vec::new()))?.into());
    }
    message.allow_only(PROVIDER, &["content_type", "recipients", "attributes"], None)?;
    text_alone(message)?;
    let text = std::str::from_utf8(message.body());
    Ok(text.map_err(|_| Error::new(Kind::Unsupported, "the body is not UTF-8 text"))?.into())
}

fn refuse_delay(message: &Message) -> Result<()> {
    if message.delay().is_zero() {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, "a delay cannot be sent by dingtalk"))
}

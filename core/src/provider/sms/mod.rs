//! Short messages: by Aliyun, by Tencent Cloud, or by any gateway that takes HTTP requests.
//!
//! `producer` is what callers see: it splits recipients into batches and sums up how each ended. `aliyun`, `tencent` and
//! `gateway` each are a [`Service`](producer::Service): a section of the config, and how a batch is sent. `numbers` are
//! the recipients.

mod aliyun;
mod gateway;
mod numbers;
mod params;
mod producer;
mod tencent;

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Setup;
use super::http::{Options, Outlet, Site};
use crate::client::Producer;
use crate::config::nearest;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use producer::{Service, SmsProducer};

pub use aliyun::AliyunSection;
pub use gateway::GatewaySection;
pub use tencent::TencentSection;

const PROVIDER: &str = "sms";
const SERVICES: [&str; 3] = ["aliyun", "http", "tencent"];

/// A service, and what its outlet is opened with.
struct Opening<S> {
    service: S,
    site: Site,
    options: Options,
    secrets: Vec<Secret>,
    recipients: Vec<String>,
}

enum Settings {
    Aliyun(Box<Opening<aliyun::Aliyun>>),
    Tencent(Box<Opening<tencent::Tencent>>),
    Http(Box<Opening<gateway::Gateway>>),
}

impl Settings {
    fn read(mut section: Map<String, Value>) -> Result<Settings> {
        let wrong = |text: String| Error::new(Kind::InvalidConfig, text);
        let settings = match section.remove("service") {
            Some(Value::String(service)) => match service.as_str() {
                "aliyun" => aliyun::read(section).map(|opening| Settings::Aliyun(Box::new(opening))),
                "http" => gateway::read(section).map(|opening| Settings::Http(Box::new(opening))),
                "tencent" => tencent::read(section).map(|opening| Settings::Tencent(Box::new(opening))),
                other => {
                    let hint = nearest(other, &SERVICES).map(|name| format!(" (did you mean `{name}`?)"));
                    let hint = hint.unwrap_or_default();
                    Err(wrong(format!("unknown service `{other}`; known are: {}{hint}", SERVICES.join(", "))))
                }
            },
            _ => Err(wrong(format!("`service` is one of: {}", SERVICES.join(", ")))),
        };
        settings.map_err(|error| error.by(PROVIDER))
    }
}

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
/// `invalid_config`; and unless `connect` is lazy `unavailable` when the service cannot be reached within
/// `connect_timeout`.
pub async fn open_producer(setup: &Setup, section: Map<String, Value>) -> Result<Arc<dyn Producer>> {
    match Settings::read(section)? {
        Settings::Aliyun(opening) => open(setup, *opening).await,
        Settings::Tencent(opening) => open(setup, *opening).await,
        Settings::Http(opening) => open(setup, *opening).await,
    }
}

async fn open<S: Service>(setup: &Setup, opening: Opening<S>) -> Result<Arc<dyn Producer>> {
    let Opening { service, site, options, secrets, recipients } = opening;
    let outlet = Outlet::open(PROVIDER, setup, &site, options, secrets).await;
    let outlet = outlet.map_err(|error| error.by(PROVIDER))?;
    Ok(Arc::new(SmsProducer { service, site, outlet, recipients }))
}

// A key that must not be empty.
fn filled(key: &str, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::new(Kind::InvalidConfig, format!("`{key}` is empty")));
    }
    Ok(())
}

// The size of a batch, from a config.
fn batch(wanted: Option<u32>, standard: usize, most: usize) -> Result<usize> {
    let wanted = wanted.map_or(standard, |wanted| wanted as usize);
    if !(1..=most).contains(&wanted) {
        let text = format!("`batch` must be from 1 to {most}");
        return Err(Error::new(Kind::InvalidConfig, text));
    }
    Ok(wanted)
}

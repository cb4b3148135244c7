//! `ceiba mns`: the queues, topics and subscriptions of an account.

pub(crate) mod arguments;

mod command;
mod show;

use ceiba_core::calls;
use ceiba_core::config::ClientConfig;
use ceiba_core::error::Kind;
use serde_json::{Value, json};

use self::command::{Asked, Shown};
use crate::failure::{Exit, Failure};
use crate::secret;
use crate::stop::Stop;
use arguments::MnsArgs;

/// Names of a page.
const PAGE: u32 = 1000;

pub(crate) async fn run(args: &MnsArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let asked = command::of(&args.of);
    let config = secret::client_config(asked.account)?;
    tokio::select! {
        done = done(&config, asked, as_json) => done,
        () = stop.asked() => Ok(Exit::Interrupted),
    }
}

async fn done(config: &ClientConfig, asked: Asked<'_>, as_json: bool) -> Result<Exit, Failure> {
    let Asked { name, mut arguments, shown, .. } = asked;
    let Shown::Pages { of } = shown else {
        let answer = call(config, name, arguments).await?;
        show::answer(&shown, &answer, as_json)?;
        return Ok(Exit::Done);
    };
    let mut table = show::Table::of(of);
    arguments.insert("limit".to_owned(), json!(PAGE));
    loop {
        let page = call(config, name, arguments.clone()).await?;
        let each = page.get(of).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        if !table.page(each, as_json)? {
            return Ok(Exit::Done);
        }
        match page.get("next") {
            Some(next @ Value::String(_)) => _ = arguments.insert("after".to_owned(), next.clone()),
            _ => return Ok(Exit::Done),
        }
    }
}

async fn call(
    config: &ClientConfig,
    name: &str,
    arguments: serde_json::Map<String, Value>,
) -> Result<Value, Failure> {
    calls::mns::admin(config, json!({ name: arguments }), None).await.map_err(|error| match error.kind() {
        // The service refuses a value, or there is one of this name with other attributes.
        Kind::NotFound | Kind::Unsupported => Failure::of(error),
        _ => Failure::at_open(error),
    })
}

//! `ceiba broker`: the embedded broker until a signal.

use std::io::{self, Write};
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode, Durability, MnsConfig, TopicConfig, WhenFull};
use ceiba_core::settings as broker_settings;
use ceiba_core::wire::kapokmq::Node;
use serde_json::json;

use crate::application::Application;
use crate::arguments::{BrokerArgs, Delivery, Full, TopicArgs};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::secret;
use crate::stop::Stop;

/// Where it listens when nothing else is said.
const LISTEN: &str = "127.0.0.1:8011";
/// How long connections may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &BrokerArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    let file = args.config.as_deref().map(Application::read).transpose()?;
    let config = settings(args, file.as_ref())?;
    for warning in file.iter().flat_map(|file| &file.warnings) {
        warn(warning, as_json);
    }
    let dpmq = config.dpmq;
    let broker = Broker::start(config).await.map_err(Failure::at_start)?;
    log::opened();
    let address = broker.address();
    if dpmq && !address.ip().is_loopback() {
        let text = format!(
            "DPMQ has no login: whoever reaches {address} can send and receive (--listen 127.0.0.1:{} is for this \
             machine alone)",
            address.port()
        );
        warn(&text, as_json);
    }
    let mut line = if as_json {
        json!({ "listening": address.to_string() }).to_string()
    } else {
        format!("listening on {address}")
    };
    if let Some(mns) = broker.mns_address() {
        line.push('\n');
        line.push_str(&match as_json {
            true => json!({ "mns": mns.to_string() }).to_string(),
            false => format!("mns on {mns}"),
        });
    }
    let mut stdout = io::stdout();
    // A broker whose output nobody reads serves all the same.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    stop.asked().await;
    if !broker.stop(DRAIN).await {
        tracing::warn!("some connections did not end in {DRAIN:?} and were cut off");
    }
    Ok(Exit::Done)
}

/// What the arguments say, then the file, then this program.
fn settings(args: &BrokerArgs, file: Option<&Application>) -> Result<BrokerConfig, Failure> {
    if args.redeliver_after.is_some_and(|after| after.is_zero()) {
        return Err(Failure::usage("--redeliver-after must be longer than 0"));
    }
    let secret = secret::of_broker(args.secret_file.as_deref(), args.secret.as_deref(), file)?;
    let mut config = BrokerConfig { listen: LISTEN.to_owned(), ..BrokerConfig::new(secret) };
    if let Some(file) = file {
        config.listen = file.listen.clone().unwrap_or(config.listen);
        config.advertise.clone_from(&file.advertise);
        config.delivery = file.delivery;
        config.dpmq = file.dpmq;
        config.data.clone_from(&file.data);
        config.topic = file.topic.clone();
        config.redeliver_after = file.redeliver_after.unwrap_or(config.redeliver_after);
        if file.forget_consumed {
            config.limits.consumed_shown = 0;
        }
    }
    if let Some(listen) = &args.listen {
        config.listen.clone_from(listen);
    }
    match args.delivery {
        Some(Delivery::WorkQueue) => config.delivery = DeliveryMode::WorkQueue,
        Some(Delivery::PublishSubscribe) => config.delivery = DeliveryMode::PublishSubscribe,
        None => {}
    }
    config.dpmq |= args.dpmq;
    if let Some(listen) = &args.mns {
        config.mns = Some(MnsConfig {
            listen: listen.clone(),
            keys: secret::mns_keys(args.mns_key_file.as_deref(), &args.mns_keys)?,
            private_endpoints: args.mns_private_endpoints,
            endpoints: args.mns_endpoints.clone(),
        });
    }
    config.data = args.data.clone().or(config.data);
    if let Some(folder) = config.data.as_deref().filter(|_| args.data.is_none() && file.is_some())
        && folder.exists()
        && !folder.is_dir()
    {
        return Err(Failure::usage(format!(
            "`mq.persistentFile` names {}, which is a file: this broker needs a folder and cannot read the messages \
             of another server (name a folder with --data)",
            folder.display()
        )));
    }
    config.durability = args.durability.unwrap_or(config.durability);
    match (&mut config.durability, args.sync_interval) {
        (Durability::Interval(every), Some(given)) => *every = given,
        (_, Some(_)) => return Err(Failure::usage("--sync-interval needs --durability interval")),
        (_, None) => {}
    }
    if config.data.is_none() && args.durability.is_some_and(|durability| durability != Durability::Memory) {
        return Err(Failure::usage("--durability needs a folder: name one with --data"));
    }
    config.limits.segment_bytes = args.segment_bytes;
    config.limits.stored_bytes = args.stored_bytes.unwrap_or(config.limits.stored_bytes);
    config.advertise = args.advertise.clone().or(config.advertise);
    config.nodes = args.nodes.iter().map(|(host, port)| Node::at(host.clone(), *port)).collect();
    config.redeliver_after = args.redeliver_after.unwrap_or(config.redeliver_after);
    topics(&args.topics, &mut config.topic)?;
    for given in &args.topics.each {
        let (name, keys) = given.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
            Failure::usage(format!(
                "--topic {given}: it is NAME=JSON, such as orders={{\"max_attempts\": 5}}"
            ))
        })?;
        let topic = broker_settings::topic(&config.topic, keys)
            .map_err(|error| Failure::usage(format!("--topic {name}: {}", error.message())))?;
        if config.topics.insert(name.to_owned(), topic).is_some() {
            return Err(Failure::usage(format!("--topic {name} is given twice")));
        }
    }
    Ok(config)
}

fn topics(args: &TopicArgs, topic: &mut TopicConfig) -> Result<(), Failure> {
    let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    topic.max_attempts = args.max_attempts.or(topic.max_attempts);
    topic.expire_after = args.expire_after.or(topic.expire_after);
    match (args.push_every, args.push_count) {
        (Some(every), count) => topic.push_batches(count.unwrap_or(1), every),
        (None, Some(_)) => return Err(Failure::usage("--push-count needs --push-every")),
        (None, None) => {}
    }
    topic.max_messages = args.max_messages.map(whole).or(topic.max_messages);
    topic.max_bytes = args.max_bytes.map(whole).or(topic.max_bytes);
    match args.when_full {
        Some(Full::Wait) => topic.when_full = WhenFull::Wait,
        Some(Full::Refuse) => topic.when_full = WhenFull::Refuse,
        None => {}
    }
    topic.deduplicate = args.deduplicate.or(topic.deduplicate);
    topic.compat |= args.compat;
    Ok(())
}

/// One line on stderr. A stderr that is gone is no news.
fn warn(text: &str, as_json: bool) {
    let line = if as_json { json!({ "warning": text }).to_string() } else { format!("warning: {text}") };
    let _ = writeln!(io::stderr(), "{line}");
}

//! `ceiba broker`: the embedded broker until a signal.

use std::io::{self, Write};
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode, Durability, Limits};
use ceiba_core::wire::kapokmq::Node;
use serde_json::json;

use crate::arguments::{BrokerArgs, Delivery, Safe};
use crate::failure::{Exit, Failure};
use crate::log;
use crate::secret;
use crate::stop::Stop;

/// How long connections may take to end after a signal.
const DRAIN: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &BrokerArgs, stop: &Stop, as_json: bool) -> Result<Exit, Failure> {
    if args.redeliver_after.is_zero() {
        return Err(Failure::usage("--redeliver-after must be longer than 0"));
    }
    if args.sync_interval.is_zero() {
        return Err(Failure::usage("--sync-interval must be longer than 0"));
    }
    let config = BrokerConfig {
        listen: args.listen.clone(),
        delivery: match args.delivery {
            Delivery::WorkQueue => DeliveryMode::WorkQueue,
            Delivery::PublishSubscribe => DeliveryMode::PublishSubscribe,
        },
        dpmq: args.dpmq,
        data: args.data.clone(),
        durability: match args.durability {
            Safe::Fsync => Durability::Fsync,
            Safe::Interval => Durability::Interval(args.sync_interval),
            Safe::Memory => Durability::Memory,
        },
        advertise: args.advertise.clone(),
        nodes: args.nodes.iter().map(|(host, port)| Node::at(host.clone(), *port)).collect(),
        redeliver_after: args.redeliver_after,
        limits: Limits { segment_bytes: args.segment_bytes, ..Limits::default() },
        ..BrokerConfig::new(secret::of_broker(args.secret_file.as_deref(), args.secret.as_deref())?)
    };
    let broker = Broker::start(config).await.map_err(Failure::at_start)?;
    log::opened();
    let address = broker.address();
    let line = if as_json {
        json!({ "listening": address.to_string() }).to_string()
    } else {
        format!("listening on {address}")
    };
    let mut stdout = io::stdout();
    // A broker whose output nobody reads serves all the same.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    stop.asked().await;
    if !broker.stop(DRAIN).await {
        tracing::warn!("some connections did not end in {DRAIN:?} and were cut off");
    }
    Ok(Exit::Done)
}

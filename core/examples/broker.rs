//! Runs a broker until its standard input closes; the first line printed is its address.
//!
//! Arguments: `--listen ADDRESS`, `--secret KEY`, `--delivery work_queue|publish_subscribe`,
//! `--redeliver-after SECONDS`, `--workers N`.

use std::error::Error;
use std::io::Read;
use std::time::Duration;

use ceiba_core::broker::{Broker, BrokerConfig, DeliveryMode};
use ceiba_core::secret::Secret;

fn main() -> Result<(), Box<dyn Error>> {
    let mut config = BrokerConfig::default();
    let mut workers = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        match name.as_str() {
            "--listen" => config.listen = value,
            "--secret" => config.secret = Secret::new(value),
            "--delivery" => config.delivery = DeliveryMode::from_name(&value).ok_or("no such delivery")?,
            "--redeliver-after" => config.redeliver_after = Duration::from_secs_f64(value.parse()?),
            "--workers" => workers = Some(value.parse()?),
            _ => return Err(format!("no such argument: {name}").into()),
        }
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = workers {
        runtime.worker_threads(workers);
    }
    runtime.enable_all().build()?.block_on(async {
        let broker = Broker::start(config).await?;
        println!("{}", broker.address());
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        broker.stop(Duration::from_secs(5)).await;
        println!("{:?}", broker.status());
        Ok(())
    })
}

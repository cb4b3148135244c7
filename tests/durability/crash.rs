//! Kill -9 at random moments under load, with the log's files rolling over and being cleaned.

use std::time::{Duration, Instant};

use ceiba_tests::program::BrokerProcess;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::sleep;

use crate::broker::{Folder, Setting, number, runtime, turn};
use crate::ledger::{Figures, Whom};
use crate::load::{Load, emptied};

/// Cycles on one folder; after them everything is accounted for.
const CYCLES_OF_A_RUN: u64 = 15;
/// The same where many are asked for: settling the account takes longer than a cycle.
const CYCLES_OF_A_LONG_RUN: u64 = 100;
/// Small, so that a second of load fills several.
pub(crate) const SEGMENT: &str = "--segment-bytes=262144";

/// Files of a log that holds nothing: what may be kept, and what is made ahead.
const SMALL: usize = 10;

/// One run on one folder.
pub(crate) struct Run<'a> {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) whom: Whom,
    pub(crate) cycles: u64,
    /// How long a silence means that nothing more comes.
    pub(crate) patience: Duration,
    /// The blow: the broker is gone when it returns.
    #[allow(clippy::type_complexity)]
    pub(crate) strike: &'a mut dyn FnMut(BrokerProcess),
}

/// What a run came to.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Outcome {
    pub(crate) figures: Figures,
    /// Files of the log that were begun.
    pub(crate) begun: u64,
    /// Files that were cleaned away.
    pub(crate) cleaned: u64,
}

impl Run<'_> {
    /// Strikes a broker under load time and again, then holds the book against it.
    pub(crate) async fn run(&mut self, setting: &mut Setting) -> Result<Outcome, String> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut broker = setting.start()?;
        let address = broker.address();
        let mut load = Load::start(&self.name, self.seed, address, self.whom).await;
        for cycle in 0..self.cycles {
            sleep(Duration::from_millis(random.random_range(30..700))).await;
            // On a machine with other work the load may not have come back yet: then nothing would be tried.
            let (before, since) = (load.ledger.accepted(), Instant::now());
            while load.ledger.accepted() < before + 20 && since.elapsed() < Duration::from_secs(10) {
                sleep(Duration::from_millis(2)).await;
            }
            (self.strike)(broker);
            if cycle % 4 == 3 {
                setting.start_and_kill(Duration::from_millis(random.random_range(0..80)));
            }
            broker = setting.start().map_err(|error| format!("cycle {cycle}: {error}"))?;
        }
        load.stop_sending().await;
        // What the consumers hold unacknowledged comes again after this.
        (self.strike)(broker);
        broker = setting.start()?;
        load.drain(self.patience).await;
        let figures = load.ledger.close()?;
        emptied(address).await?;
        let deliveries = load.ledger.deliveries();
        // Stopped in good order, it has forgotten no ack.
        broker.stop();
        broker = setting.start()?;
        sleep(Duration::from_millis(500)).await;
        emptied(address).await?;
        if load.ledger.deliveries() != deliveries {
            let again = load.ledger.deliveries() - deliveries;
            return Err(format!("{again} acknowledged messages came again after a clean restart"));
        }
        load.end().await;
        // A log that holds nothing becomes small.
        let since = Instant::now();
        while setting.segments().len() > SMALL {
            if since.elapsed() > Duration::from_secs(5) {
                return Err(format!("an empty log keeps {} files", setting.segments().len()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        let segments = setting.segments();
        broker.kill();
        let (first, last) = (segments[0], segments[segments.len() - 1]);
        Ok(Outcome { figures, begun: last, cleaned: first - 1 })
    }
}

/// The first seed of a test: given, or chosen and shown.
pub(crate) fn first_seed() -> u64 {
    number("CEIBA_CRASH_SEED").unwrap_or_else(|| rand::rng().random_range(0..1_000_000))
}

fn killed(whom: Whom, delivery: &str) {
    let _turn = turn();
    let cycles = number("CEIBA_CRASH_CYCLES").unwrap_or(2 * CYCLES_OF_A_RUN) / 2;
    let of_a_run = if cycles > 2 * CYCLES_OF_A_LONG_RUN { CYCLES_OF_A_LONG_RUN } else { CYCLES_OF_A_RUN };
    let (mut all, mut begun, mut cleaned) = (Figures::default(), 0, 0);
    let started = Instant::now();
    let mut seed = first_seed();
    let mut done = 0;
    while done < cycles {
        eprintln!("CEIBA_CRASH_SEED={seed} {delivery} begins after {done} cycles");
        let folder = Folder::new(&format!("crash-{delivery}"));
        let delivery = format!("--delivery={delivery}");
        let mut setting =
            Setting::new(&folder.path().join("data"), &[SEGMENT, &delivery, "--redeliver-after=10"]);
        let mut run = Run {
            name: format!("crash-{whom:?}-{seed}"),
            seed,
            whom,
            cycles: of_a_run.min(cycles - done),
            patience: Duration::from_secs(15),
            strike: &mut BrokerProcess::kill,
        };
        let runtime = runtime();
        let outcome = runtime.block_on(run.run(&mut setting));
        runtime.shutdown_timeout(Duration::from_secs(1));
        let outcome = outcome.unwrap_or_else(|wrong| panic!("CEIBA_CRASH_SEED={seed}: {wrong}"));
        all += outcome.figures;
        begun += outcome.begun;
        cleaned += outcome.cleaned;
        done += run.cycles;
        seed += 1;
    }
    eprintln!(
        "{delivery}: {done} kills in {:?}, {begun} files begun and {cleaned} cleaned: {all:?}",
        started.elapsed()
    );
    assert!(cleaned > 0, "nothing was cleaned: {all:?}");
    assert!(all.delayed > 0 && all.again > 0, "{all:?}");
}

#[test]
fn a_killed_work_queue_loses_nothing() {
    killed(Whom::One, "work_queue");
}

#[test]
fn a_killed_broker_owes_every_subscriber_everything() {
    killed(Whom::Everybody, "publish_subscribe");
}

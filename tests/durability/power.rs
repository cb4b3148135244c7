//! The power goes under load: everything that was not on disk for good is lost. A kill cannot show a sync that is
//! missing; this can, and it is shown that it does.

use std::time::{Duration, Instant};

use ceiba_tests::program::BrokerProcess;

use crate::broker::{Setting, freeze, number, runtime, turn};
use crate::crash::{Outcome, Run, SEGMENT, first_seed};
use crate::ledger::{Figures, Whom};
use crate::mounts::{Mount, skipped};

const CYCLES: u64 = 10;
const CYCLES_OF_A_RUN: u64 = 10;

/// The broker stands still first: a sync under way when the file system goes may return well and have done
/// nothing.
fn strike(mount: &Mount, broker: BrokerProcess) {
    freeze(broker.pid());
    mount.cut();
    broker.kill();
    mount.power_on();
}

/// One run on a fresh disk.
fn run(mount: &Mount, seed: u64, cycles: u64, arguments: &[&str]) -> Result<Outcome, String> {
    let everybody = seed % 2 == 1;
    let (whom, delivery) = if everybody {
        (Whom::Everybody, "--delivery=publish_subscribe")
    } else {
        (Whom::One, "--delivery=work_queue")
    };
    let mut all = vec![SEGMENT, delivery, "--redeliver-after=10"];
    all.extend(arguments);
    let mut setting = Setting::new(&mount.path().join("data"), &all);
    let mut run = Run {
        name: format!("power-{seed}-{}", arguments.len()),
        seed,
        whom,
        cycles,
        patience: Duration::from_secs(if arguments.is_empty() { 15 } else { 3 }),
        strike: &mut |broker| strike(mount, broker),
    };
    let runtime = runtime();
    let outcome = runtime.block_on(run.run(&mut setting));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let _turn = turn();
    let wanted = number("CEIBA_POWER_CYCLES").unwrap_or(CYCLES);
    let (mut done, mut all, mut cleaned) = (0, Figures::default(), 0);
    let started = Instant::now();
    let mut seed = first_seed();
    let of_a_run = if wanted > 10 * CYCLES { 25 } else { CYCLES_OF_A_RUN / 2 };
    while done < wanted {
        let mount = match Mount::ext4("power") {
            Ok(mount) => mount,
            Err(why) => return skipped("power cuts", &why),
        };
        // Both kinds of delivery take part.
        for cycles in [of_a_run; 2] {
            let cycles = cycles.min(wanted - done);
            eprintln!("CEIBA_CRASH_SEED={seed} begins after {done} power cuts");
            let outcome = run(&mount, seed, cycles, &[]);
            let outcome = outcome.unwrap_or_else(|wrong| panic!("CEIBA_CRASH_SEED={seed}: {wrong}"));
            std::fs::remove_dir_all(mount.path().join("data")).unwrap();
            all += outcome.figures;
            cleaned += outcome.cleaned;
            done += cycles;
            seed += 1;
        }
    }
    eprintln!("{done} power cuts in {:?}, {cleaned} files cleaned: {all:?}", started.elapsed());
    assert!(cleaned > 0, "nothing was cleaned: {all:?}");
    assert!(all.accepted > 0 && all.again > 0, "{all:?}");
}

#[test]
fn a_broker_that_does_not_sync_is_caught_by_a_power_cut() {
    let _turn = turn();
    let seed = first_seed();
    let mount = match Mount::ext4("power-unsynced") {
        Ok(mount) => mount,
        Err(why) => return skipped("a broker that does not sync", &why),
    };
    // The same run, with a broker that answers before the disk has it.
    let outcome = run(&mount, seed, 2, &["--durability=interval", "--sync-interval=1h"]);
    let wrong = outcome.map(|outcome| outcome.figures).expect_err("nobody noticed that nothing is synced");
    assert!(wrong.contains("accepted messages are lost"), "{wrong}");
}
